//! What a look at an installation found.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Good,
    /// It works, but is worth a look.
    Odd,
    Wrong,
}

impl Verdict {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Odd => "odd",
            Self::Wrong => "wrong",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub check: &'static str,
    pub verdict: Verdict,
    /// In one line, and without secrets.
    pub found: String,
    /// What to do about it; empty where nothing is to be done.
    pub advice: String,
}

impl Finding {
    pub fn good(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Good, found: found.into(), advice: String::new() }
    }

    pub fn odd(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Odd, found: found.into(), advice: advice.into() }
    }

    pub fn wrong(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Wrong, found: found.into(), advice: advice.into() }
    }
}

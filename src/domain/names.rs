//! Names that other programs store, each with its rule: values of these types are always valid.

use std::fmt;

/// Why a value from a client is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct Invalid {
    /// The field as the contract names it.
    pub field: &'static str,
    /// The rule that the value breaks, with the value where it helps.
    pub rule: String,
}

impl Invalid {
    pub(crate) fn new(field: &'static str, rule: impl Into<String>) -> Self {
        Self { field, rule: rule.into() }
    }
}

/// The value as it may be shown in an error: bounded, and without control characters.
fn shown(value: &str) -> String {
    let cut: String = value.chars().take(80).flat_map(char::escape_debug).collect();
    if value.chars().count() > 80 { format!("{cut}...") } else { cut }
}

/// A machine's name: `^[a-z0-9][a-z0-9_-]*$`, 1 to 64 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineName(String);

impl MachineName {
    pub(crate) const MAX: usize = 64;
    /// The default name, from the earlier services.
    pub const GUESS: &'static str = "odin3";

    /// # Errors
    /// `name` breaks the rule.
    pub fn parse(name: &str) -> Result<Self, Invalid> {
        let first = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let rest = |b: u8| first(b) || b == b'_' || b == b'-';
        let bytes = name.as_bytes();
        if bytes.len() <= Self::MAX && bytes.first().is_some_and(|&b| first(b)) && bytes.iter().all(|&b| rest(b)) {
            return Ok(Self(name.to_owned()));
        }
        Err(Invalid::new(
            "host_machine",
            format!(
                "\"{}\" is not a machine name; it must match ^[a-z0-9][a-z0-9_-]*$ with at most {} characters",
                shown(name),
                Self::MAX
            ),
        ))
    }

    /// The name of a machine for which none is configured.
    pub fn guess() -> Self {
        Self(Self::GUESS.to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A project's name: `^[a-z0-9-]+$`, and short enough that an instance id still fits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Project(String);

impl Project {
    /// The id's 32 characters less `-PS-` and the 6 of its hash.
    pub const MAX: usize = InstanceId::MAX - 4 - InstanceId::HASH;

    /// # Errors
    /// `name` breaks the rule, or is longer than [`Self::MAX`].
    pub fn parse(name: &str) -> Result<Self, Invalid> {
        let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || !name.bytes().all(valid) {
            return Err(Invalid::new(
                "project",
                format!("\"{}\" is not a project name; it must match ^[a-z0-9-]+$", shown(name)),
            ));
        }
        if name.len() > Self::MAX {
            return Err(Invalid::new(
                "project",
                format!(
                    "{} characters are too long; at most {} fit into an instance id of {}",
                    name.len(),
                    Self::MAX,
                    InstanceId::MAX
                ),
            ));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name of a project without a usable name.
    pub fn unnamed() -> Self {
        Self("unnamed".to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Project supervisor or meta supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum InstanceType {
    /// A project supervisor.
    #[default]
    Ps,
    /// A meta supervisor.
    Ms,
}

impl InstanceType {
    /// # Errors
    /// `kind` is neither `PS` nor `MS`.
    pub fn parse(kind: &str) -> Result<Self, Invalid> {
        match kind {
            "PS" => Ok(Self::Ps),
            "MS" => Ok(Self::Ms),
            _ => Err(Invalid::new("instance_type", format!("\"{}\" is neither PS nor MS", shown(kind)))),
        }
    }

    /// `PS` or `MS`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ps => "PS",
            Self::Ms => "MS",
        }
    }
}

/// A session's id: `{project}-{PS|MS}-{6 of a-z0-9}`, at most 32 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(String);

impl InstanceId {
    pub(crate) const MAX: usize = 32;
    /// The length of the random part.
    pub const HASH: usize = 6;
    const DIGITS: &'static [u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

    /// Generates an id from a random number. The caller has to check that it is not in use.
    pub fn generate(project: &Project, kind: InstanceType, random: u64) -> Self {
        let mut id = format!("{}-{}-", project.as_str(), kind.as_str());
        let mut rest = random;
        for _ in 0..Self::HASH {
            id.push(char::from(Self::DIGITS[(rest % 36) as usize]));
            rest /= 36;
        }
        Self(id)
    }

    /// Whether a session of this project and type may have this id.
    pub fn names(&self, project: &Project, kind: InstanceType) -> bool {
        self.0.len() > Self::HASH && self.0[..self.0.len() - Self::HASH] == format!("{project}-{kind}-")
    }

    /// # Errors
    /// `id` does not have that form.
    pub fn parse(id: &str) -> Result<Self, Invalid> {
        let valid = || {
            let (head, hash) = id.rsplit_once('-')?;
            let (project, kind) = head.rsplit_once('-')?;
            Project::parse(project).ok()?;
            InstanceType::parse(kind).ok()?;
            (hash.len() == Self::HASH && hash.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
                .then_some(())
        };
        match valid() {
            Some(()) => Ok(Self(id.to_owned())),
            None => Err(Invalid::new(
                "instance_id",
                format!("\"{}\" is not an instance id such as odin-PS-8f4a2b", shown(id)),
            )),
        }
    }

    /// Parses an id whose letters may have the wrong case.
    pub fn parse_ignoring_case(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let (head, hash) = lower.rsplit_once('-')?;
        let (project, kind) = head.rsplit_once('-')?;
        Self::parse(&format!("{project}-{}-{hash}", kind.to_ascii_uppercase())).ok()
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! displayed {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}
displayed!(MachineName, Project, InstanceType, InstanceId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_names_follow_the_rule() {
        for good in ["odin3", "0", "my-mac_2", &"a".repeat(64)] {
            assert!(MachineName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "UPPERCASE", "My-Machine", "machine@host", "@special", "-x", "_x", "ü", "a b", &"a".repeat(65)]
        {
            let error = MachineName::parse(bad).unwrap_err().to_string();
            assert!(error.contains("^[a-z0-9][a-z0-9_-]*$"), "{error}");
        }
    }

    #[test]
    fn projects_leave_room_for_the_id() {
        assert!(Project::parse(&"p".repeat(22)).is_ok());
        let error = Project::parse(&"p".repeat(23)).unwrap_err().to_string();
        assert!(error.contains("at most 22"), "{error}");
        assert!(Project::parse("Odin").is_err());
        assert!(Project::parse("").is_err());
    }

    #[test]
    fn generated_ids_are_valid() {
        let project = Project::parse(&"p".repeat(22)).unwrap();
        for random in [0, 1, 35, 36, u64::MAX] {
            let id = InstanceId::generate(&project, InstanceType::Ms, random);
            assert_eq!(id.as_str().len(), InstanceId::MAX);
            assert_eq!(InstanceId::parse(id.as_str()).as_ref(), Ok(&id));
        }
    }

    #[test]
    fn rejects_invalid_ids() {
        for bad in ["", "odin", "odin-PS-8f4a2", "odin-XS-8f4a2b", "odin-PS-8F4A2B", "-PS-8f4a2b", "odin-PS-8f4a2b "] {
            assert!(InstanceId::parse(bad).is_err(), "{bad}");
        }
    }
}

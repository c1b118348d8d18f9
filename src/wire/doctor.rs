//! The output of `sessiond doctor --json`.

use serde::Serialize;

use crate::domain::{Finding, Verdict};

/// What `sessiond doctor --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct DoctorBody {
    /// Whether no finding is `wrong`.
    pub well: bool,
    /// One for each thing that was checked.
    pub(crate) findings: Vec<FindingBody>,
}

/// The result of one check.
#[derive(Clone, Debug, Serialize)]
pub struct FindingBody {
    /// What was checked.
    pub(crate) check: &'static str,
    /// `good`, `odd` or `wrong`.
    pub verdict: &'static str,
    /// What was found, in one line.
    pub(crate) found: String,
    /// What to do, in one line; empty if nothing is to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) advice: String,
}

impl From<&[Finding]> for DoctorBody {
    fn from(findings: &[Finding]) -> Self {
        let body = |finding: &Finding| FindingBody {
            check: finding.check,
            verdict: finding.verdict.as_str(),
            found: finding.found.clone(),
            advice: finding.advice.clone(),
        };
        Self {
            well: findings.iter().all(|finding| finding.verdict != Verdict::Wrong),
            findings: findings.iter().map(body).collect(),
        }
    }
}

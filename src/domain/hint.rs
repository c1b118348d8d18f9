//! Finds the session that a hint of a user refers to.

use super::session::bounded;
use super::{InstanceId, Invalid, Project};

/// The longest hint in characters, which is the longest epic.
const MAX_LENGTH: usize = 256;

/// A name by which sessions are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A complete id. Only this can refer to a closed session.
    Id(InstanceId),
    /// Four to six characters of the hash in lower case, from anywhere in it.
    Hash(String),
    /// The epic that sessions work on.
    Epic(String),
    /// The project of sessions.
    Project(Project),
    /// No hint: the session with the most recent heartbeat.
    Newest,
}

impl Hint {
    /// Everything that the text may refer to, in order of precedence: the first one that any session matches is used.
    ///
    /// # Errors
    /// A hint that is empty, longer than 256 characters, or has control characters.
    pub fn interpretations(text: Option<&str>) -> Result<Vec<Self>, Invalid> {
        let Some(text) = text else { return Ok(vec![Self::Newest]) };
        let text = bounded("hint", text, MAX_LENGTH)?;
        let lower = text.to_ascii_lowercase();
        let id = InstanceId::parse_ignoring_case(&text).map(Self::Id);
        let hash = is_part_of_hash(&lower).then(|| Self::Hash(lower.clone()));
        let project = Project::parse(&lower).ok().map(Self::Project);
        // A short project name may also be part of a hash; the project takes precedence.
        Ok([id, Some(Self::Epic(text)), project, hash].into_iter().flatten().collect())
    }

    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Id(_) => "id",
            Self::Hash(_) => "hash",
            Self::Epic(_) => "epic",
            Self::Project(_) => "project",
            Self::Newest => "newest",
        }
    }
}

fn is_part_of_hash(text: &str) -> bool {
    (4..=InstanceId::HASH).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// The sessions that match a hint and are not closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HintMatches<T> {
    /// Those that can be resumed, most recent heartbeat first.
    pub resumable: Vec<T>,
    /// Of those that cannot because they are active, the one with the most recent heartbeat.
    pub active: Option<T>,
}

/// The session to resume, or why there is not exactly one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice<T> {
    /// There is exactly one, or it was chosen.
    One(T),
    /// The user has to choose.
    Several(Vec<T>),
    /// Only active sessions match.
    Active(T),
    /// The choice is greater than the number of sessions, which this is.
    Beyond(usize),
}

impl<T> HintMatches<T> {
    /// Chooses a session. `choice` counts from 1. Returns none if nothing matches.
    pub fn choose(self, choice: Option<usize>) -> Option<Choice<T>> {
        let Self { mut resumable, active } = self;
        let of = resumable.len();
        Some(match (of, choice) {
            (0, _) => Choice::Active(active?),
            (_, Some(n)) if (1..=of).contains(&n) => Choice::One(resumable.swap_remove(n - 1)),
            (_, Some(_)) => Choice::Beyond(of),
            (1, None) => Choice::One(resumable.swap_remove(0)),
            (_, None) => Choice::Several(resumable),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interpretations(text: &str) -> Vec<&'static str> {
        Hint::interpretations(Some(text)).unwrap().iter().map(Hint::as_str).collect()
    }

    #[test]
    fn hint_has_every_possible_interpretation_in_order() {
        for (text, expected) in [
            ("odin-PS-8f4a2b", &["id", "epic", "project"][..]),
            ("ODIN-ps-8F4A2B", &["id", "epic", "project"]),
            ("8f4a2b", &["epic", "project", "hash"]),
            ("8F4A", &["epic", "project", "hash"]),
            ("8f4", &["epic", "project"]),
            ("8f4a2b7", &["epic", "project"]),
            ("odin", &["epic", "project", "hash"]),
            ("odin-web", &["epic", "project"]),
            ("the login page", &["epic"]),
            ("ärger", &["epic"]),
        ] {
            assert_eq!(interpretations(text), expected, "{text}");
        }
        assert_eq!(Hint::interpretations(None).unwrap(), [Hint::Newest]);
        let id = InstanceId::parse("my-app-MS-8f4a2b").unwrap();
        assert_eq!(Hint::interpretations(Some("My-App-ms-8F4a2B")).unwrap()[0], Hint::Id(id));
        assert_eq!(
            Hint::interpretations(Some("Odin")).unwrap()[0],
            Hint::Epic("Odin".into()),
            "an epic has a letter case"
        );
    }

    #[test]
    fn rejects_empty_long_and_control_characters() {
        for bad in ["", "a\nb", "\u{1b}[2J", &"x".repeat(257), &"x".repeat(5 << 20)] {
            assert_eq!(Hint::interpretations(Some(bad)).unwrap_err().field, "hint");
        }
        assert!(Hint::interpretations(Some(&"ü".repeat(256))).is_ok());
    }

    #[test]
    fn choosing() {
        let choose =
            |resumable: &[i32], active, choice| HintMatches { resumable: resumable.to_vec(), active }.choose(choice);
        assert_eq!(choose(&[], None, Some(1)), None);
        assert_eq!(choose(&[], Some(9), None), Some(Choice::Active(9)));
        assert_eq!(choose(&[1], Some(9), None), Some(Choice::One(1)), "an active one is no candidate beside others");
        assert_eq!(choose(&[1], None, Some(2)), Some(Choice::Beyond(1)));
        assert_eq!(choose(&[1, 2], Some(9), None), Some(Choice::Several(vec![1, 2])));
        assert_eq!(choose(&[1, 2], None, Some(2)), Some(Choice::One(2)));
        assert_eq!(choose(&[1, 2], None, Some(0)), Some(Choice::Beyond(2)));
    }
}

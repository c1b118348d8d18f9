//! The footer under an agent's answers, which names the session that wrote them.

use super::{Session, Timestamp};

/// Above this share of the context window, in percent, the footer also says how to resume the session.
const RESUME_HINT_ABOVE: u8 = 30;

/// Whether the footer is set off from the text before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FooterForm {
    /// The footer alone.
    Plain,
    /// A line `---` comes first.
    Separated,
}

/// The footer, without a newline at its end. Programs parse it: its form is the one of the earlier services.
pub fn footer(session: &Session, now: Timestamp, form: FooterForm) -> String {
    let mut text = String::new();
    if form == FooterForm::Separated {
        text.push_str("---\n");
    }
    text.push_str(&format!(
        "Instance: {}@{} | Epic: {} | Context: {}% | Active: {}h",
        session.instance_id,
        session.host_machine,
        session.current_epic.as_deref().unwrap_or("\u{2014}"),
        session.context_percent,
        hours(session, now),
    ));
    if session.context_percent > RESUME_HINT_ABOVE {
        text.push_str(&format!("\n[Use \"resume {}\" to restore this session]", session.instance_id));
    }
    text
}

/// Hours since registration, rounded to one decimal; whole hours have none.
fn hours(session: &Session, now: Timestamp) -> String {
    const TENTH_OF_AN_HOUR: u128 = 360_000_000;
    let tenths = (now.since(session.created_at).as_micros() + TENTH_OF_AN_HOUR / 2) / TENTH_OF_AN_HOUR;
    match tenths % 10 {
        0 => (tenths / 10).to_string(),
        tenth => format!("{}.{tenth}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{InstanceId, InstanceType, MachineName, Project, Registration};
    use std::time::Duration;

    fn session(epic: Option<&str>, context_percent: u8) -> Session {
        let what = Registration {
            project: Project::parse("odin").unwrap(),
            instance_type: InstanceType::Ps,
            host_machine: MachineName::guess(),
            context_percent,
            current_epic: epic.map(str::to_owned),
            claude_session_uuid: None,
            claude_session_path: None,
            resumed_from: None,
            working_dir: None,
        };
        Session::register(InstanceId::parse("odin-PS-8f4a2b").unwrap(), what, Timestamp::from_micros(0))
    }

    fn after(minutes: u64) -> Timestamp {
        Timestamp::from_micros(0).plus(Duration::from_secs(minutes * 60))
    }

    #[test]
    fn has_the_form_of_the_earlier_services() {
        assert_eq!(
            footer(&session(Some("003"), 30), after(72), FooterForm::Plain),
            "Instance: odin-PS-8f4a2b@odin3 | Epic: 003 | Context: 30% | Active: 1.2h"
        );
        assert_eq!(
            footer(&session(Some("003"), 42), after(72), FooterForm::Separated),
            "---\nInstance: odin-PS-8f4a2b@odin3 | Epic: 003 | Context: 42% | Active: 1.2h\n\
             [Use \"resume odin-PS-8f4a2b\" to restore this session]"
        );
    }

    #[test]
    fn whole_hours_have_no_decimal() {
        for (minutes, shown) in [(0, "0h"), (2, "0h"), (3, "0.1h"), (60, "1h"), (119, "2h"), (120, "2h"), (123, "2.1h")]
        {
            assert!(
                footer(&session(None, 0), after(minutes), FooterForm::Plain).ends_with(&format!("Active: {shown}")),
                "{minutes}"
            );
        }
    }

    #[test]
    fn no_epic_shows_a_dash() {
        assert!(footer(&session(None, 0), after(0), FooterForm::Plain).contains("| Epic: — |"));
    }
}

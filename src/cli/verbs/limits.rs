//! limits: how much of the agents' accounts is used.

use std::time::Duration;

use clap::Args;

use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::style::{OutputStyle, Tone};
use crate::cli::table::{Cell, TableColumn, TextTable};
use crate::cli::text::age;
use crate::client::Client;
use crate::domain::Timestamp;
use crate::wire::LimitBody;

#[derive(Debug, Args)]
#[command(after_help = "Example: sessiond limits --json")]
pub(crate) struct LimitsArgs {
    /// Print the limits as JSON
    #[arg(long)]
    pub json: bool,
}

/// Less headroom than this is a warning, in percent.
const LITTLE: f64 = 20.0;

pub(crate) fn limits(client: &Client, args: &LimitsArgs, out: &mut Output<'_>) -> Result<(), CliError> {
    let limits = client.limits()?;
    if args.json {
        return out.print_json(&limits);
    }
    if limits.is_empty() {
        out.print_note(
            "no rate limit is known yet; Claude Code's status line shows them to `sessiond statusline` after its first \
             answer, if its account has any",
        );
        return Ok(());
    }
    out.print_rendered(&table(&limits, &out.style).render(&out.style))
}

fn table(limits: &[LimitBody], style: &OutputStyle) -> TextTable {
    let shows_user = limits.iter().any(|a| limits.iter().any(|b| a.host_machine == b.host_machine && a.uid != b.uid));
    let mut columns = vec![
        TableColumn::new("ACCOUNT").shrink_rank(2),
        TableColumn::new("MACHINE").shrink_rank(1),
        TableColumn::new("WINDOW").shrink_rank(3),
        TableColumn::new("USED").right(),
        TableColumn::new("HEADROOM").right(),
        TableColumn::new("RESETS"),
        TableColumn::new("AGE").right(),
    ];
    if shows_user {
        columns.insert(1, TableColumn::new("UID").right());
    }
    let mut table = TextTable::new(columns);
    for limit in limits {
        let mut cells = vec![
            Cell::new(limit.account.as_deref().unwrap_or("unknown")),
            Cell::new(&limit.host_machine),
            Cell::new(&limit.window),
            Cell::new(percent(limit.used_percent)),
            headroom(limit.headroom_percent),
            resets(limit, style.now),
            Cell::new(age(Duration::from_secs(limit.age_seconds))),
        ];
        if shows_user {
            cells.insert(1, Cell::new(limit.uid.to_string()));
        }
        table.row(cells);
    }
    table
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "—".to_owned(), |value| format!("{value}%"))
}

/// The headroom in percent; a warning if there is little.
pub(super) fn headroom(value: Option<f64>) -> Cell {
    let tone = if value.is_some_and(|left| left < LITTLE) { Tone::Warn } else { Tone::Plain };
    Cell::new(percent(value)).tone(tone)
}

/// When the window is reset: `in 2.1h (2026-01-30T14:00Z)`.
fn resets(limit: &LimitBody, now: Timestamp) -> Cell {
    if limit.reset_passed {
        return Cell::new("reset passed").tone(Tone::Dim);
    }
    let Some(at) = limit.resets_at.as_deref().and_then(Timestamp::parse) else { return Cell::new("—") };
    let text = at.to_string();
    let minute = text.rsplit_once(':').map_or(text.as_str(), |(minute, _)| minute);
    Cell::new(format!("in {} ({minute}Z)", age(at.since(now))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(uid: u32, window: &str, used: Option<f64>, resets_at: Option<&str>, reset_passed: bool) -> LimitBody {
        LimitBody {
            host_machine: "odin3".into(),
            local: true,
            uid,
            account: (uid == 1).then(|| "dev@example.com".to_owned()),
            window: window.into(),
            used_percent: used,
            headroom_percent: used.map(|used| 100.0 - used),
            resets_at: resets_at.map(str::to_owned),
            reset_passed,
            observed_at: "2026-01-30T12:00:00.000000Z".into(),
            age_seconds: 240,
            as_of: "2026-01-30T12:00:00.000000Z".into(),
        }
    }

    fn rendered(limits: &[LimitBody]) -> String {
        let style = OutputStyle { now: Timestamp::parse("2026-01-30T12:04:00Z").unwrap(), ..OutputStyle::plain() };
        table(limits, &style).render(&style)
    }

    #[test]
    fn row_shows_use_headroom_reset_and_age() {
        let shown = rendered(&[
            limit(1, "five_hour", Some(41.5), Some("2026-01-30T14:04:00.000000Z"), false),
            limit(1, "seven_day", None, Some("2026-01-30T11:00:00.000000Z"), true),
            limit(1, "seven_day_opus", Some(3.0), None, false),
        ]);
        let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["ACCOUNT", "MACHINE", "WINDOW", "USED", "HEADROOM", "RESETS", "AGE"]);
        assert_eq!(
            rows[1],
            ["dev@example.com", "odin3", "five_hour", "41.5%", "58.5%", "in", "2h", "(2026-01-30T14:04Z)", "4m"]
        );
        assert_eq!(rows[2], ["dev@example.com", "odin3", "seven_day", "—", "—", "reset", "passed", "4m"]);
        assert_eq!(rows[3], ["dev@example.com", "odin3", "seven_day_opus", "3%", "97%", "—", "4m"]);
    }

    #[test]
    fn users_of_one_machine_are_told_apart() {
        let shown =
            rendered(&[limit(1, "five_hour", Some(1.0), None, false), limit(2, "five_hour", Some(1.0), None, false)]);
        assert!(shown.lines().next().unwrap().contains("UID"), "{shown}");
        assert!(shown.lines().nth(2).unwrap().starts_with("unknown"), "{shown}");
    }
}

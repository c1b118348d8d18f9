//! The columns of `list`, the order of its rows, and which of the columns fit the terminal.

use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::cli::freshness::freshness;
use crate::cli::style::{OutputStyle, Tone};
use crate::cli::table::{Cell, TableColumn, TextTable};
use crate::cli::text::{age, age_since, elapsed_since};
use crate::domain::Timestamp;
use crate::domain::attention::SortKey;
use crate::wire::SessionBody;

/// A column of `list`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ListColumn {
    Id,
    Machine,
    Status,
    Activity,
    Title,
    Context,
    Epic,
    Heartbeat,
    Known,
    Project,
    Agent,
    Kind,
    Branch,
    Repository,
    Model,
    Cost,
}

impl ValueEnum for SortKey {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Attention => "What needs its user first: waiting, failed, idle, working, stale, closed",
            Self::Project => "By project, most recent heartbeat first",
            Self::Heartbeat => "Most recent heartbeat first",
            Self::Machine => "By machine, what needs its user first",
            Self::Context => "Fullest context window first",
            Self::Id => "By id",
        };
        Some(PossibleValue::new(self.as_str()).help(help))
    }
}

/// What is shown unless `--columns` says otherwise.
pub(super) const DEFAULT_COLUMNS: [ListColumn; 9] = [
    ListColumn::Id,
    ListColumn::Machine,
    ListColumn::Status,
    ListColumn::Activity,
    ListColumn::Title,
    ListColumn::Context,
    ListColumn::Epic,
    ListColumn::Heartbeat,
    ListColumn::Known,
];

/// The columns that are left out where the terminal is too narrow, the least useful first.
const DROPPED: [ListColumn; 5] =
    [ListColumn::Epic, ListColumn::Heartbeat, ListColumn::Context, ListColumn::Title, ListColumn::Machine];

impl ListColumn {
    fn column(self) -> TableColumn {
        let column = TableColumn::new(self.title());
        match self {
            Self::Id => column.cut_middle().shrink_rank(1),
            Self::Machine => column.shrink_rank(2),
            Self::Epic | Self::Repository | Self::Branch | Self::Model => column.shrink_rank(3),
            Self::Title => column.shrink_rank(5),
            Self::Activity => column.shrink_rank(4),
            Self::Context | Self::Heartbeat | Self::Cost => column.right(),
            Self::Status | Self::Known | Self::Project | Self::Agent | Self::Kind => column,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Id => "ID",
            Self::Machine => "MACHINE",
            Self::Status => "STATUS",
            Self::Activity => "ACTIVITY",
            Self::Title => "TITLE",
            Self::Context => "CONTEXT",
            Self::Epic => "EPIC",
            Self::Heartbeat => "HEARTBEAT",
            Self::Known => "KNOWN",
            Self::Project => "PROJECT",
            Self::Agent => "AGENT",
            Self::Kind => "KIND",
            Self::Branch => "BRANCH",
            Self::Repository => "REPOSITORY",
            Self::Model => "MODEL",
            Self::Cost => "COST",
        }
    }

    fn cell(self, session: &SessionBody, now: Timestamp) -> Cell {
        let option = |text: &Option<String>| Cell::new(text.as_deref().unwrap_or("—"));
        match self {
            Self::Id => Cell::new(&session.instance_id),
            Self::Machine => Cell::new(&session.host_machine),
            Self::Status => Cell::new(&session.status).tone(Tone::of_status(&session.status)),
            Self::Activity => activity(session, now),
            Self::Title => option(&session.title),
            Self::Context => Cell::new(format!("{}%", session.context_percent)),
            Self::Epic => option(&session.current_epic),
            Self::Heartbeat => Cell::new(match alive_for(session, now) {
                Some(alive) => format!("alive, as of {} ago", age(alive)),
                None => age(Duration::from_secs(session.age_seconds)),
            }),
            Self::Known if !session.conflicts_with.is_empty() => Cell::new("conflict").tone(Tone::Warn),
            Self::Known => freshness(session, now),
            Self::Project => Cell::new(&session.project),
            Self::Agent => option(&session.agent),
            Self::Kind => option(&session.kind),
            Self::Branch => option(&session.branch),
            Self::Repository => option(&session.repository),
            Self::Model => option(&session.model),
            Self::Cost => Cell::new(session.cost_usd.map_or("—".to_owned(), |cost| format!("${cost:.2}"))),
        }
    }
}

/// How long ago the daemon of another machine said that the session is alive; `None` where its heartbeat alone counts.
fn alive_for(session: &SessionBody, now: Timestamp) -> Option<Duration> {
    let alive_as_of = session.alive_as_of.as_deref().filter(|_| session.status == "active");
    elapsed_since(alive_as_of?, now)
}

/// `waiting 4m: permission Bash`
fn activity(session: &SessionBody, now: Timestamp) -> Cell {
    let Some(activity) = &session.activity else { return Cell::new("—") };
    let since = session.activity_since.as_deref().and_then(|since| age_since(since, now));
    let words = [session.waiting_for.as_deref(), session.activity_detail.as_deref()];
    let what = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let mut text = activity.clone();
    if let Some(since) = since {
        text.push_str(&format!(" {since}"));
    }
    if !what.is_empty() {
        text.push_str(&format!(": {what}"));
    }
    Cell::new(text).tone(match activity.as_str() {
        "waiting" => Tone::Warn,
        "failed" => Tone::Bad,
        _ => Tone::Plain,
    })
}

/// The sessions as a table with these columns, or with the default ones that fit.
pub(super) fn table(sessions: &[SessionBody], chosen: Option<&[ListColumn]>, style: &OutputStyle) -> TextTable {
    let mut columns = chosen.unwrap_or(&DEFAULT_COLUMNS).to_vec();
    if chosen.is_none() {
        // A column in which no session has a value is left out.
        let nothing = |column: ListColumn| match column {
            ListColumn::Activity => sessions.iter().all(|session| session.activity.is_none()),
            ListColumn::Title => sessions.iter().all(|session| session.title.is_none()),
            _ => false,
        };
        columns.retain(|column| !nothing(*column));
    }
    let render = |columns: &[ListColumn]| {
        let mut table = TextTable::new(columns.iter().map(|column| column.column()).collect::<Vec<_>>());
        for session in sessions {
            table.row(columns.iter().map(|column| column.cell(session, style.now)).collect::<Vec<_>>());
        }
        table
    };
    for dropped in DROPPED.iter().filter(|_| chosen.is_none()) {
        if style.width.is_none_or(|width| render(&columns).least_width() <= width) {
            break;
        }
        columns.retain(|column| column != dropped);
    }
    render(&columns)
}

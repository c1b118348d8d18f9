//! One session as the view shows it: its text made safe and short, its times parsed.

use crate::domain::Timestamp;
use crate::domain::attention::{Attention, Need, SortFields, SortKey, SortPosition};
use crate::domain::text::inline;
use crate::wire::SessionBody;

/// The longest shown text of a field, in bytes.
const MAX_TEXT: usize = 256;
/// How many values of the context window are kept.
pub(super) const MAX_TREND: usize = 32;

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub instance_id: String,
    pub project: String,
    pub machine: String,
    pub title: Option<String>,
    pub branch: Option<String>,
    pub epic: Option<String>,
    pub attention: Attention,
    /// Since when it does what it does.
    pub since: Option<Timestamp>,
    /// What it waits for, or the kind of its error.
    pub detail: Option<String>,
    pub heartbeat: Option<Timestamp>,
    /// When its machine's daemon last vouched for it, as of its newest change.
    pub vouched_at: Option<Timestamp>,
    pub context_percent: u8,
    /// Whether it runs on this machine.
    pub is_local: bool,
    /// Whether its state is the one that its machine has.
    pub is_current: bool,
    /// Whether it is shown unless all sessions are.
    pub is_open_work: bool,
    /// The values of the context window since the view started, oldest first; the present one is the last.
    pub trend: Vec<u8>,
}

impl Row {
    pub(super) const fn need(&self) -> Need {
        self.attention.need
    }

    pub(super) fn position(&self, key: SortKey) -> SortPosition {
        key.position(&SortFields {
            attention: self.attention,
            heartbeat: self.heartbeat.max(self.vouched_at),
            project: &self.project,
            machine: &self.machine,
            context_percent: self.context_percent,
            instance_id: &self.instance_id,
        })
    }

    /// The title, or else the id.
    pub(super) fn name(&self) -> &str {
        self.title.as_deref().unwrap_or(&self.instance_id)
    }

    /// Continues the trend of the row that it replaces.
    pub(super) fn continue_trend(&mut self, before: &mut Self) {
        let mut trend = std::mem::take(&mut before.trend);
        if trend.last() != Some(&self.context_percent) {
            trend.push(self.context_percent);
        }
        let excess = trend.len().saturating_sub(MAX_TREND);
        trend.drain(..excess);
        self.trend = trend;
    }

    /// Whether each of these lower-case words is in one of its fields.
    pub(super) fn matches(&self, words: &[String]) -> bool {
        if words.is_empty() {
            return true;
        }
        let optional = [&self.title, &self.branch, &self.epic, &self.detail];
        let fields = [self.instance_id.as_str(), &self.project, &self.machine, self.need().as_str()];
        let fields: Vec<String> = fields
            .into_iter()
            .chain(optional.into_iter().flatten().map(String::as_str))
            .map(str::to_lowercase)
            .collect();
        words.iter().all(|word| fields.iter().any(|field| field.contains(word)))
    }
}

impl From<SessionBody> for Row {
    fn from(session: SessionBody) -> Self {
        let attention = session.attention();
        let is_open_work = session.is_open_work();
        let text = |text: Option<String>| text.map(|text| inline(&text, MAX_TEXT)).filter(|text| !text.is_empty());
        let words = [session.waiting_for.as_deref(), session.activity_detail.as_deref()];
        let detail = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
        Self {
            since: session.activity_since.as_deref().and_then(Timestamp::parse),
            heartbeat: Timestamp::parse(&session.last_heartbeat),
            vouched_at: session.vouched_at(),
            // Ids are arguments of actions: they are kept as they are, and made safe where they are drawn.
            instance_id: session.instance_id,
            project: inline(&session.project, MAX_TEXT),
            machine: inline(&session.host_machine, MAX_TEXT),
            title: text(session.title),
            branch: text(session.branch),
            epic: text(session.current_epic),
            detail: text(Some(detail)),
            attention,
            context_percent: session.context_percent.min(100),
            is_local: session.local,
            is_current: session.local || session.machine_synced,
            is_open_work,
            trend: vec![session.context_percent.min(100)],
        }
    }
}

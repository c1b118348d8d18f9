//! Where lists show a session.

use super::SessionBody;
use crate::domain::Timestamp;
use crate::domain::attention::{Attention, Need, SortFields};

impl SessionBody {
    /// Its position in the order of attention.
    pub fn attention(&self) -> Attention {
        let since = self.activity_since.as_deref().and_then(Timestamp::parse);
        let need = Need::of(&self.status, self.activity.as_deref());
        Attention::new(need, since, Timestamp::parse(&self.last_heartbeat))
    }

    /// When its machine's daemon last vouched for it: only for an active session of another machine.
    pub fn vouched_at(&self) -> Option<Timestamp> {
        self.alive_as_of.as_deref().filter(|_| self.status == "active").and_then(Timestamp::parse)
    }

    /// What decides its position in a list.
    pub fn sort_fields(&self) -> SortFields<'_> {
        SortFields {
            attention: self.attention(),
            heartbeat: Timestamp::parse(&self.last_heartbeat).max(self.vouched_at()),
            project: &self.project,
            machine: &self.host_machine,
            context_percent: self.context_percent,
            instance_id: &self.instance_id,
        }
    }

    /// Whether lists show it unless all are asked for: an open session, and no prompt that ran by itself.
    pub fn is_open_work(&self) -> bool {
        self.status != "closed" && !self.is_headless()
    }

    /// Whether it is a prompt that ran by itself.
    pub fn is_headless(&self) -> bool {
        self.kind.as_deref() == Some("headless")
    }
}

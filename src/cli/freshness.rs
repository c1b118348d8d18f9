//! How fresh what is known of a session is, beside its row.

use std::time::Duration;

use super::style::Tone;
use super::table::Cell;
use super::text::{age, elapsed_since};
use crate::domain::Timestamp;
use crate::wire::SessionBody;

/// A mirror that was true so lately needs no remark.
const FRESH: Duration = Duration::from_secs(60);

/// Nothing beside what is known first hand.
pub fn freshness(session: &SessionBody, now: Timestamp) -> Cell {
    let old = elapsed_since(&session.as_of, now).filter(|old| !session.local && *old >= FRESH);
    match old {
        Some(old) => Cell::new(format!("cached {}", age(old))).tone(Tone::Dim),
        None if !session.machine_synced => Cell::new("unreachable").tone(Tone::Warn),
        None => Cell::new(""),
    }
}

//! How current the displayed state of a session is.

use std::time::Duration;

use super::style::Tone;
use super::table::Cell;
use super::text::{age, elapsed_since};
use crate::domain::Timestamp;
use crate::wire::SessionBody;

/// Mirrored state that is younger than this is shown as current.
const FRESH: Duration = Duration::from_secs(60);

/// The cell in the column KNOWN; empty for sessions of this host and for current state.
pub(super) fn freshness(session: &SessionBody, now: Timestamp) -> Cell {
    let old = elapsed_since(&session.as_of, now).filter(|old| !session.local && *old >= FRESH);
    match old {
        Some(old) => Cell::new(format!("cached {}", age(old))).tone(Tone::Dim),
        None if !session.machine_synced => Cell::new("unreachable").tone(Tone::Warn),
        None => Cell::new(""),
    }
}

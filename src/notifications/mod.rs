//! Notifications: tells people when a session needs them, by the rules of `[notify]`.
//!
//! The notifier follows the store's changes. A session that enters a state which a rule names is pending until the rule's
//! delay has passed; if it still is in that state then, the rule's channel is told. Without rules nothing runs.
//!
//! **Each transition is told once**, by one host of the fleet:
//! - What was told is in the store (`notified`), so that a restart tells nobody again.
//! - While central is connected, a host takes a lease for the transition and the channel before it tells anybody, and keeps it
//!   for a week once it has. So two hosts with the same rule do not both tell.
//! - A session's own daemon tells of it; without central it tells at once, and takes the lease when central is back. For the
//!   sessions of other machines there is one host, which has the lease `fleet`; it waits a while longer, so that the
//!   sessions' own daemon comes first, and takes over when that one is gone.
//!
//! A channel that fails is tried again, less and less often, for an hour. A host that is killed between telling and noting it
//! may tell again: that somebody hears of it comes before that nobody hears of it twice. Webhooks can tell by the
//! `Idempotency-Key`.

mod channel;
mod http_post;
mod notifier;
mod pending;

pub use notifier::{Notifier, NotifierParts, TestRequest};

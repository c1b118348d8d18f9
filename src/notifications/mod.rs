//! Notifications: reports sessions that need their user, by the rules of `[notify]`.
//!
//! The notifier follows the store's changes. A session that enters a state which a rule names is pending until the rule's
//! delay has passed; if it still is in that state then, a notification is sent by the rule's channel. Without rules nothing
//! runs.
//!
//! **Each transition is sent once**, by one host of the fleet:
//! - What was sent is in the store (`notified`), so that it is not sent again after a restart.
//! - While central is connected, a host takes a lease for the transition and the channel before it sends, and keeps it for a
//!   week afterwards. So of two hosts with the same rule only one sends.
//! - A session's own daemon sends first. Without central it sends at once, and takes the lease when central is back. One host,
//!   which has the lease `fleet`, sends for other machines' sessions, after a grace period in which their own daemon may.
//!
//! A channel that fails is retried with backoff for an hour. A host that is killed between sending and recording may send again:
//! a duplicate is better than a loss. Receivers recognise it by the `Idempotency-Key`.

mod channel;
mod http_post;
mod notifier;
mod pending;

pub use notifier::{Notifier, NotifierParts, TestRequest};

//! The real daemon, the real client, a real Postgres.

mod bad_input;
mod clients;
mod collisions;
mod crashes;
mod history;
mod identity;
mod life;
mod limits;
mod merging;
mod mirror;
mod outage;
mod processes;
mod readme;
mod records;
mod retries;
mod work;

//! The agents themselves: hooks, status line, discovery, and all that speaks for them.

mod bad_input;
mod day;
mod discovery;
mod exec;
mod settings;
mod spool;

//! The agents themselves: hooks, status line, discovery, and all that speaks for them.

mod bad_input;
mod conversations;
mod day;
mod discover;
mod discovery;
mod exec;
mod mcp;
mod recipes;
mod recorded;
mod settings;
mod spool;

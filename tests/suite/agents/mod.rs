//! The agents themselves: hooks, status line, discovery, and all that speaks for them.

mod bad_input;
mod day;
mod discovery;
mod exec;
mod mcp;
mod recipes;
mod settings;
mod spool;

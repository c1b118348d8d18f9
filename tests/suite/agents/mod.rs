//! Agents: hooks, status line, discovery, exec and MCP.

mod activity;
mod bad_input;
mod conflicts;
mod conversations;
mod day;
mod discover;
mod discovery;
mod exec;
mod handoff_figure;
mod mcp;
mod recipes;
mod recorded;
mod reported_work;
mod settings;
mod spool;
mod two_machines;

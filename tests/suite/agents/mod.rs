//! Agents: hooks, status line, discovery, exec and MCP.

mod activity;
mod bad_input;
mod claude_plugin;
mod conflicts;
mod conversations;
mod day;
mod discover;
mod discovery;
mod exec;
mod handoff_figure;
mod mcp;
mod other_agents;
mod other_settings;
mod recipes;
mod recorded;
mod reported_work;
mod settings;
mod spool;
mod two_machines;

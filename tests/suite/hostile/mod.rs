//! Hostile input: connections, users, files and text.

mod connections;
mod description;
mod files;
mod fuzz;
mod properties;
mod targets;
mod text;
mod users;

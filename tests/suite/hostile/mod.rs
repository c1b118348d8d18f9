//! Whoever is on the other end means harm.

mod connections;
mod description;
mod files;
mod fuzz;
mod properties;
mod targets;
mod text;
mod users;

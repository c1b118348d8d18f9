//! Whoever is on the other end means harm.

mod connections;
mod description;
mod fuzz;
mod targets;
mod users;

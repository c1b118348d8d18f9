//! Whoever is on the other end means harm.

mod connections;
mod fuzz;
mod targets;

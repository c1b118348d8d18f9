//! Whoever is on the other end means harm.

mod fuzz;
mod targets;

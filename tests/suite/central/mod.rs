//! Central: the fake and the real one, held to the same suite.

mod conformance;
mod fake;
mod migrations;
mod postgres;

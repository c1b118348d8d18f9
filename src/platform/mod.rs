//! The one place where Linux and macOS differ.
//!
//! Each portable variant (the polling ones) also compiles on Linux and is tested there.

pub mod limits;
pub mod peer;
pub mod places;
pub mod process;
pub mod wake;

//! Finding and resuming sessions: by hints, with their context, from the mirror.

mod context;
mod machines;
mod resume;
mod rows;
mod shown;

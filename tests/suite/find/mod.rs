//! Finding a session and going on from it: by hints, with what it left behind, from a mirror.

mod context;
mod machines;
mod resume;
mod rows;
mod shown;

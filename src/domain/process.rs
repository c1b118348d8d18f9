//! Processes of this host.

/// A process on this host that a session belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its number in the daemon's pid namespace.
    pub pid: i32,
    /// When it started, in the platform's own unit: the guard against a reused pid.
    pub started: i64,
}

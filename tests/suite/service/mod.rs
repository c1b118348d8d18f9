//! sessiond as a service: its units, its property lists, its package, its rights, and systemd for real.

mod booted;
mod doctor;
mod files;
mod launchd;
mod package;
mod restarts;
mod rights;

//! sessiond as a service: units, property lists, package, database rights, and a real systemd.

mod booted;
mod doctor;
mod files;
mod launchd;
mod package;
mod restarts;
mod rights;

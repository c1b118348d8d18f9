//! Notifications: each transition is told once, by one host, over each channel.

mod channels;
mod desktop;
mod fleet;
mod receiver;

//! Notifications: each is sent once, by one host, over each channel.

mod channels;
mod desktop;
mod fleet;
mod receiver;

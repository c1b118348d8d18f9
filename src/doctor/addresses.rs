//! Whether the address filter of the system's unit allows central.

use std::net::{IpAddr, ToSocketAddrs};

use super::service::output;
use crate::domain::Finding;
use crate::sync::postgres::PostgresOptions;

/// Checks IPAddressAllow= of the system's unit, if it is installed.
pub(super) fn filter(options: &PostgresOptions) -> Option<Finding> {
    let show = ["systemctl", "show", "sessiond.service", "--property", "IPAddressAllow,IPAddressDeny"];
    let shown = output(&show)?;
    let list = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
    if list("IPAddressDeny=").is_empty() {
        return None;
    }
    let allowed = list("IPAddressAllow=");
    let servers = options.servers().into_iter().flatten();
    let addresses = servers.filter_map(|server| server.to_socket_addrs().ok()).flatten().map(|address| address.ip());
    let blocked: Vec<_> = addresses.filter(|ip| !allows(&allowed, *ip)).map(|ip| ip.to_string()).collect();
    Some(if blocked.is_empty() {
        Finding::good("central.filter", "the service may connect to central's addresses")
    } else {
        let blocked = blocked.join(" ");
        Finding::wrong(
            "central.filter",
            format!("the system's service may not connect to {blocked}"),
            format!("run `systemctl edit sessiond`, write [Service] and IPAddressAllow={blocked}, then restart it"),
        )
    })
}

/// Whether an address is in one of the networks, each `ADDRESS/BITS`.
fn allows(networks: &str, ip: IpAddr) -> bool {
    networks.split_whitespace().any(|network| contains(network, ip).unwrap_or(false))
}

fn contains(network: &str, ip: IpAddr) -> Option<bool> {
    let (address, bits) = network.split_once('/')?;
    let bits: u32 = bits.parse().ok()?;
    Some(match (address.parse().ok()?, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => {
            shared(u32::from(network).into(), u32::from(ip).into(), 32 - bits.min(32))
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) => shared(network.into(), ip.into(), 128 - bits.min(128)),
        _ => false,
    })
}

fn shared(network: u128, ip: u128, below: u32) -> bool {
    (network ^ ip).checked_shr(below).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_their_networks() {
        let unit = include_str!("../../systemd/system/sessiond.service");
        let line = unit.lines().find_map(|line| line.strip_prefix("IPAddressAllow=")).unwrap();
        // As systemd shows them.
        let networks =
            line.replace("localhost", "127.0.0.0/8 ::1/128").replace("link-local", "169.254.0.0/16 fe80::/64");
        for (ip, allowed) in [
            ("127.0.0.53", true),
            ("10.1.2.3", true),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("192.168.1.5", true),
            ("100.100.1.1", true),
            ("8.8.8.8", false),
            ("::1", true),
            ("fd00::7", true),
            ("2001:db8::1", false),
        ] {
            assert_eq!(allows(&networks, ip.parse().unwrap()), allowed, "{ip}");
        }
        assert!(allows("0.0.0.0/0 ::/0", "8.8.8.8".parse().unwrap()));
        assert!(!allows("", "8.8.8.8".parse().unwrap()));
    }
}

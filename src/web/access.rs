//! Who may ask for anything: pure rules on `Host`, `Origin`, token and cookie.
//!
//! 1. A request whose `Host` or `Origin` is not one of this server's own is refused (403) before anything else is looked
//!    at: a foreign name that resolves to this machine (DNS rebinding) is refused.
//! 2. Without a valid cookie every path is refused (401), except that a valid token on `/` gives one.
//! 3. The token of the printed URL is accepted once. The token of a file is accepted again, as a phone needs it.
//! 4. A change needs an `Origin` of this server and a header that no form can send.

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

use crate::platform::random::random;

/// The header that a request which changes something must have; its value is the action's name.
pub(super) const ACTION_HEADER: &str = "x-sessiond-action";

/// What a request says of where it comes from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RequestSource<'a> {
    /// All its `Host` headers.
    pub hosts: &'a [&'a str],
    /// The authority of its target, if that is a whole URL.
    pub authority: Option<&'a str>,
    /// All its `Origin` headers.
    pub origins: &'a [&'a str],
    pub cookies: &'a [&'a str],
    /// The `token` of the query, on `/`.
    pub token: Option<&'a str>,
}

/// What the rules say of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Allowed,
    /// The token was right: it becomes a cookie, and the browser asks again without it.
    TokenAccepted,
    /// 403.
    Foreign,
    /// 401.
    Unauthorized,
}

/// The secrets and the address of a server.
pub(super) struct Access {
    address: SocketAddr,
    /// Taken when it is used.
    one_time: Mutex<Option<String>>,
    /// What the file has.
    reusable: Option<String>,
    cookie: String,
}

impl Access {
    pub(super) fn new(address: SocketAddr, reusable: Option<String>) -> Self {
        Self { address, one_time: Mutex::new(Some(secret())), reusable, cookie: secret() }
    }

    /// The address by which a browser on this machine reaches the server.
    pub(super) fn local_address(&self) -> SocketAddr {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        SocketAddr::new(ip, self.address.port())
    }

    pub(super) fn one_time_token(&self) -> String {
        self.one_time.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone().unwrap_or_default()
    }

    pub(super) fn decide(&self, request: &RequestSource<'_>) -> Decision {
        let [host] = request.hosts else { return Decision::Foreign };
        let authorities = [Some(*host), request.authority].into_iter().flatten();
        let origin_is_own = request.origins.iter().all(|origin| self.is_own_origin(origin));
        if !origin_is_own || authorities.into_iter().any(|host| !self.is_own_host(host)) {
            return Decision::Foreign;
        }
        if request.token.is_some_and(|token| self.accept_token(token)) {
            return Decision::TokenAccepted;
        }
        if self.has_cookie(request.cookies) { Decision::Allowed } else { Decision::Unauthorized }
    }

    /// The value of `Set-Cookie`. Cookies are shared by all ports of a host, so the name has the port.
    pub(super) fn set_cookie(&self) -> String {
        format!("{}={}; Path=/; HttpOnly; SameSite=Strict", self.cookie_name(), self.cookie)
    }

    fn cookie_name(&self) -> String {
        format!("sessiond-{}", self.address.port())
    }

    fn has_cookie(&self, headers: &[&str]) -> bool {
        let name = self.cookie_name();
        let pairs = headers.iter().flat_map(|header| header.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.filter(|(found, _)| *found == name).any(|(_, value)| equal(value, &self.cookie))
    }

    fn accept_token(&self, token: &str) -> bool {
        if self.reusable.as_deref().is_some_and(|reusable| equal(token, reusable)) {
            return true;
        }
        let mut one_time = self.one_time.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_right = one_time.as_deref().is_some_and(|expected| equal(token, expected));
        if is_right {
            *one_time = None;
        }
        is_right
    }

    pub(super) fn is_own_origin(&self, origin: &str) -> bool {
        origin.strip_prefix("http://").is_some_and(|host| self.is_own_host(host))
    }

    /// Whether a `Host` names this server. Names are those of this machine; where all addresses are listened on, any
    /// address will do, since only a name can be made to resolve to another's machine.
    fn is_own_host(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
            _ => (host.as_str(), Some(80)),
        };
        if port != Some(self.address.port()) {
            return false;
        }
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let ip = self.address.ip();
        match bare.parse::<IpAddr>() {
            Ok(named) => named == ip || ip.is_unspecified(),
            Err(_) if name == "localhost" => ip.is_loopback() || ip.is_unspecified(),
            Err(_) => !ip.is_loopback() && name == node_name(),
        }
    }
}

/// The machine's own name.
fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase()
}

/// 256 random bits.
pub(super) fn secret() -> String {
    (0..4).map(|_| format!("{:016x}", random())).collect()
}

/// Compares without revealing by the time it takes where two secrets differ.
fn equal(given: &str, expected: &str) -> bool {
    let (given, expected) = (given.as_bytes(), expected.as_bytes());
    let differing = given.iter().zip(expected).fold(0, |differing, (a, b)| differing | (a ^ b));
    given.len() == expected.len() && std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(address: &str) -> Access {
        Access::new(address.parse().unwrap(), None)
    }

    /// A request with the right cookie, if `cookie` is none.
    #[derive(Default)]
    struct Ask<'a> {
        host: &'a str,
        authority: Option<&'a str>,
        origin: Option<&'a str>,
        cookie: Option<&'a str>,
        token: Option<&'a str>,
    }

    fn decide(access: &Access, ask: &Ask<'_>) -> Decision {
        let right = format!("other=1; {}={}", access.cookie_name(), access.cookie);
        access.decide(&RequestSource {
            hosts: &[ask.host],
            authority: ask.authority,
            origins: ask.origin.as_slice(),
            cookies: &[ask.cookie.unwrap_or(&right)],
            token: ask.token,
        })
    }

    fn of_host(access: &Access, host: &str) -> Decision {
        decide(access, &Ask { host, ..Ask::default() })
    }

    const HERE: &str = "127.0.0.1:8123";

    #[test]
    fn only_own_hosts_and_origins_are_allowed() {
        let local = access("127.0.0.1:8123");
        for host in ["127.0.0.1:8123", "localhost:8123", "LOCALHOST:8123"] {
            assert_eq!(of_host(&local, host), Decision::Allowed, "{host}");
        }
        let foreign = [
            "evil.example",
            "evil.example:8123",
            "127.0.0.1",
            "127.0.0.1:80",
            "127.0.0.2:8123",
            "",
            "localhost",
            "localhost.evil.example:8123",
            "127.0.0.1:8123.evil.example",
            "user@127.0.0.1:8123",
            "127.0.0.1:8123@evil",
            "[::1]:8123",
            "localhost:8123:1",
            "localhost:",
            " localhost:8123",
            "0x7f000001:8123",
        ];
        for host in foreign {
            assert_eq!(of_host(&local, host), Decision::Foreign, "{host}");
        }
        for origin in ["null", "http://evil.example", "https://127.0.0.1:8123", "http://127.0.0.1:8124", "", "file://"]
        {
            assert_eq!(
                decide(&local, &Ask { host: HERE, origin: Some(origin), ..Ask::default() }),
                Decision::Foreign,
                "{origin}"
            );
        }
        let own = Ask { host: HERE, origin: Some("http://127.0.0.1:8123"), ..Ask::default() };
        assert_eq!(decide(&local, &own), Decision::Allowed);
        let elsewhere = Ask { host: HERE, authority: Some("evil.example"), ..Ask::default() };
        assert_eq!(decide(&local, &elsewhere), Decision::Foreign);
        for hosts in [&[][..], &["localhost:8123"; 2]] {
            assert_eq!(local.decide(&RequestSource { hosts, ..RequestSource::default() }), Decision::Foreign);
        }
    }

    #[test]
    fn all_addresses_of_a_machine_are_own_and_no_foreign_name_is() {
        let all = access("0.0.0.0:8123");
        for host in ["192.168.1.7:8123", "127.0.0.1:8123", "localhost:8123", "[fe80::1]:8123"] {
            assert_eq!(of_host(&all, host), Decision::Allowed, "{host}");
        }
        for host in ["evil.example:8123", "192.168.1.7.evil.example:8123", "192.168.1.7"] {
            assert_eq!(of_host(&all, host), Decision::Foreign, "{host}");
        }
        assert_eq!(all.local_address().to_string(), "127.0.0.1:8123");
        assert_eq!(of_host(&access("[::1]:8123"), "[::1]:8123"), Decision::Allowed);
        assert_eq!(of_host(&access("127.0.0.1:80"), "localhost"), Decision::Allowed);
    }

    #[test]
    fn the_printed_token_is_accepted_once() {
        let local = access("127.0.0.1:8123");
        let token = local.one_time_token();
        assert_eq!(token.len(), 64);
        let ask = |token| decide(&local, &Ask { host: HERE, token: Some(token), cookie: Some(""), ..Ask::default() });
        assert_eq!(ask(&token[1..]), Decision::Unauthorized);
        assert_eq!(ask(""), Decision::Unauthorized);
        assert_eq!(
            decide(&local, &Ask { host: "evil.example", token: Some(&token), ..Ask::default() }),
            Decision::Foreign
        );
        assert_eq!(ask(&token), Decision::TokenAccepted);
        assert_eq!(ask(&token), Decision::Unauthorized);
    }

    #[test]
    fn the_token_of_a_file_is_accepted_again() {
        let shared = Access::new("10.0.0.1:8123".parse().unwrap(), Some("x".repeat(64)));
        let token = "x".repeat(64);
        let ask = Ask { host: "10.0.0.1:8123", token: Some(&token), cookie: Some(""), ..Ask::default() };
        for _ in 0..2 {
            assert_eq!(decide(&shared, &ask), Decision::TokenAccepted);
        }
    }

    #[test]
    fn nothing_is_answered_without_the_cookie() {
        let local = access("127.0.0.1:8123");
        for cookie in ["", "sessiond-8123=", "sessiond-8123=0", "sessiond-8124=x", ";;=;"] {
            assert_eq!(
                decide(&local, &Ask { host: HERE, cookie: Some(cookie), ..Ask::default() }),
                Decision::Unauthorized,
                "{cookie}"
            );
        }
        let cookie = local.set_cookie();
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{cookie}");
    }
}

//! URLs of central: which parameters they may have, and one URL for each of several hosts.

use url::Url;

use super::invalid::{InvalidOptions, invalid};
use super::security;

/// One URL for each host of `postgres://user@host1:port1,host2:port2/database?host=/socket1,/socket2`; hosts in
/// the query count for more than those before it, and one port serves all hosts.
pub(super) fn each_host(text: &str) -> Result<Vec<Url>, InvalidOptions> {
    let (before, hosts, after) = authority(text);
    // libpq takes user@/database where the query names the hosts; a URL proper has one before it.
    let hosts = if hosts.is_empty() && after.contains("host=") { "localhost" } else { hosts };
    let hosts: Vec<&str> = hosts.split(',').collect();
    let urls = hosts.iter().map(|host| checked(&format!("{before}{host}{after}"))).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = urls.first() else { return Err(invalid("it names no host")) };
    let values = |name: &str| -> Vec<String> {
        let value = first.query_pairs().filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).last();
        value.map(|value| value.split(',').map(str::to_owned).collect()).unwrap_or_default()
    };
    let (in_query, ports) = (values("host"), values("port"));
    if in_query.len() < 2 && ports.len() < 2 {
        return Ok(urls);
    }
    let count = if in_query.is_empty() { urls.len() } else { in_query.len() };
    if ports.len() > 1 && ports.len() != count {
        return Err(invalid(format!("it names {count} hosts and {} ports", ports.len())));
    }
    let nth = |n: usize| {
        let mut url = urls.get(n).unwrap_or(first).clone();
        set(&mut url, "host", in_query.get(n));
        set(&mut url, "port", ports.get(n).or(ports.first()));
        url
    };
    Ok((0..count).map(nth).collect())
}

/// Splits a URL before and after its hosts.
fn authority(text: &str) -> (&str, &str, &str) {
    let start = text.find("://").map_or(0, |at| at + 3);
    let end = text[start..].find(['/', '?', '#']).map_or(text.len(), |at| start + at);
    let start = text[start..end].rfind('@').map_or(start, |at| start + at + 1);
    (&text[..start], &text[start..end], &text[end..])
}

/// Gives a parameter another value, if there is one.
pub(super) fn set(url: &mut Url, name: &str, value: Option<&String>) {
    let Some(value) = value else { return };
    let others: Vec<_> =
        url.query_pairs().filter(|(key, _)| key != name).map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
    url.query_pairs_mut().clear().extend_pairs(others).append_pair(name, value);
}

/// The URL, if it is one with parameters that are known.
pub(super) fn checked(text: &str) -> Result<Url, InvalidOptions> {
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Err(invalid("it must begin with postgres://, as in postgres://user@host:5432/database"));
    }
    let url = Url::parse(text).map_err(|error| {
        invalid(format!("{error}; special characters in user and password must be percent-encoded, such as %2F for /"))
    })?;
    if url.fragment().is_some() {
        return Err(invalid("a # in it must be percent-encoded as %23"));
    }
    for (key, _) in url.query_pairs() {
        security::is_for_login(&key)?;
    }
    Ok(url)
}

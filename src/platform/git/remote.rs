//! The name of a repository by the URL of its remote: host and path, without credentials.

/// `github.com/team/app` for any form of its URL. `None`: the URL names no repository.
pub(super) fn name_of(url: &str) -> Option<String> {
    let url = url.trim();
    // A helper, such as `codecommit::https://...`; what `ext::` names is a command.
    let url = match url.split_once("::") {
        Some((helper, rest)) if is_word(helper) => Some(rest).filter(|rest| rest.contains("://"))?,
        _ => url,
    };
    let (host, path) = match url.split_once("://") {
        Some((scheme, path)) if scheme.eq_ignore_ascii_case("file") => (None, path),
        Some((_, rest)) => {
            // A query may hold a token.
            let rest = rest.split(['?', '#']).next().unwrap_or_default();
            let (host, path) = without_user(rest).split_once('/')?;
            (Some(host), path)
        }
        None => match url.split_once(':') {
            // With a slash before the colon, or a drive's letter, it is a path.
            Some((host, _)) if host.contains('/') || host.len() == 1 => (None, url),
            Some(_) if url.starts_with('[') => bracketed(url)?,
            Some(_) => {
                let (host, path) = without_user(url).split_once(':')?;
                (Some(host), path)
            }
            None => (None, url),
        },
    };
    let path = path.trim_end_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path).trim_end_matches('/');
    let Some(host) = host else {
        // A path on this machine; one that is relative has no meaning elsewhere.
        let name = if path.starts_with('/') { path } else { path.rsplit(['/', '\\']).next().unwrap_or(path) };
        return Some(name.to_owned()).filter(|name| !name.is_empty() && !matches!(name.as_str(), "." | ".."));
    };
    let host = without_port(host).to_ascii_lowercase();
    let path = path.trim_start_matches('/');
    (!host.is_empty() && !path.is_empty()).then(|| format!("{host}/{path}"))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_+".contains(&byte))
}

/// The part after `user:password@`. A password may hold slashes and at signs that should have been escaped.
fn without_user(rest: &str) -> &str {
    let authority = rest.split('/').next().unwrap_or_default();
    let end = match rest.rfind('@') {
        Some(at) if rest[..at].contains(':') && !authority_has_port(authority) => Some(at),
        _ => authority.rfind('@'),
    };
    end.map_or(rest, |at| &rest[at + 1..])
}

/// Whether the colon of an authority without a user is that of a port.
fn authority_has_port(authority: &str) -> bool {
    !authority.contains('@')
        && authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

/// `[host:port]:path` or `[::1]:path`.
fn bracketed(url: &str) -> Option<(Option<&str>, &str)> {
    let (host, path) = url.strip_prefix('[')?.split_once("]:")?;
    Some((Some(without_user(host)), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_one_repository_have_one_name() {
        for url in [
            "https://github.com/team/app.git",
            "https://github.com/team/app",
            "https://github.com/team/app/",
            "https://GitHub.com/team/app.git/",
            "https://me@github.com/team/app.git",
            "https://me:ghp_secret@github.com/team/app.git",
            "https://x-access-token:a/b@c@github.com/team/app.git",
            "https://github.com:443/team/app.git?token=secret#x",
            "http://github.com/team/app",
            "git://github.com/team/app.git",
            "ssh://git@github.com/team/app.git",
            "ssh://git@github.com:22/team/app.git",
            "git+ssh://git@github.com/team/app.git",
            "git@github.com:team/app.git",
            "git@github.com:/team/app.git",
            "github.com:team/app",
            "me:secret@github.com:team/app",
            "[git@github.com:22]:team/app.git",
            " https://github.com/team/app.git\n",
            "helper::https://me:secret@github.com/team/app",
        ] {
            assert_eq!(name_of(url).as_deref(), Some("github.com/team/app"), "{url}");
        }
    }

    #[test]
    fn other_urls_are_named_without_credentials() {
        for (url, name) in [
            ("/srv/git/app.git", Some("/srv/git/app")),
            ("file:///srv/git/app.git", Some("/srv/git/app")),
            ("../app.git", Some("app")),
            ("./a:b/app", Some("app")),
            ("C:\\work\\app", Some("app")),
            ("https://host:8443/team/app@v2", Some("host/team/app@v2")),
            ("ssh://[::1]:22/team/app", Some("[::1]/team/app")),
            ("https://host/", None),
            ("https://", None),
            ("ext::sh -c 'secret'", None),
            ("..", None),
            ("", None),
        ] {
            assert_eq!(name_of(url).as_deref(), name, "{url}");
        }
    }
}

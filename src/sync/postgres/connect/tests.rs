use super::*;

#[test]
fn display_contains_no_secret() {
    let options = PostgresOptions::parse("postgres://me:s3cr3t@db:5435/sessions?sslmode=require", None).unwrap();
    assert_eq!(options.display(), "me@db:5435/sessions");
    assert!(!format!("{options:?}").contains("s3cr3t"));
    let socket = PostgresOptions::parse("postgres://me@%2Frun%2Fpg:5435/sessions", None).unwrap();
    assert!(socket.display().starts_with("me@/run/pg"), "{}", socket.display());
}

#[test]
fn errors_contain_no_password() {
    for (url, why) in [
        ("host=db password=s3cr3t", "must begin with postgres://"),
        ("mysql://me:s3cr3t@db/x", "must begin with postgres://"),
        ("postgres://me:s3cr3t/x@db/x", "percent-encoded"),
        ("postgres://me:s3cr3t@db:port/x", "invalid port number"),
        ("postgres://me:s3cr3t@db/x?sslmode=ful", "ful"),
        ("postgres://me@db/x?pasword=s3cr3t", "\"pasword\" is unknown"),
        ("postgres://me:s3cr3t@db/x?sslrootcert=/no/such.pem", "/no/such.pem cannot be read"),
        ("postgres://me:x#s3cr3t@db/x", "percent-encoded"),
    ] {
        let error = PostgresOptions::parse(url, None).unwrap_err().to_string();
        assert!(error.contains(why), "{url}: {error}");
        assert!(!error.contains("s3cr3t") && !error.contains('\n'), "{url}: {error}");
    }
}

#[test]
fn accepts_the_urls_of_psql() {
    let url = "postgresql://me@db/x?connect_timeout=3&channel_binding=prefer&application_name=mine&sslsni=1\
               &client_encoding=utf8&passfile=/no/such&tcp_user_timeout=5000&keepalives=1&gssencmode=disable";
    let options = PostgresOptions::parse(url, None).unwrap();
    let server = options.server(&options.urls[0]).unwrap();
    assert_eq!(server.login.get_application_name(), Some("mine"));
    assert_eq!(server.login.get_options(), None);
}

#[test]
fn hosts_are_names_addresses_and_sockets() {
    let host = |url: &str| ServerSettings::of(&Url::parse(url).unwrap()).unwrap();
    let network = |name: &str| ServerAddress::Network { name: name.into(), address: None };
    for (url, name, is_here) in [
        ("postgres://u@[::1]:5432/d", "::1", true),
        ("postgres://u@%5B%3A%3A1%5D:5432/d", "::1", true),
        ("postgres://u@%3A%3A1/d", "::1", true),
        ("postgres://u@[2001:db8::7]/d", "2001:db8::7", false),
        ("postgres://u@127.8.9.1/d", "127.8.9.1", true),
        ("postgres://u@[::ffff:127.0.0.1]/d", "::ffff:127.0.0.1", true),
        ("postgres://u@localhost/d", "localhost", true),
        ("postgres://u@odin3/d", "odin3", false),
        ("postgres://u@localhost.example/d", "localhost.example", false),
    ] {
        let server = host(url);
        let shown =
            server.host == network(name) || server.host == network(&name.replace("::ffff:127.0.0.1", "::ffff:7f00:1"));
        assert!(shown && server.is_here() == is_here, "{url}: {:?}", server.host);
    }
    for url in ["postgres://u@%2Frun%2Fpg/d", "postgres://u@localhost/d?host=/run/pg"] {
        assert!(matches!(host(url).host, ServerAddress::Socket(_)), "{url}");
    }
    let both = host("postgres://u@db.example/d?hostaddr=127.0.0.1");
    assert!(
        both.is_here()
            && both.host == ServerAddress::Network { name: "db.example".into(), address: "127.0.0.1".parse().ok() }
    );
    assert!(ServerSettings::of(&Url::parse("postgres://u@db/d?hostaddr=db").unwrap()).is_err());
}

#[test]
fn password_of_the_url_takes_precedence_and_files_are_read_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "apart\n").unwrap();
    let of = |options: &PostgresOptions| Ok::<_, CentralError>(options.server(&options.urls[0])?.login.to_url_lossy());
    let password = |url: &str| of(&PostgresOptions::parse(url, Some(&file)).unwrap()).unwrap();
    assert_eq!(password("postgres://me:inside@db/x").password(), Some("inside"));
    assert_eq!(password("postgres://me@db/x?password=inside").password(), Some("inside"));
    assert_eq!(password("postgres://me@db/x").password(), Some("apart"));
    let options = PostgresOptions::parse("postgres://me@db/x", Some(&file)).unwrap();
    std::fs::write(&file, "changed").unwrap();
    assert_eq!(of(&options).unwrap().password(), Some("changed"));
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(of(&options), Err(CentralError::Refused(why)) if why.contains("password_file")));
}

#[test]
fn accepts_several_hosts_as_libpq_does() {
    for (url, shown) in [
        ("postgres://me@a:1,b:2/x", "me@a:1,b:2/x"),
        ("postgres://me@a,b:2,c/x", "me@a:5432,b:2,c:5432/x"),
        ("postgres://me@[::1]:1,b/x", "me@[::1]:1,b:5432/x"),
        ("postgres://me@a,b/x?port=7", "me@a:7,b:7/x"),
        ("postgres://me@/x?host=/a,/b", "me@/a:5432,/b:5432/x"),
        ("postgres://me@localhost/x?host=/a,b&port=1,2", "me@/a:1,b:2/x"),
    ] {
        let options = PostgresOptions::parse(url, None).map(|options| options.display().to_owned());
        assert_eq!(options.as_deref(), Ok(shown), "{url}");
    }
    for url in ["postgres://me@a,b/x?port=1,2,3", "postgres://me:s3cr3t@a:1,b:no/x"] {
        let error = PostgresOptions::parse(url, None).unwrap_err().to_string();
        assert!(!error.contains("s3cr3t"), "{error}");
    }
}

#[test]
fn refusal_by_all_hosts_needs_an_operator() {
    let (away, refused) = (CentralError::Retry("away".into()), CentralError::Refused("no".into()));
    assert_eq!(all_of(vec![away.clone()]), away);
    assert!(matches!(all_of(vec![refused.clone(), refused.clone()]), CentralError::Refused(_)));
    let CentralError::Retry(both) = all_of(vec![refused, away]) else { panic!("one may come back") };
    assert!(both.contains("none of the 2 hosts") && both.contains("no; away"), "{both}");
}

//! Classifies errors of Postgres: what each SQLSTATE means for sync.

use std::io;

use sqlx::postgres::PgDatabaseError;

use crate::domain::text::is_unsafe;
use crate::sync::central::{CentralError, Rejection};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ErrorClass {
    Retry,
    Locked,
    Refused,
    SchemaMissing,
    Reject,
}

/// Classifies an error of the central at `place`, which becomes the source.
pub(super) fn classify(error: sqlx::Error, place: &str) -> CentralError {
    described(&error, place).caused_by(error)
}

fn described(error: &sqlx::Error, place: &str) -> CentralError {
    match error {
        sqlx::Error::Database(error) => match error.try_downcast_ref::<PgDatabaseError>() {
            Some(error) => of_server(error, place),
            None => CentralError::retry(one_line(&format!("central {place}: {error}"))),
        },
        sqlx::Error::Io(error) => of_transport(error, place),
        sqlx::Error::Tls(why) => CentralError::refused(one_line(&format!(
            "no TLS with central {place}: {why}; check sslmode and sslrootcert"
        ))),
        sqlx::Error::Configuration(why) => {
            CentralError::refused(one_line(&format!("central {place}: {why}; check central.url")))
        }
        other => CentralError::retry(one_line(&format!("central {place}: {other}"))),
    }
}

fn of_server(error: &PgDatabaseError, place: &str) -> CentralError {
    let code = error.code();
    let message = error.message();
    let kind = if is_about_this_row(code, error.routine()) { ErrorClass::Reject } else { kind(code) };
    match kind {
        ErrorClass::Retry => {
            CentralError::retry(one_line(&format!("central {place}: {message} ({code}); {}", advice(code))))
        }
        ErrorClass::Locked => CentralError::locked(one_line(&format!(
            "central {place}: {message} ({code}): another transaction holds a lock; {BY_ITSELF}"
        ))),
        ErrorClass::Refused => {
            CentralError::refused(one_line(&format!("central {place}: {message} ({code}); {}", remedy(code))))
        }
        ErrorClass::SchemaMissing => CentralError::schema_missing(one_line(&format!(
            "central {place}: {message} ({code}); run `sessiond migrate`"
        ))),
        ErrorClass::Reject => {
            // The detail would repeat the row itself.
            let at = error.constraint().or(error.column()).map(|name| format!(", at {name}")).unwrap_or_default();
            CentralError::Reject(Rejection {
                code: code.to_owned(),
                message: one_line(&format!("{message} ({code}{at})")),
            })
        }
    }
}

/// Row level security denies one row, a missing right denies all of them; both have the same code. A trigger that raises
/// this code means its row too.
fn is_about_this_row(code: &str, routine: Option<&str>) -> bool {
    code == "42501" && matches!(routine, Some("ExecWithCheckOptions" | "exec_stmt_raise"))
}

fn kind(code: &str) -> ErrorClass {
    match (code.get(..2).unwrap_or_default(), code) {
        (_, "42P01" | "42703" | "42883" | "3F000") => ErrorClass::SchemaMissing,
        ("28", _) | (_, "3D000" | "42501") => ErrorClass::Refused,
        // A lock timeout, or a deadlock.
        (_, "55P03" | "40P01") => ErrorClass::Locked,
        // Connection; transaction state, including read-only; statements lost in a pooler; conflict with other
        // transactions; resources; object in use; stopped by an operator; internal errors of the server.
        ("08" | "25" | "26" | "40" | "53" | "55" | "57" | "58" | "F0" | "XX", _) | (_, "0A000" | "42P05") => {
            ErrorClass::Retry
        }
        _ => ErrorClass::Reject,
    }
}

/// What an operator can do about a transient error.
fn advice(code: &str) -> &'static str {
    match code {
        "25006" => "after a failover, name the other host in central.url too",
        "53100" => "make room on central's disk",
        "53300" => "raise central's max_connections or this user's limit, or end others",
        _ => BY_ITSELF,
    }
}

/// The advice if nothing has to be done.
pub(super) const BY_ITSELF: &str = "it is tried again by itself";

/// A message for a verb, which is not tried again: without that advice.
pub(super) fn without_retry(message: &str) -> String {
    let Some((what, after)) = message.split_once(BY_ITSELF) else { return message.to_owned() };
    let what = what.trim_end_matches("; ");
    if after.is_empty() { what.to_owned() } else { format!("{what}; check host and port") }
}

fn remedy(code: &str) -> &'static str {
    match code {
        "3D000" => "create the database, or correct central.url",
        "42501" => "grant this user the rights, or use another one",
        "28P01" => "check the user and the password",
        _ => "check the user, the password and the server's pg_hba.conf",
    }
}

fn of_transport(error: &io::Error, place: &str) -> CentralError {
    let text = error.to_string();
    // rustls reports a certificate that it does not accept as an I/O error.
    if error.kind() == io::ErrorKind::InvalidData {
        let advice = if text.contains("UnsupportedCertVersion") {
            "its certificate is of X.509 version 1, which cannot be verified: make one of version 3, or encrypt without \
             verifying, with sslmode=require and no sslrootcert"
        } else if text.contains("certificate") {
            "check sslrootcert and the server's name"
        } else {
            "check sslmode and sslrootcert in central.url"
        };
        return CentralError::refused(one_line(&format!("no TLS with central {place}: {text}; {advice}")));
    }
    let broke = matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    );
    CentralError::retry(one_line(&if broke {
        format!("central {place}: the connection broke ({text}); {BY_ITSELF}")
    } else {
        format!("central {place} cannot be reached: {text}; {BY_ITSELF}, if host and port are right")
    }))
}

/// Makes a message one line without control characters.
pub(super) fn one_line(text: &str) -> String {
    text.split(is_unsafe).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A lock on this host's row of `sessiond_hosts` stops every push, so it is not handled as a lock on one row.
pub(super) fn own_row_locked(error: CentralError) -> CentralError {
    match error {
        CentralError::Locked(why) => CentralError::retry(format!(
            "another transaction in central holds a lock on this host's row in sessiond_hosts, without which nothing \
             can be pushed: end that transaction (pg_locks, pg_stat_activity); {why}"
        )),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_classified() {
        for code in [
            "08006", "08P01", "57P01", "57P02", "57P03", "57P05", "57014", "40001", "53300", "53100", "25006", "25P03",
            "58030", "XX000", "26000",
        ] {
            assert_eq!(kind(code), ErrorClass::Retry, "{code}");
        }
        for code in ["55P03", "40P01"] {
            assert_eq!(kind(code), ErrorClass::Locked, "{code}");
        }
        for code in ["28P01", "28000", "3D000", "42501"] {
            assert_eq!(kind(code), ErrorClass::Refused, "{code}");
        }
        for code in ["42P01", "42703", "42883", "3F000"] {
            assert_eq!(kind(code), ErrorClass::SchemaMissing, "{code}");
        }
        for code in ["22001", "22021", "22P02", "23514", "23505", "54000", "P0001", "42804", "", "?", "é"] {
            assert_eq!(kind(code), ErrorClass::Reject, "{code}");
        }
    }

    #[test]
    fn bad_certificate_needs_an_operator_and_a_broken_connection_does_not() {
        let broken = io::Error::new(io::ErrorKind::ConnectionReset, "reset");
        assert!(matches!(of_transport(&broken, "db"), CentralError::Retry(_)));
        let unknown = io::Error::new(io::ErrorKind::InvalidData, "invalid peer certificate: UnknownIssuer");
        assert!(matches!(of_transport(&unknown, "db"), CentralError::Refused(_)));
        let lookup = io::Error::other("failed to lookup address information");
        assert!(of_transport(&lookup, "me@db:5432/x").to_string().contains("db:5432"));
    }

    #[test]
    fn messages_are_one_line() {
        assert_eq!(one_line("a\r\n  b\u{1b}[1m\n"), "a b [1m");
    }
}

//! The checks of central by `sessiond doctor`: from the name of its host to the rights on each table. Changes nothing.

use std::net::SocketAddr;
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgConnection;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::capabilities::Engine;
use super::connect::{Connected, PostgresOptions};
use super::errors::classify;
use super::{capabilities, migrate, sql, zone};
use crate::clock::Clock;
use crate::domain::Finding;
use crate::domain::text::one_line;

/// Smaller differences of clocks are not reported.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);

/// The rights that the daemon needs on each table; a table that this central does not have is skipped.
const RIGHTS: &str = "\
    SELECT t, r FROM (VALUES ('supervisor_sessions', 'SELECT'), ('supervisor_sessions', 'INSERT'), \
        ('supervisor_sessions', 'UPDATE'), ('sessiond_hosts', 'SELECT'), ('sessiond_hosts', 'INSERT'), \
        ('sessiond_hosts', 'UPDATE'), ('sessiond_sweep', 'SELECT'), ('sessiond_sweep', 'UPDATE'), \
        ('sessiond_tombstones', 'SELECT'), ('sessiond_history', 'INSERT'), ('sessiond_limits', 'SELECT'), \
        ('sessiond_limits', 'INSERT'), ('sessiond_limits', 'UPDATE'), \
        ('sessiond_leases', 'SELECT'), ('sessiond_leases', 'INSERT'), ('sessiond_leases', 'UPDATE'), \
        ('sessiond_leases', 'DELETE')) AS needed (t, r) \
    WHERE to_regclass(t) IS NOT NULL AND NOT has_table_privilege(to_regclass(t), r)";

const NAIVE_COLUMNS: &str = "\
    SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('supervisor_sessions') \
        AND attname IN ('last_heartbeat', 'created_at', 'closed_at') AND atttypid = 'timestamp'::regtype";

/// The triggers that stamp heartbeats without checking whether they are replayed.
const OLD_TRIGGERS: &str = "\
    SELECT count(*) FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid \
    WHERE t.tgrelid = to_regclass('supervisor_sessions') AND NOT t.tgisinternal \
        AND p.prosrc LIKE '%last_heartbeat%' AND p.prosrc NOT LIKE '%sessiond.replay%'";

const TLS: &str = "SELECT coalesce((SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl), '')";
const PORT: &str = "SELECT current_setting('port')::int";
const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// Checks central, as far as each check allows the next.
pub async fn checkup(options: &PostgresOptions, clock: &Clock) -> Vec<Finding> {
    let mut findings = Vec::new();
    for server in options.servers().into_iter().flatten() {
        reach(server, options.connect_timeout, &mut findings).await;
    }
    let Connected { mut connection, place, login } = match options.connect().await {
        Ok(connected) => connected,
        Err(error) => {
            findings.push(Finding::wrong("central.login", error.to_string(), "nothing is lost meanwhile"));
            return findings;
        }
    };
    findings.push(Finding::good("central.login", format!("{place} accepts the login")));
    if login.is_exposed {
        findings.push(in_clear());
    }
    let checked =
        timeout(options.statement_timeout, check_server(&mut connection, options, clock, &mut findings)).await;
    match checked {
        Ok(Ok(())) => {}
        Ok(Err(error)) => findings.push(Finding::wrong(
            "central.schema",
            classify(error, &place).to_string(),
            "nothing is lost meanwhile",
        )),
        Err(_) => findings.push(Finding::wrong(
            "central.login",
            format!("{place} does not answer within central.statement_timeout"),
            "check what the server is busy with: locks, disk, load",
        )),
    }
    findings
}

async fn reach((host, port): (String, u16), limit: Duration, findings: &mut Vec<Finding>) {
    let addresses: Vec<SocketAddr> = match timeout(limit, lookup_host((host.as_str(), port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        failed => {
            let why = failed
                .map_or_else(|_| "no answer in time".into(), |r| r.err().map_or(String::new(), |e| e.to_string()));
            let advice = "check the name in central.url, and this machine's name service";
            findings.push(Finding::wrong("central.name", format!("{host} has no address: {why}"), advice));
            return;
        }
    };
    let shown = addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ");
    findings.push(Finding::good("central.name", format!("{host} is {shown}")));
    for address in addresses {
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                findings.push(Finding::good("central.tcp", format!("{address} takes connections")));
                return;
            }
            failed => {
                let why = failed
                    .map_or_else(|_| "no answer in time".into(), |r| r.err().map_or(String::new(), |e| e.to_string()));
                let advice = "check that the server runs, its listen_addresses, and firewalls on the way";
                findings.push(Finding::wrong(
                    "central.tcp",
                    format!("{address} cannot be connected to: {why}"),
                    advice,
                ));
            }
        }
    }
}

async fn check_server(
    connection: &mut PgConnection,
    options: &PostgresOptions,
    clock: &Clock,
    findings: &mut Vec<Finding>,
) -> Result<(), sqlx::Error> {
    if !findings.iter().any(|finding| finding.check == "central.tls") {
        findings.push(tls(&one::<String>(connection, TLS).await?));
    }
    findings.push(pooler(one(connection, PORT).await?, &options.ports()));
    let engine = sqlx::query(sql::ENGINE).persistent(false).fetch_one(&mut *connection).await?;
    findings.push(engine_finding(&Engine::read(&engine)?));
    findings.extend(key_finding(connection).await?);
    let before = clock().micros();
    let there: i64 = one(connection, NOW).await?;
    findings.push(skew(there - before.midpoint(clock().micros())));
    findings.push(schema(connection).await?);
    findings.push(times(one(connection, NAIVE_COLUMNS).await?, zone::find(connection).await?));
    findings.push(trigger(one(connection, OLD_TRIGGERS).await?));
    findings.push(triggers(connection).await?);
    findings.push(long_transactions(connection, options.long_transaction).await?);
    findings.push(encoding(&one::<String>(connection, migrate::ENCODING).await?));
    let of_history = history(connection, findings).await?;
    findings.push(rights(connection, of_history).await?);
    Ok(())
}

async fn one<T>(connection: &mut PgConnection, sql: &'static str) -> Result<T, sqlx::Error>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    sqlx::query(sql).persistent(false).fetch_one(connection).await?.try_get(0)
}

fn in_clear() -> Finding {
    let found = "everything travels in clear to another machine, to be read and changed by all on the way";
    Finding::wrong(
        "central.tls",
        found,
        "give the server a certificate (ssl = on), and leave sslmode out of central.url",
    )
}

fn tls(version: &str) -> Finding {
    match version {
        "" => Finding::good("central.tls", "no TLS, and none is needed on this machine"),
        version => Finding::good("central.tls", format!("{version} with the server")),
    }
}

/// A server that listens on another port than the one connected to is behind a pooler or a forwarded port.
fn pooler(port: i32, ours: &[u16]) -> Finding {
    if ours.iter().any(|ours| i32::from(*ours) == port) {
        return Finding::good("central.pooler", "none detected: the server listens on the port connected to");
    }
    let found = format!("a pooler or a forwarded port is in between: the server itself listens on {port}");
    Finding::good("central.pooler", format!("{found}; sessiond keeps nothing in a connection, so that does no harm"))
}

fn engine_finding(engine: &Engine) -> Finding {
    match engine.unsupported() {
        None => Finding::good("central.engine", engine.name.clone()),
        Some(why) => Finding::wrong("central.engine", why, "nothing is lost meanwhile"),
    }
}

/// A table of sessions whose rows pushes cannot find.
async fn key_finding(connection: &mut PgConnection) -> Result<Option<Finding>, sqlx::Error> {
    let rows = sqlx::query(sql::SESSION_KEY).persistent(false).fetch_all(connection).await?;
    let why = rows.first().map(capabilities::unusable_key).transpose()?.flatten();
    Ok(why.map(|why| Finding::wrong("central.key", why, "nothing is lost meanwhile")))
}

fn skew(micros: i64) -> Finding {
    let by = Duration::from_micros(micros.unsigned_abs());
    let shown = humantime::format_duration(Duration::from_millis(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)));
    let direction = if micros < 0 { "behind" } else { "ahead of" };
    if by <= CLOCK_TOLERANCE {
        return Finding::good("central.clock", format!("central's clock is {shown} {direction} this one"));
    }
    let advice = "set both machines' clocks by NTP: a wrong one makes live sessions stale";
    Finding::wrong("central.clock", format!("central's clock is {shown} {direction} this one"), advice)
}

async fn schema(connection: &mut PgConnection) -> Result<Finding, sqlx::Error> {
    let pending = migrate::pending(connection).await?;
    let names = pending.iter().map(|step| step.name.as_str()).collect::<Vec<_>>().join(", ");
    Ok(if pending.is_empty() {
        Finding::good("central.schema", "up to date")
    } else {
        let advice = "run `sessiond migrate`; with --dry-run it shows what it would do";
        Finding::wrong("central.schema", format!("not applied yet: {names}"), advice)
    })
}

fn times(naive: i64, zone: Option<String>) -> Finding {
    let zone = zone.unwrap_or_else(|| "unknown to this user".into());
    if naive > 0 {
        let found = format!("{naive} columns hold times without a zone; the server's own is {zone}");
        return Finding::wrong("central.timezone", found, "run `sessiond migrate`, which gives them one");
    }
    Finding::good("central.timezone", format!("times have a zone; the server's own ({zone}) makes no difference"))
}

fn trigger(old: i64) -> Finding {
    if old == 0 {
        return Finding::good("central.trigger", "no trigger stamps what is replayed");
    }
    let found = "a trigger stamps \"now\" on heartbeats that are replayed: the old function was restored";
    Finding::odd(
        "central.trigger",
        found,
        "run migrations/central/1770000000000_sessiond.sql again; until then each push corrects it",
    )
}

/// The triggers by which hosts find changes.
async fn triggers(connection: &mut PgConnection) -> Result<Finding, sqlx::Error> {
    let mut missing = Vec::new();
    for row in sqlx::query(sql::MISSING_TRIGGERS).persistent(false).fetch_all(connection).await? {
        missing.push(capabilities::missing(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
    }
    Ok(if missing.is_empty() {
        Finding::good("central.changes", "all triggers that mark changes are there")
    } else {
        let found = format!("what others change is found late, for lack of {}", missing.join(", "));
        let advice = "run `sessiond migrate`, and ALTER TABLE ... ENABLE TRIGGER for what is disabled";
        Finding::odd("central.changes", found, advice)
    })
}

/// The oldest transaction with a number of its own, which every pull waits for. Without the right pg_read_all_stats a role sees
/// only the process of another role's transaction, by its number, and not its age.
const OLDEST_TRANSACTION: &str = "\
    SELECT coalesce((SELECT format('process %s of %s, %s, %s', pid, coalesce(usename, 'another role'), \
            coalesce(nullif(application_name, ''), 'no application name'), coalesce(state, 'unknown state')) \
        || '|' || coalesce(extract(epoch FROM now() - xact_start)::bigint, -1) \
    FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
        AND (backend_xid IS NOT NULL OR xact_start < now() - $1 * interval '1 second' AND backend_xmin IS NOT NULL) \
    ORDER BY xact_start NULLS LAST LIMIT 1), '')";

async fn long_transactions(connection: &mut PgConnection, long: Duration) -> Result<Finding, sqlx::Error> {
    const CHECK: &str = "central.transactions";
    let oldest = sqlx::query(OLDEST_TRANSACTION).bind(long.as_secs_f64()).persistent(false);
    let oldest: String = oldest.fetch_one(connection).await?.try_get(0)?;
    let known = oldest.rsplit_once('|').and_then(|(who, age)| Some((who, Duration::from_secs(age.parse().ok()?))));
    let Some((who, age)) = known.filter(|(_, age)| *age >= long) else {
        let limit = humantime::format_duration(long);
        return Ok(Finding::good(
            CHECK,
            format!("none has been open for longer than {limit}, as far as this role sees"),
        ));
    };
    let found = format!("one has been open for {}: {}", humantime::format_duration(age), one_line(who));
    Ok(Finding::odd(
        CHECK,
        found,
        "end it: what changes meanwhile cannot be vacuumed, and every host searches it again",
    ))
}

fn encoding(name: &str) -> Finding {
    if name == "UTF8" {
        return Finding::good("central.encoding", "UTF8");
    }
    let found = format!("the database is encoded in {name}: what contains other characters is parked");
    Finding::odd(
        "central.encoding",
        found,
        "move it to a database with ENCODING 'UTF8' (pg_dump, createdb, pg_restore)",
    )
}

/// The rights that records need, as the daemon itself checks them, and tables whose times have no zone.
async fn history(connection: &mut PgConnection, findings: &mut Vec<Finding>) -> Result<Vec<String>, sqlx::Error> {
    let mut missing = Vec::new();
    for row in sqlx::query(sql::HISTORY_TABLES).persistent(false).fetch_all(connection).await? {
        let (table, is_there): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
        missing.extend(row.try_get::<Vec<String>, _>(2)?);
        if is_there && row.try_get(3)? {
            let found = format!("{table} holds times without a zone: records for it wait on every host");
            findings.push(Finding::wrong("central.timezone", found, "run `sessiond migrate`, which gives them one"));
        }
    }
    Ok(missing)
}

async fn rights(connection: &mut PgConnection, of_history: Vec<String>) -> Result<Finding, sqlx::Error> {
    let rows = sqlx::query(RIGHTS).persistent(false).fetch_all(connection).await?;
    let missing =
        rows.iter().map(|row| Ok(format!("{} on {}", row.try_get::<String, _>(1)?, row.try_get::<String, _>(0)?)));
    let mut missing = missing.collect::<Result<Vec<_>, sqlx::Error>>()?;
    missing.extend(of_history);
    Ok(if missing.is_empty() {
        Finding::good("central.rights", "all that the daemon needs")
    } else {
        let advice = "as the tables' owner, run migrations/central/rights/daemon.sql for this role";
        Finding::wrong("central.rights", format!("this role lacks {}", missing.join(", ")), advice)
    })
}

//! Servers that crash, hang or fail over, also behind a pooler.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{await_state, central, check_ledger, hurried, nudged};
use testkit::daemon::Host;
use testkit::load::Load;
use testkit::pgbouncer::Pooler;
use testkit::postgres::{Server, Stop};
use testkit::{campaign, random::Random};

/// Waits for a random time, so that the fault comes at any point of the work.
fn a_moment(random: &mut Random) {
    let until = Instant::now() + Duration::from_micros(random.below(80_000));
    while Instant::now() < until {
        thread::yield_now();
    }
}

#[test]
fn kills_of_postgres_and_daemon_under_load_lose_nothing() {
    let kills = campaign(15, 300);
    let mut random = Random::from_clock("kill -9 of both");
    let mut server = central(&[]);
    let mut host = hurried("odin3", &server.url("central")).started();
    let load = Load::paced("kills");
    for _ in 0..kills {
        let daemon_too = random.below(3) > 0;
        let postgres_too = random.below(3) > 0 || !daemon_too;
        load.during(&host, || {
            a_moment(&mut random);
            if postgres_too {
                server.stop(Stop::Kill);
            }
            a_moment(&mut random);
            if daemon_too {
                host.signal(Signal::KILL);
            }
        });
        if daemon_too {
            host.kill();
            host.start();
        }
        if postgres_too {
            server.resume();
        }
        await_state(&host, "connected");
    }
    host.await_synced();
    load.check_central(&server);
    check_ledger(&host, &server);
    println!("{kills} times killed, {} changes acknowledged", load.acknowledged());
}

#[test]
fn hanging_postgres_under_load_loses_nothing() {
    let mut random = Random::from_clock("SIGSTOP");
    let server = central(&[]);
    let host = hurried("odin3", &server.url("central")).started();
    let load = Load::paced("hangs");
    load.during(&host, || {
        for _ in 0..campaign(5, 100) {
            await_state(&host, "connected");
            a_moment(&mut random);
            server.freeze();
            let status = await_state(&host, "unreachable");
            let said = status["central"]["last_error"].as_str().unwrap().to_owned();
            assert!(said.contains("within"), "{said}");
            server.thaw();
        }
    });
    host.await_synced();
    load.check_central(&server);
    check_ledger(&host, &server);
}

/// A host that knows both servers, the primary first.
fn with_both(primary: &Server, replica: &Server) -> Host {
    let sockets = format!("{},{}", primary.folder().display(), replica.folder().display());
    hurried("odin3", &format!("postgres://postgres@localhost/central?host={sockets}")).started()
}

#[test]
fn failover_with_the_old_primary_gone() {
    let mut primary = central(&[]);
    let replica = primary.replica();
    let host = with_both(&primary, &replica);
    let load = Load::paced("failover");
    load.during(&host, || {
        await_state(&host, "connected");
        // The last of what the primary took never gets to the replica, as it is with asynchronous replication.
        replica.psql("postgres", "ALTER SYSTEM SET primary_conninfo = ''");
        replica.psql("postgres", "SELECT pg_reload_conf()");
        let acknowledged = load.acknowledged();
        nudged(&host, "more gets to the primary", || {
            let status = host.status();
            (load.acknowledged() > acknowledged + 50 && status["central"]["state"] == "connected").then_some(())
        });
        primary.stop(Stop::Kill);
        nudged(&host, "it says that neither will do", || {
            let said = host.status()["central"]["last_error"].as_str()?.to_owned();
            (said.contains("none of the 2 hosts") && said.contains("read-only")).then_some(())
        });
        replica.promote();
        await_state(&host, "connected");
    });
    host.await_synced();
    load.check_central(&replica);
    check_ledger(&host, &replica);
}

#[test]
fn failover_with_the_old_primary_read_only() {
    let primary = central(&[]);
    let replica = primary.replica();
    let host = with_both(&primary, &replica);
    let load = Load::paced("readonly");
    load.during(&host, || {
        await_state(&host, "connected");
        primary.psql("postgres", "ALTER SYSTEM SET default_transaction_read_only = on");
        primary.psql("postgres", "SELECT pg_reload_conf()");
        let status = await_state(&host, "unreachable");
        assert!(status["central"]["last_error"].as_str().unwrap().contains("read-only"), "{status}");
        replica.promote();
        await_state(&host, "connected");
    });
    host.await_synced();
    load.check_central(&replica);
    check_ledger(&host, &replica);
}

#[test]
fn restarting_transaction_pooler_loses_nothing() {
    let server = Server::start(&[]);
    server.create("central");
    for connections in [1, 2] {
        server.psql("central", "DROP SCHEMA public CASCADE; CREATE SCHEMA public");
        let mut pooler = Pooler::start(&server, "central", connections);
        let url = pooler.url("central");
        Host::new("migrator").ok(&["migrate", "--central-url", &url]);
        let hosts = ["odin3", "laptop"].map(|machine| hurried(machine, &url).started());
        let loads = ["pool-a", "pool-b"].map(Load::paced);
        loads[0].during(&hosts[0], || {
            loads[1].during(&hosts[1], || {
                for signal in [Signal::INT, Signal::KILL, Signal::KILL] {
                    hosts.iter().for_each(|host| drop(await_state(host, "connected")));
                    pooler.stop(signal);
                    hosts.iter().for_each(|host| drop(await_state(host, "unreachable")));
                    pooler.resume();
                }
            });
        });
        for (host, load) in hosts.iter().zip(&loads) {
            host.await_synced();
            load.check_central(&server);
            host.ok(&["machines"]);
        }
        let turned = server.psql("central", "SELECT count(*) FROM sessiond_hosts WHERE batch > 0");
        assert_eq!(turned, "2");
        // Settings of a transaction end with it: the next client of the pool does not get them.
        let left = server.psql("central", "SELECT coalesce(current_setting('sessiond.replay', true), '')");
        assert_eq!(left, "");
    }
}

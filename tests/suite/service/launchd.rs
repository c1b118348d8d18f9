//! The daemon under launchd: its log file and its exit codes.

use std::fs;

use testkit::daemon::Host;

#[test]
fn permanent_failure_exits_with_success_under_launchd() {
    let host = Host::new("odin3");
    host.configure("[machine]\nnmae = \"laptop\"\n");
    let (code, said) = host.refuses();
    assert_eq!(code, 78, "{said}");
    let host = host.argument("--launchd");
    let (code, under_launchd) = host.refuses();
    assert_eq!((code, under_launchd), (0, said), "the reason is printed all the same, and launchd does not restart");
}

#[test]
fn transient_failure_exits_with_failure_under_launchd() {
    let served = Host::new("odin3").started();
    let second = Host::new("odin3").argument("--launchd").keeping_state_in(served.state_dir());
    let (code, said) = second.refuses();
    assert_eq!(code, 75, "{said}");
    assert!(said.contains("another"), "{said}");
}

#[test]
fn log_is_written_to_the_configured_file() {
    let host = Host::new("odin3");
    let file = host.dir().join("own.log");
    let mut host = host.argument("--log-file").argument(file.to_str().unwrap()).started();
    host.stop();
    let log = fs::read_to_string(&file).unwrap();
    assert!(log.contains("ready") && log.contains("stopped"), "{log}");
    assert_eq!(host.log(), "", "nothing is printed beside it");

    let nowhere = host.dir().join("no/such/own.log");
    let host = Host::new("odin3").argument("--log-file").argument(nowhere.to_str().unwrap());
    let (code, said) = host.refuses();
    assert!(code == 78 && said.contains("the log file cannot be opened"), "{code} {said}");
}

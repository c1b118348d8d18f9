//! Tests that a machine cannot run. libtest knows no skipped test, so each is recorded in a file, which `tests/run` prints at
//! its end; where everything must run, as in CI, a skipped test fails.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::File;
use std::io::Write;

/// Names the file in which skipped tests are recorded, one a line; `tests/run` sets it.
const FILE: &str = "SESSIOND_TEST_SKIPS";
/// With the value `all`, a test that would be skipped fails instead.
const REQUIRE: &str = "SESSIOND_TEST_REQUIRE";

/// Reports that `test` is skipped because this machine lacks something. The test returns after that.
///
/// # Panics
/// If `SESSIOND_TEST_REQUIRE` is `all`.
pub fn skip(test: &str, needs: impl Display) {
    let line = format!("{test} needs {needs}").replace('\n', " ");
    println!("skipped: {line}");
    if let Some(file) = std::env::var_os(FILE) {
        record(file, &line);
    }
    assert!(std::env::var_os(REQUIRE).is_none_or(|what| what != "all"), "skipped although {REQUIRE}=all: {line}");
}

/// One write, so that lines of concurrent tests do not mix.
fn record(file: OsString, line: &str) {
    let mut file = File::options().append(true).create(true).open(&file).unwrap_or_else(|e| panic!("{file:?}: {e}"));
    file.write_all(format!("{line}\n").as_bytes()).expect("the skipped test is recorded");
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Command, Output};

    use super::*;

    #[test]
    #[ignore = "run by the tests below, in a process of its own"]
    fn impossible() {
        skip("impossible", "a machine\nwithout limits");
    }

    fn run_impossible(environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "skip::tests::impossible", "--ignored"]).env_remove(FILE).env_remove(REQUIRE);
        command.envs(environment.iter().copied()).output().unwrap()
    }

    #[test]
    fn skipped_test_is_recorded_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("skips");
        for _ in 0..2 {
            let output = run_impossible(&[(FILE, file.to_str().unwrap())]);
            assert!(output.status.success(), "{output:?}");
        }
        assert_eq!(fs::read_to_string(file).unwrap(), "impossible needs a machine without limits\n".repeat(2));
        assert!(run_impossible(&[]).status.success(), "without a file it is only printed");
    }

    #[test]
    fn skipped_test_fails_where_all_are_required() {
        let output = run_impossible(&[(REQUIRE, "all")]);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success(), "{printed}");
        assert!(
            printed.contains("skipped although SESSIOND_TEST_REQUIRE=all: impossible needs a machine"),
            "{printed}"
        );
        assert!(run_impossible(&[(REQUIRE, "")]).status.success());
    }
}

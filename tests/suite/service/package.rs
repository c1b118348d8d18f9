//! The Debian package that tests/run builds in two versions.

use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::skip::skip;

/// An older and a newer package. Where there are none, `test` is skipped.
pub fn packages(test: &str) -> Option<[PathBuf; 2]> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("lab");
    let packages = ["old.deb", "new.deb"].map(|name| folder.join(name));
    if packages.iter().all(|package| package.exists()) {
        return Some(packages);
    }
    skip(test, format_args!("the packages in {}, which tests/run builds", folder.display()));
    None
}

#[test]
fn lintian_finds_nothing_wrong_with_the_package() {
    const TEST: &str = "lintian_finds_nothing_wrong_with_the_package";
    let Some([package, _]) = packages(TEST) else { return };
    let Ok(output) = Command::new("lintian").args(["--allow-root", "--fail-on", "error,warning"]).arg(package).output()
    else {
        return skip(TEST, "lintian");
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    println!("{said}");
}

#[test]
fn package_contains_the_expected_files() {
    const TEST: &str = "package_contains_the_expected_files";
    let Some([package, _]) = packages(TEST) else { return };
    let Ok(output) = Command::new("dpkg-deb").arg("--contents").arg(package).output() else {
        return skip(TEST, "dpkg-deb");
    };
    let contents = String::from_utf8_lossy(&output.stdout);
    for file in [
        "./usr/bin/sessiond",
        "./lib/systemd/system/sessiond.service",
        "./lib/systemd/system/sessiond.socket",
        "./usr/lib/systemd/user/sessiond.service",
        "./usr/lib/systemd/user/sessiond.socket",
        "./usr/lib/systemd/user/sessiond-discover.service",
        "./usr/lib/systemd/user/sessiond-notify-agent.service",
        "./usr/lib/sysusers.d/sessiond.conf",
        "./usr/lib/tmpfiles.d/sessiond.conf",
        "./usr/share/doc/sessiond/examples/config.example.toml",
        "./usr/share/man/man1/sessiond.1.gz",
        "./usr/share/man/man1/sessiond-install.1.gz",
        "./usr/share/bash-completion/completions/sessiond",
        "./usr/share/zsh/vendor-completions/_sessiond",
        "./usr/share/fish/vendor_completions.d/sessiond.fish",
        "./usr/share/sessiond/rights/daemon.sql",
    ] {
        assert!(contents.lines().any(|line| line.ends_with(file)), "{file}: {contents}");
    }
}

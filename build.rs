//! Link options that make the program load fast on Linux, since each verb is a process of its own.

use std::env::var;
use std::process::Command;

/// The first glibc that supports packed relative relocations; older ones ignore them, and the program crashes.
const PACKED_RELOCATIONS_GLIBC: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| var(name).is_ok_and(|found| found == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        // A statically linked unwinder is one library less to load; every gcc has it.
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
        let runs_here = var("HOST").is_ok() && var("HOST") == var("TARGET");
        if runs_here && glibc().is_some_and(|version| version >= PACKED_RELOCATIONS_GLIBC) {
            // Relocations take about a thirtieth of the space.
            println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        }
    }
}

/// The version of this machine's C library. `getconf` prints it as `glibc 2.36`.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let (major, minor) = str::from_utf8(&output.stdout).ok()?.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

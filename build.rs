//! How the program is linked on Linux, so that it is loaded fast: a verb is a process of its own each time.

use std::env::var;
use std::process::Command;

/// The first glibc that can load a program whose relocations are packed. Older ones do not see that they are.
const PACKED_SINCE: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| var(name).is_ok_and(|found| found == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        // The unwinder within the program is one library less to find and to bind; every gcc brings it.
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
        let runs_here = var("HOST").is_ok() && var("HOST") == var("TARGET");
        if runs_here && glibc().is_some_and(|version| version >= PACKED_SINCE) {
            // The places to adjust to the address it is loaded at, in a thirtieth of the room.
            println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        }
    }
}

/// The version of the C library here, as `getconf` has it: `glibc 2.36`.
fn glibc() -> Option<(u32, u32)> {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let (major, minor) = str::from_utf8(&said.stdout).ok()?.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

//! How the program is linked on Linux, so that it is loaded fast: a verb is a process of its own each time.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| var(name).is_ok_and(|found| found == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        // The unwinder within the program is one library less to find and to bind; every gcc brings it.
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
        // The places to adjust to the address it is loaded at, in a thirtieth of the room.
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

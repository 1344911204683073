//! Linker options of the agent as it is shipped: static, and ending on a panic.
//!
//! The agent aborts on a panic, so it needs no unwind tables, and they are a tenth of its size. rustc has no stable option that
//! leaves out the tables of the precompiled standard library and glibc, so the linker discards them. A panic still prints its
//! message and its place; a backtrace (`RUST_BACKTRACE=1`) is empty.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=no-unwind.ld");
    let is = |variable: &str, value: &str| env::var(variable).is_ok_and(|v| v.split(',').any(|word| word == value));
    // On this target rustc links with its own copy of lld, which knows these options; other linkers may not.
    // (Cargo does not tell build scripts that a profile has panic = "abort"; only profile.agent has this opt-level.)
    let shipped =
        is("OPT_LEVEL", "z") && is("CARGO_CFG_TARGET_FEATURE", "crt-static") && is("CARGO_CFG_TARGET_ARCH", "x86_64");
    if shipped {
        let here = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        for option in ["--no-eh-frame-hdr", "--icf=all", &format!("-T,{here}/no-unwind.ld")] {
            println!("cargo::rustc-link-arg-bins=-Wl,{option}");
        }
    }
}

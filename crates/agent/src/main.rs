//! The rackstrap agent. All code is in the library, where tests and fuzzers can use it.

fn main() {
    rackstrap_agent::main();
}

//! The rackstrap agent; everything is in the library beside this, where tests and fuzzers reach it.

fn main() {
    rackstrap_agent::main();
}

//! rackstrap
fn main() {}

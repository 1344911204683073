//! One integration binary: `cli`, `backup` and `oci` run the real command; `netns` has real clients against the engines and the daemon, in
//! namespaces and on loopback; `terminal` has people's terminals; `vm` has virtual machines; `fuzz_corpus` runs what the fuzzers keep.

mod backup;
mod cli;
mod fuzz_corpus;
mod hostlists;
mod netns;
mod oci;
mod terminal;
mod vm;

//! One integration binary: `cli`, `images`, `oci`, `overlays`, `hostlists` and `backup` run the real command; `netns` has real clients against the engines and the daemon, in
//! namespaces and on loopback; `terminal` has people's terminals; `vm` has virtual machines; `fuzz_corpus` runs what the fuzzers keep.

mod backup;
mod cli;
mod fuzz_corpus;
mod hostlists;
mod images;
mod netns;
mod oci;
mod overlays;
mod terminal;
mod vm;

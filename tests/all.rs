//! One integration binary: `answers`, `cases`, `cli`, `images`, `oci`, `overlays`, `hostlists`, `recipes`, `remedies` and `backup` run the real command; `netns` has real clients against the engines and the daemon, in
//! namespaces and on loopback; `terminal` and `widths` have people's terminals; `vm` has virtual machines; `fuzz_corpus` runs what the fuzzers keep.

mod answers;
mod backup;
mod cases;
mod cli;
mod daemon;
mod fuzz_corpus;
mod hostlists;
mod images;
mod netns;
mod oci;
mod overlays;
mod recipes;
mod remedies;
mod terminal;
mod vm;
mod widths;

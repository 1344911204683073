//! All integration tests in one binary. `answers`, `backup`, `cases`, `cli`, `exports`, `hostlists`, `images`, `kernels`, `oci`, `overlays`, `recipes`,
//! `remedies` and `settings` run the real command. `netns` runs real clients against the engines and the daemon, in network namespaces
//! and on loopback. `terminal` and `widths` test output on terminals. `vm` runs virtual machines. `fuzz_corpus` replays the
//! fuzzers' corpora.

mod answers;
mod backup;
mod cases;
mod cli;
mod daemon;
mod exports;
mod fuzz_corpus;
mod hostlists;
mod images;
mod kernels;
mod netns;
mod oci;
mod overlays;
mod recipes;
mod remedies;
mod settings;
mod terminal;
mod vm;
mod widths;

//! One integration binary.

mod fuzz_corpus;
mod netns;

//! A byte stream, as a hostile node sends it to the NFS server.
#![no_main]

#[path = "../../tests/netns/nfs/corpus.rs"]
mod corpus;

libfuzzer_sys::fuzz_target!(|stream: &[u8]| {
    corpus::run(stream);
});

//! The fuzz targets' bodies over their corpora: what fuzzing once found is tried again at every test run.

#[path = "../fuzz/bodies/tftp.rs"]
mod tftp;

/// Runs `body` over every file of `fuzz/corpus/TARGET`, which must hold some.
fn replay(target: &str, body: fn(&[u8])) {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", directory.display());
    for file in files {
        // The name is what a failing run shows last.
        println!("{}", file.display());
        body(&std::fs::read(&file).unwrap());
    }
}

#[test]
fn tftp_corpus() {
    replay("tftp", tftp::run);
}

//! libnfs' own utilities, of the Debian package libnfs-utils.

use super::{Daemon, export, test_config, tree};
use std::{collections::BTreeSet, process::Output};
use tokio::process::Command;

async fn run(program: &str, args: &[&str]) -> Output {
    let run = Command::new(program).args(args).output();
    tokio::time::timeout(std::time::Duration::from_secs(60), run)
        .await
        .unwrap_or_else(|_| panic!("{program} {args:?} hangs"))
        .unwrap_or_else(|error| panic!("cannot run {program} ({error}); install the package libnfs-utils"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libnfs_lists_and_reads_the_tree() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    tree::make_large_dir(&dir.path().join("srv/large"), 3000);
    let daemon = Daemon::start(export(dir.path()), test_config());
    let port = daemon.addr.port();
    let url = |path: &str| format!("nfs://127.0.0.1/tree{path}?nfsport={port}&mountport={port}&version=3");

    let listed = run("nfs-ls", &["-R", &url("")]).await;
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let names: BTreeSet<Vec<u8>> = listed
        .stdout
        .split(|b| *b == b'\n')
        .filter_map(|line| line.rsplit(|b| *b == b' ').next())
        .map(<[u8]>::to_vec)
        .collect();
    for entry in std::fs::read_dir(dir.path().join("srv/large")).unwrap() {
        let name = entry.unwrap().file_name().into_encoded_bytes();
        let path = [&b"srv/large/"[..], &name].concat();
        assert!(
            names.iter().any(|listed| listed.ends_with(&path)),
            "{} is not listed",
            path.escape_ascii()
        );
    }

    // nfs-cat mounts the path up to the last slash.
    std::fs::rename(dir.path().join("srv/data"), dir.path().join("data")).unwrap();
    let data = run("nfs-cat", &[&url("/data")]).await;
    assert!(data.status.success(), "{}", String::from_utf8_lossy(&data.stderr));
    assert!(data.stdout == std::fs::read(dir.path().join("data")).unwrap());
    daemon.stop().await;
}

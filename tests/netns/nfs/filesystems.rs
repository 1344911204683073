//! Trees on other file systems than the one that temporary directories are on.

use super::{
    Daemon,
    reads::{assert_same, remote, try_lookup, walk_to},
    test_config, tree,
};
use rackstrap_nfs::{ExportId, ExportRoot, Source};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::{
    ffi::CString,
    fs,
    path::{Path, PathBuf},
};

/// A mount that is unmounted when this is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(kind: &str, at: &Path, options: &str) -> Self {
        let options = CString::new(options).unwrap();
        mount(kind, at, kind, MountFlags::empty(), Some(&*options))
            .unwrap_or_else(|error| panic!("cannot mount {kind}: {error}"));
        Mounted(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

async fn compare(root: &Path, source: Source) {
    let export = ExportRoot::open(root, ExportId([3; 8]), "tree@3".into()).unwrap();
    assert_eq!(export.root_id().source(), source);
    let local = tree::local(root);
    let daemon = Daemon::start(export, test_config());
    let mut client = daemon.mount().await;
    assert_same(&local, &remote(&mut client, 8192).await);
    drop(client);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_on_tmpfs() {
    let dir = tempfile::tempdir().unwrap();
    let _mounted = Mounted::new("tmpfs", dir.path(), "size=64m");
    tree::make(dir.path());
    compare(dir.path(), Source::Kernel).await;
}

/// overlayfs has file handles only with `nfs_export=on`, so inodes are found by their number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_on_overlayfs() {
    let dir = tempfile::tempdir().unwrap();
    let sub = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let (lower, upper, work, merged) = (sub("lower"), sub("upper"), sub("work"), sub("merged"));
    tree::make(&lower);
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let _mounted = Mounted::new("overlay", &merged, &options);
    fs::write(merged.join("etc/upper"), "in the upper layer").unwrap();
    fs::remove_file(merged.join("etc/secret")).unwrap();
    compare(&merged, Source::Index).await;
}

/// A mount inside an exported tree is not part of the export.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounts_inside_the_tree_are_not_exported() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    fs::write(dir.path().join("run/below"), "").unwrap();
    let daemon = Daemon::start(super::export(dir.path()), test_config());
    let _mounted = Mounted::new("tmpfs", &dir.path().join("run"), "size=1m");
    fs::write(dir.path().join("run/above"), "").unwrap();
    let mut client = daemon.mount().await;
    let run = walk_to(&mut client, "run").await;
    assert!(try_lookup(&mut client, &run, b"above").await.is_err());
    assert!(try_lookup(&mut client, &run, b"below").await.is_ok());
    drop(client);
    daemon.stop().await;
}

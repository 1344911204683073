//! What a copy costs.

use super::*;
use crate::image::{Quiet, import, import::tests::Bench, tree::nasty};
use std::process::Command;

/// A file system in a file, unmounted when dropped.
struct Loop(PathBuf);

impl Loop {
    fn xfs(at: PathBuf, file: &Path) -> Self {
        // The least that mkfs.xfs takes; most of it is a hole.
        std::fs::File::create(file).unwrap().set_len(400 << 20).unwrap();
        std::fs::create_dir_all(&at).unwrap();
        let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
        run(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(file));
        run(Command::new("mount").args(["-o", "loop"]).arg(file).arg(&at));
        Loop(at)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn where_blocks_can_be_shared_a_copy_costs_next_to_nothing() {
    const BIG: u64 = 120 << 20;
    let bench = Bench::new();
    let _mounted = Loop::xfs(bench.path("state"), &bench.path("disk"));
    let noise: Vec<u8> = (0..BIG / 4)
        .flat_map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    std::fs::write(bench.path("tree/usr/big"), noise).unwrap();
    let request = bench.request();
    import(&request, &mut Quiet).unwrap();
    let free = || {
        let stat = rfs::statvfs(bench.path("state")).unwrap();
        stat.f_bfree * stat.f_frsize
    };
    let before = free();
    let clone = |name: &str| {
        let request = CloneRequest {
            images_dir: request.images_dir.clone(),
            parent: "test@1".parse().unwrap(),
            name: name.into(),
            by: String::new(),
            now: Timestamp(1),
        };
        clone_version(&request, &mut Quiet).unwrap()
    };
    // Three of them would not fit.
    let copies = ["a", "b", "c"].map(clone);
    assert!(before - free() < BIG / 4, "{} of {before}", free());
    nasty::assert_same(&request.images_dir.join("test/1/root"), &copies[2].root());
    std::fs::write(copies[0].root().join("usr/big"), "changed").unwrap();
    assert_eq!(std::fs::metadata(copies[1].root().join("usr/big")).unwrap().len(), BIG);
    let (catalog, _) = crate::image::load_catalog(&request.images_dir);
    let version = catalog.newest("test").unwrap();
    assert_eq!(crate::image::verify(version, &mut Quiet).unwrap(), Vec::<String>::new());
}

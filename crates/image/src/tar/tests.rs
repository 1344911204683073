//! Archives of GNU tar, and archives made byte by byte. These tests need root, as imports do.

use super::{pax::record, *};
use crate::{
    error::{ImportError, Result},
    progress::Quiet,
    tree::{Copied, Remarks, SpaceGuard, nasty},
};
use proptest::prelude::*;
use rustix::fs::{Mode, OFlags};
use std::{
    fs::{self, File},
    os::fd::AsFd,
    path::Path,
    process::Command,
};

fn extract_to(archive: &Path, to: &Path) -> Result<(Copied, Vec<String>)> {
    fs::create_dir_all(to).unwrap();
    let root = rustix::fs::open(to, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut space = SpaceGuard::new(root.as_fd(), to, None)?;
    let mut remarks = Remarks::default();
    let copied = extract(
        File::open(archive).unwrap(),
        root.as_fd(),
        &mut space,
        &mut remarks,
        &mut Quiet,
    )?;
    Ok((copied, remarks.into_lines()))
}

fn tar(args: &[&str], from: &Path, archive: &Path) {
    let status = Command::new("tar")
        .args(args)
        .arg("-cf")
        .arg(archive)
        .arg("-C")
        .arg(from)
        .arg(".")
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn an_archive_of_gnu_tar_is_extracted_completely() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    nasty::make(&from, false);
    for (i, args) in [
        &["--format=pax", "--sparse", "--xattrs", "--xattrs-include=*"][..],
        &[
            "--format=pax",
            "--sparse",
            "--sparse-version=0.1",
            "--xattrs",
            "--xattrs-include=*",
        ],
        &[
            "--format=pax",
            "--sparse",
            "--sparse-version=0.0",
            "--xattrs",
            "--xattrs-include=*",
            "--zstd",
        ],
    ]
    .iter()
    .enumerate()
    {
        let (archive, to) = (dir.path().join("a.tar"), dir.path().join(format!("to{i}")));
        tar(args, &from, &archive);
        let (copied, remarks) = extract_to(&archive, &to).unwrap_or_else(|e| panic!("{args:?}: {e}"));
        assert_eq!(remarks, Vec::<String>::new());
        nasty::assert_same(&from, &to);
        assert_eq!(copied.files + 1, nasty::look(&to).len() as u64);
        let _ = crate::tree::remove_tree(
            rustix::fs::open(dir.path(), OFlags::RDONLY, Mode::empty())
                .unwrap()
                .as_fd(),
            &std::ffi::CString::new(format!("to{i}")).unwrap(),
        );
    }
    let _ = crate::tree::remove_tree(
        rustix::fs::open(dir.path(), OFlags::RDONLY, Mode::empty())
            .unwrap()
            .as_fd(),
        c"from",
    );
}

#[test]
fn older_formats_and_compressions_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir_all(from.join("usr/share")).unwrap();
    fs::write(from.join("usr/share/text"), "text".repeat(10_000)).unwrap();
    fs::hard_link(from.join("usr/share/text"), from.join("usr/again")).unwrap();
    fs::create_dir_all(from.join("d".repeat(90)).join("e".repeat(60))).unwrap();
    let sparse = File::create(from.join("sparse")).unwrap();
    for i in 0..100u64 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, &[1; 4096], i * 65536).unwrap();
    }
    for args in [
        &["--format=gnu", "--sparse", "--mtime=@1000000000"][..],
        &["--format=ustar", "-z", "--mtime=@1000000000"],
        &["--format=gnu", "-J", "--mtime=@1000000000"],
        &["--format=pax", "--zstd", "--mtime=@1000000000"],
    ] {
        let (archive, to) = (dir.path().join("a.tar"), dir.path().join("to"));
        tar(args, &from, &archive);
        extract_to(&archive, &to).unwrap_or_else(|e| panic!("{args:?}: {e}"));
        let look = |p: &Path| fs::read(p.join("usr/again")).unwrap();
        assert_eq!(look(&from), look(&to));
        assert_eq!(
            fs::read(from.join("sparse")).unwrap(),
            fs::read(to.join("sparse")).unwrap()
        );
        assert!(to.join("d".repeat(90)).join("e".repeat(60)).is_dir());
        let (one, other) = (
            fs::metadata(to.join("usr/again")).unwrap(),
            fs::metadata(to.join("usr/share/text")).unwrap(),
        );
        use std::os::unix::fs::MetadataExt;
        assert_eq!((one.ino(), one.mtime()), (other.ino(), 1_000_000_000));
        // A truncated archive is never accepted.
        let whole = fs::read(&archive).unwrap();
        fs::write(&archive, &whole[..whole.len() * 3 / 5]).unwrap();
        let error = extract_to(&archive, &dir.path().join("cut")).unwrap_err().to_string();
        assert!(error.contains("archive"), "{args:?}: {error}");
        fs::remove_dir_all(&to).unwrap();
        fs::remove_dir_all(dir.path().join("cut")).unwrap();
    }
}

/// An archive with one entry for each tuple (type, name, link, data).
fn archive_of(entries: &[(u8, &str, &str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, name, link, data) in entries {
        let mut header = ::tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(::tar::EntryType::new(*kind));
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(data.len() as u64);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn extract_bytes(bytes: &[u8]) -> (tempfile::TempDir, Result<(Copied, Vec<String>)>) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.tar"), bytes).unwrap();
    fs::write(dir.path().join("outside"), "untouched").unwrap();
    let result = extract_to(&dir.path().join("a.tar"), &dir.path().join("to"));
    assert_eq!(fs::read_to_string(dir.path().join("outside")).unwrap(), "untouched");
    (dir, result)
}

#[test]
fn nothing_is_written_outside_of_the_tree() {
    for (entries, says) in [
        (&[(b'0', "/etc/passwd", "", &b"x"[..])][..], "absolute"),
        (&[(b'0', "../outside", "", b"x")], "out of the tree"),
        (&[(b'0', "a/../../outside", "", b"x")], "out of the tree"),
        (&[(b'1', "a", "../outside", b"")], "out of the tree"),
        (&[(b'1', "a", "/etc/passwd", b"")], "absolute"),
        (&[(b'1', "a", "never", b"")], "not in the archive before it"),
        (
            &[(b'2', "l", "..", b""), (b'0', "l/outside", "", b"x")],
            "l is a link that leads out of the tree",
        ),
        (
            &[(b'2', "l", "/", b""), (b'0', "l/etc/x", "", b"x")],
            "leads out of the tree",
        ),
        (
            &[(b'2', "l", "/etc", b""), (b'1', "a", "l/passwd", b"")],
            "cannot be reached",
        ),
        (&[(b'0', "f", "", b"x"), (b'0', "f/g", "", b"x")], "not a directory"),
        (
            &[(b'5', "d", "", b""), (b'0', "d/f", "", b"x"), (b'0', "d", "", b"")],
            "not empty",
        ),
        (&[(b'2', "l", "", b"")], "link to nothing"),
        (&[(b'Q', "l", "", b"")], "unknown type 'Q'"),
        (&[(b'M', "l", "", b"")], "several volumes"),
        (&[(b'x', "p", "", b"99 path=a\n")], "extended header is damaged"),
        (
            &[(b'x', "p", "", b"19 uid=99999999999\n"), (b'0', "f", "", b"")],
            "out of range",
        ),
    ] {
        let (_dir, result) = extract_bytes(&archive_of(entries));
        let error = result.expect_err(says);
        assert!(matches!(error, ImportError::Archive { .. }), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn links_inside_are_followed_and_later_entries_win() {
    let (dir, result) = extract_bytes(&archive_of(&[
        (b'5', "usr/lib/", "", b""),
        (b'2', "lib", "usr/lib", b""),
        (b'0', "lib/a", "", b"first"),
        (b'0', "usr/lib/a", "", b"second"),
        (b'1', "b", "lib/a", b""),
        (b'2', "c", "b", b""),
        (b'0', "c", "", b"a file now"),
        (b'3', "null", "", b""),
        (b'5', "./", "", b""),
    ]));
    let (copied, _) = result.unwrap();
    let read = |p: &str| fs::read_to_string(dir.path().join("to").join(p)).unwrap();
    assert_eq!(
        (read("lib/a"), read("b"), read("c")),
        ("second".into(), "second".into(), "a file now".into())
    );
    assert_eq!(copied.files, nasty::look(&dir.path().join("to")).len() as u64 - 1);
}

#[test]
fn file_flags_of_freebsd_are_reported_and_left_out() {
    let flags = record(b"SCHILY.fflags", b"schg");
    let bytes = archive_of(&[
        (b'x', "p", "", &flags),
        (b'0', "init", "", b"x"),
        (b'0', "sh", "", b"y"),
    ]);
    let (dir, extracted) = extract_bytes(&bytes);
    let (copied, remarks) = extracted.unwrap();
    assert_eq!(copied.files, 2);
    assert!(
        remarks[0].contains("BSD file flags (such as schg) of 1 files were left out"),
        "{remarks:?}"
    );
    drop(dir);
}

#[test]
fn files_that_are_not_archives_are_refused() {
    for (bytes, says) in [
        (&b""[..], "cut off"),
        (b"hello", "cut off"),
        (&[b'x'; 2048], "not a tar header"),
        (b"BZh91AY&SY", "bzip2"),
        (&[0x1f, 0x8b, 8, 0, 0, 0], "cut off"),
    ] {
        let (_dir, result) = extract_bytes(bytes);
        let error = result.unwrap_err().to_string();
        assert!(error.contains(says), "{says}: {error}");
    }
}

#[test]
fn a_flipped_bit_in_a_compressed_archive_is_found() {
    let data: Vec<u8> = (0..200_000u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let archive = archive_of(&[(b'0', "file", "", &data)]);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gz, &archive).unwrap();
    let mut packed = gz.finish().unwrap();
    assert!(extract_bytes(&packed).1.is_ok());
    let middle = packed.len() / 2;
    packed[middle] ^= 1;
    assert!(extract_bytes(&packed).1.is_err());
}

#[test]
fn a_large_extended_header_is_refused_before_it_is_read() {
    let mut archive = archive_of(&[(b'x', "p", "", b"")]);
    let mut header = ::tar::Header::from_byte_slice(&archive[..512]).clone();
    header.set_size(1 << 40);
    header.set_cksum();
    archive[..512].copy_from_slice(header.as_bytes());
    let (_dir, result) = extract_bytes(&archive);
    assert!(result.unwrap_err().to_string().contains("are not read"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damaged_archives_do_no_harm(
        changes in proptest::collection::vec((0usize..8192, any::<u8>()), 1..6), fix: bool, cut in 0usize..8192,
    ) {
        let mut archive = archive_of(&[
            (b'5', "d", "", b""),
            (b'x', "p", "", &[record(b"GNU.sparse.map", b"0,3,9,1"), record(b"GNU.sparse.size", b"10")].concat()),
            (b'0', "d/sparse", "", b"abcd"),
            (b'L', "l", "", b"long name\0"),
            (b'2', "l", "../..", b""),
            (b'1', "h", "d/sparse", b""),
            (b'0', "e", "", b"more"),
        ]);
        for (at, value) in changes {
            if let Some(byte) = archive.get_mut(at) {
                *byte = value;
            }
        }
        if fix {
            // Get past the checksum.
            for at in (0..archive.len() - 1024).step_by(512) {
                if &archive[at + 257..at + 262] == b"ustar" {
                    let mut header = ::tar::Header::from_byte_slice(&archive[at..at + 512]).clone();
                    header.set_cksum();
                    archive[at..at + 512].copy_from_slice(header.as_bytes());
                }
            }
        }
        archive.truncate(archive.len().max(cut));
        let (_dir, result) = extract_bytes(&archive);
        if let Err(e) = result {
            prop_assert!(!e.to_string().is_empty());
        }
    }
}

//! The database of rpm in a tree: its place, its content, and the place that the tree's own rpm uses.

use super::{
    PackageKind,
    error::{Doing, Result},
    packages::{LONGEST, Package, Packages, sorted},
    root::RootDir,
    tree::open_dir_as_root,
};
use rustix::{
    fs::{AtFlags, Mode, mkdirat, renameat, symlinkat, unlinkat},
    io::Errno,
};
use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsFd,
    path::Path,
    process::{Command, Stdio},
};

/// Places of the database (`%_dbpath` of the distributions): Fedora since 36 with its derivatives, and all others.
const PLACES: [&str; 2] = ["usr/lib/sysimage/rpm", "var/lib/rpm"];
/// Files with the packages, in the formats of rpm: SQLite, ndb, Berkeley DB.
const MAIN: [&str; 3] = ["rpmdb.sqlite", "Packages.db", "Packages"];
/// Further files of the database.
const BESIDE: [&str; 2] = ["rpmdb.sqlite-wal", "Index.db"];
/// Largest database that is read, in bytes: 3,000 packages have 200 MB.
const LARGEST: u64 = 2 << 30;

/// The directory of the tree's database; none if it has no database.
fn place(tree: &RootDir) -> Option<&'static str> {
    let holds = |dir: &&str| MAIN.iter().any(|file| tree.exists(Path::new(dir).join(file)));
    PLACES.into_iter().find(holds)
}

/// True if the tree has a database.
pub(super) fn is_there(tree: &RootDir) -> bool {
    place(tree).is_some()
}

/// The installed packages, read by this machine's rpm: the tree's own rpm would be a program of the tree that runs as root outside of
/// any namespace. rpm reads a copy of the database, because it expects it in another place on every distribution (below root's home on
/// Debian), and writes to the database's directory even for a query.
pub(super) fn installed(tree: &RootDir) -> Packages {
    let copy = match copy(tree) {
        Ok(copy) => copy,
        Err(e) => return Packages::unknown(format!("its rpm database cannot be copied for reading: {e}")),
    };
    let child = Command::new("rpm")
        .arg("--dbpath")
        .arg(copy.path())
        .args([
            "-qa",
            "--qf",
            "%{NAME}\t%{ARCH}\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\n",
        ])
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Packages::unknown(
                "the tree has an rpm database, and this machine has no rpm to read it; install rpm",
            );
        }
        Err(e) => return Packages::unknown(format!("rpm cannot be started: {e}")),
    };
    let mut text = Vec::new();
    let read = child.stdout.take().map(|out| out.take(LONGEST).read_to_end(&mut text));
    // Closing the pipe ends an rpm that has more output.
    let status = child.wait();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<Package> = text.lines().filter_map(line).collect();
    // For a database in an unknown format, rpm prints nothing and succeeds.
    if !matches!(read, Some(Ok(_))) || !status.as_ref().is_ok_and(|status| status.success()) || lines.is_empty() {
        return Packages::unknown(
            "this machine's rpm finds no package in the tree's rpm database; the format may be unknown to it",
        );
    }
    sorted(PackageKind::Rpm, lines)
}

fn line(line: &str) -> Option<Package> {
    let mut fields = line.split('\t').map(str::to_owned);
    let (name, arch, version) = (fields.next()?, fields.next()?, fields.next()?);
    // Keys for signatures are stored as packages of that name.
    (name != "gpg-pubkey").then_some(Package { name, arch, version })
}

fn copy(tree: &RootDir) -> io::Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    let place = place(tree).ok_or(io::ErrorKind::NotFound)?;
    for name in MAIN.iter().chain(&BESIDE) {
        let file = match tree.open_file(Path::new(place).join(name)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let copied = io::copy(&mut file.take(LARGEST + 1), &mut File::create(dir.path().join(name))?)?;
        if copied > LARGEST {
            return Err(io::Error::other(format!("larger than {LARGEST} bytes")));
        }
    }
    Ok(dir)
}

/// Moves the database, which this machine's rpm wrote to `/var/lib/rpm`, to the place that the tree's own rpm uses, and leaves a
/// link.
pub(super) fn move_database(tree: &RootDir) -> Result<()> {
    let macros = tree.read("usr/lib/rpm/macros", 1 << 20).unwrap_or_default();
    let [modern, classic] = PLACES;
    if dbpath(&String::from_utf8_lossy(&macros)).as_deref() != Some(modern) || place(tree) != Some(classic) {
        return Ok(());
    }
    let doing = || format!("moving rpm's database from /{classic} to /{modern}");
    let from = open_dir_as_root(tree.as_fd(), b"var/lib").doing(doing)?;
    let usr = open_dir_as_root(tree.as_fd(), b"usr/lib").doing(doing)?;
    match mkdirat(&usr, "sysimage", Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e).doing(doing),
    }
    let to = open_dir_as_root(tree.as_fd(), b"usr/lib/sysimage").doing(doing)?;
    // An empty directory can be removed.
    match unlinkat(&to, "rpm", AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(e).doing(doing),
    }
    renameat(&from, "rpm", &to, "rpm").doing(doing)?;
    symlinkat("../../usr/lib/sysimage/rpm", &from, "rpm").doing(doing)
}

/// `%_dbpath` in rpm's macros, relative to the tree's root.
fn dbpath(macros: &str) -> Option<String> {
    let mut lines = macros.lines().filter_map(|line| line.strip_prefix("%_dbpath"));
    let value = lines.next()?.trim();
    let value = value.replace("%{_usr}", "/usr").replace("%{_var}", "/var");
    Some(value.trim_start_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn the_place_of_the_trees_own_rpm_is_found() {
        let text = "#comment\n%_usr\t\t/usr\n%_dbpath\t\t%{_usr}/lib/sysimage/rpm\n%_dbpath x\n";
        assert_eq!(dbpath(text).as_deref(), Some(PLACES[0]));
        assert_eq!(dbpath("%_dbpath %{_var}/lib/rpm").as_deref(), Some(PLACES[1]));
        assert_eq!(dbpath("%_var /var"), None);
    }

    #[test]
    fn the_database_is_moved_to_the_place_of_the_trees_rpm() {
        let dir = tempfile::tempdir().unwrap();
        let p = |name: &str| dir.path().join(name);
        fs::create_dir_all(p("var/lib/rpm")).unwrap();
        fs::create_dir_all(p("usr/lib/rpm")).unwrap();
        fs::write(p("var/lib/rpm/rpmdb.sqlite"), "db").unwrap();
        let tree = RootDir::open(dir.path()).unwrap();
        move_database(&tree).unwrap();
        assert_eq!(place(&tree), Some(PLACES[1]));
        fs::write(p("usr/lib/rpm/macros"), "%_dbpath %{_usr}/lib/sysimage/rpm\n").unwrap();
        fs::create_dir_all(p("usr/lib/sysimage/rpm")).unwrap();
        for _ in 0..2 {
            move_database(&tree).unwrap();
            assert_eq!(place(&tree), Some(PLACES[0]));
            assert_eq!(fs::read(p("var/lib/rpm/rpmdb.sqlite")).unwrap(), b"db");
            assert!(p("var/lib/rpm").is_symlink());
        }
    }

    #[test]
    fn a_database_without_packages_counts_as_unknown() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("var/lib/rpm")).unwrap();
        let tree = RootDir::open(dir.path()).unwrap();
        assert!(!is_there(&tree));
        fs::write(dir.path().join("var/lib/rpm/Packages"), "none of rpm's").unwrap();
        assert!(is_there(&tree));
        let packages = installed(&tree);
        assert_eq!(packages.kind, PackageKind::Unknown);
        assert!(packages.why.contains("rpm database"), "{}", packages.why);
        // A device in its place is not read.
        fs::remove_file(dir.path().join("var/lib/rpm/Packages")).unwrap();
        symlink("/dev/zero", dir.path().join("var/lib/rpm/Packages")).unwrap();
        assert_eq!(installed(&tree).kind, PackageKind::Unknown);
    }
}

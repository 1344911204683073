//! `rackstrap backup` and `rackstrap restore`, with the real daemon in a namespace.

use crate::daemon::rackstrap;
use rackstrap::parts::control::{Client, api};
use rackstrap_model::inventory::{Change, NewNode};
use rackstrap_store::{Table, backup::Reader};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
};
use testbed::{Binaries, Daemon, Namespace, Result, Site};

/// Nodes that are added in one change: in a backup there are all of them or none.
const TOGETHER: u32 = 3;

pub(crate) struct Lab {
    pub(crate) daemon: Daemon,
    pub(crate) namespace: Namespace,
    dir: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new() -> Result<Lab> {
        let binaries = Binaries::get()?;
        let dir = tempfile::tempdir()?;
        let daemon = Daemon::new(&binaries, dir.path().join("daemon"), &Site::demo(), &[])?;
        Ok(Lab {
            daemon,
            namespace: Namespace::with_bridge()?,
            dir,
        })
    }

    pub(crate) fn client(&self) -> Result<Client> {
        Ok(Client::new(&self.daemon.state_dir().join("rackstrap.sock"))?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the command in a directory of its own.
    fn run(&self, words: &[&str]) -> Output {
        rackstrap(&self.daemon.config())
            .args(words)
            .current_dir(self.dir.path())
            .output()
            .unwrap()
    }

    fn says(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// One line on stderr, and nothing on stdout.
    fn complains(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn store(&self) -> PathBuf {
        self.daemon.state_dir().join("store.redb")
    }
}

/// Adds `count` nodes from number `first` in one change.
pub(crate) fn add(client: &Client, first: u32, count: u32) -> Result<()> {
    let new = |n: u32| {
        let name = name(n);
        let hwaddrs = vec![format!("52:54:00:00:{:02x}:{:02x}", n >> 8, n & 0xff).parse().unwrap()];
        Change::Add(NewNode {
            name,
            hwaddrs,
            ..NewNode::default()
        })
    };
    let changes = api::Changes {
        changes: (first..first + count).map(new).collect(),
        ..api::Changes::default()
    };
    let answer: api::ChangesAnswer = client.post(api::paths::CHANGES, &changes)?;
    assert_eq!(answer.changed.len(), count as usize);
    Ok(())
}

pub(crate) fn name(n: u32) -> String {
    format!("r{:02}n{:02}", 1 + n / 99, 1 + n % 99)
}

/// The keys of each table, as text.
fn content(backup: &Path) -> BTreeMap<&'static str, Vec<String>> {
    let bytes = fs::read(backup).unwrap();
    let mut reader = Reader::new(&bytes[..]).unwrap();
    let mut keys: BTreeMap<_, Vec<String>> = BTreeMap::new();
    while let Some(row) = reader.next_row().unwrap() {
        let key = String::from_utf8_lossy(row.key).into_owned();
        keys.entry(row.table.name()).or_default().push(key);
    }
    keys
}

#[test]
fn backups_are_made_while_nodes_are_added_and_bring_all_of_them_back() -> Result {
    let lab = Lab::new()?;
    lab.daemon.start(&lab.namespace)?;
    let (confirmed, done) = (AtomicU32::new(0), AtomicBool::new(false));
    let client = lab.client()?;
    add(&client, 0, TOGETHER)?;
    confirmed.store(TOGETHER, Ordering::SeqCst);
    thread::scope(|scope| {
        scope.spawn(|| {
            // The last numbers belong to racks that the pattern still has.
            let mut first = TOGETHER;
            while !done.load(Ordering::SeqCst) && first < 1_000 {
                add(&client, first, TOGETHER).unwrap();
                first += TOGETHER;
                confirmed.store(first, Ordering::SeqCst);
            }
        });
        for round in 0..6 {
            let before = confirmed.load(Ordering::SeqCst);
            let file = lab.path(&format!("{round}.backup"));
            lab.says(&["backup", file.to_str().unwrap()]);
            let content = content(&file);
            let nodes = &content["nodes"];
            assert!(
                nodes.len() >= before as usize,
                "{} of {before} confirmed ones",
                nodes.len()
            );
            assert_eq!(nodes.len() as u32 % TOGETHER, 0, "half a change: {nodes:?}");
            let history = content["history"].iter().map(|key| key.split('/').next().unwrap());
            assert!(
                history.eq(nodes.iter().map(String::as_str)),
                "a node without its history"
            );
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(
        confirmed.load(Ordering::SeqCst) > TOGETHER,
        "nothing was added meanwhile"
    );

    let said = lab.says(&["backup", "whole.backup"]);
    let count = confirmed.load(Ordering::SeqCst);
    assert!(
        said.contains(&format!("{count} nodes, {count} entries of history")),
        "{said}"
    );
    let (nodes, history) = (lab.says(&["node", "list"]), lab.says(&["node", "history", "r01n02"]));
    // A later change, which the backup does not hold.
    lab.says(&["node", "delete", "r01n02", "--yes"]);
    refusals_while_the_daemon_runs(&lab);
    lab.daemon.stop()?;

    let before = fs::read(lab.store())?;
    invalid_backups_are_refused(&lab);
    assert!(fs::read(lab.store())? == before, "a refused backup changed the store");
    a_backup_without_a_daemon_is_the_same(&lab);
    fs::write(lab.store(), b"wrecked")?;
    let said = lab.says(&["restore", "whole.backup"]);
    assert!(said.contains(&format!("restored: {count} nodes in ")), "{said}");
    assert!(
        said.contains("store.redb.before-restore-") && !said.contains("leases, boots and disks are kept"),
        "{said}"
    );
    lab.daemon.start(&lab.namespace)?;
    assert_eq!(lab.says(&["node", "list"]), nodes);
    assert_eq!(lab.says(&["node", "history", "r01n02"]), history);
    lab.daemon.stop()?;
    only_these_files(&lab, 1)
}

/// The refusals while the daemon runs.
fn refusals_while_the_daemon_runs(lab: &Lab) {
    let why = lab.complains(&["restore", "whole.backup"]);
    assert!(
        why.contains("a rackstrap daemon has it open (pid ") && why.contains("systemctl stop rackstrap"),
        "{why}"
    );
    let said = lab.says(&["restore", "whole.backup", "--dry-run"]);
    assert!(said.contains("nothing was changed: --dry-run"), "{said}");
    // An existing file is only replaced with an option.
    let before = fs::read(lab.path("whole.backup")).unwrap();
    let why = lab.complains(&["backup", "whole.backup"]);
    assert!(
        why.contains("whole.backup: it exists") && why.contains("--force"),
        "{why}"
    );
    assert!(fs::read(lab.path("whole.backup")).unwrap() == before);
    lab.says(&["backup", "whole-2.backup"]);
    lab.says(&["backup", "whole-2.backup", "--force"]);
    // The default name; the backup holds the daemon's keys.
    let json: serde_json::Value = serde_json::from_str(&lab.says(&["backup", "--json"])).unwrap();
    let file = lab.path(json["file"].as_str().unwrap());
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("rackstrap-") && name.ends_with(".backup"), "{name}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(json["rows"]["nodes"], content(&file)["nodes"].len());
    assert_eq!(json["bytes"], fs::metadata(&file).unwrap().len());
    // A directory and standard output as destinations.
    fs::create_dir(lab.path("vault")).unwrap();
    lab.says(&["backup", "vault"]);
    assert_eq!(fs::read_dir(lab.path("vault")).unwrap().count(), 1);
    let piped = lab.run(&["backup", "-"]);
    assert!(piped.status.success() && piped.stderr.is_empty());
    fs::write(lab.path("piped.backup"), &piped.stdout).unwrap();
    let shown = lab.says(&["backup", "--show", "piped.backup"]);
    assert!(
        shown.contains("cluster:") && shown.contains(" by rackstrap "),
        "{shown}"
    );
    // The tool `zstd` reads the backup.
    let rows = Command::new("zstd")
        .args(["-dc"])
        .arg(lab.path("piped.backup"))
        .output()
        .unwrap();
    let rows = String::from_utf8(rows.stdout).unwrap();
    assert!(
        rows.starts_with("nodes\tr01n01\t{\"name\":\"r01n01\","),
        "{}",
        &rows[..80]
    );
    // The destination's directory does not exist.
    let why = lab.complains(&["backup", "nowhere/x.backup"]);
    assert!(why.contains("making nowhere/.rackstrap-backup-"), "{why}");
    // A daemon that has the store open and does not answer.
    let socket = lab.daemon.state_dir().join("rackstrap.sock");
    fs::rename(&socket, lab.path("away.sock")).unwrap();
    let why = lab.complains(&["backup", "x.backup"]);
    assert!(
        why.contains("a daemon has it open (pid ") && why.contains("but no daemon answers on "),
        "{why}"
    );
    assert!(!lab.path("x.backup").exists());
    fs::rename(lab.path("away.sock"), &socket).unwrap();
}

/// The refusals while the daemon is stopped.
fn invalid_backups_are_refused(lab: &Lab) {
    let whole = fs::read(lab.path("whole.backup")).unwrap();
    let attempt = |bytes: &[u8]| {
        fs::write(lab.path("bad.backup"), bytes).unwrap();
        let why = lab.complains(&["restore", "bad.backup"]);
        assert!(why.starts_with("rackstrap: backup bad.backup: it"), "{why}");
        why
    };
    assert!(attempt(&whole[..whole.len() / 2]).contains("it was cut, or not copied completely"));
    let mut altered = whole.clone();
    altered[whole.len() / 2] ^= 1;
    assert!(attempt(&altered).contains("it was altered"));
    assert!(attempt(b"SQLite format 3").contains("not a backup of rackstrap"));
    let mut newer = whole.clone();
    let at = newer.windows(9).position(|window| window == b"-backup 1").unwrap();
    newer[at + 8] = b'2';
    assert!(attempt(&newer).contains("its format is version 2, and this rackstrap reads versions up to 1"));
    fs::remove_file(lab.path("bad.backup")).unwrap();
    assert!(lab.complains(&["restore", "none.backup"]).contains("cannot open it"));
    // The backup of another cluster.
    let site = fs::read_to_string(lab.daemon.config()).unwrap();
    let other = site.replace("name = \"demo\"", "name = \"other\"");
    fs::write(lab.daemon.config(), other).unwrap();
    let why = lab.complains(&["restore", "whole.backup"]);
    assert!(
        why.contains("is from the cluster 'demo', but the site file ") && why.contains("--force"),
        "{why}"
    );
    fs::write(lab.daemon.config(), site).unwrap();
}

/// Without a daemon, the backup has the same content.
fn a_backup_without_a_daemon_is_the_same(lab: &Lab) {
    lab.says(&["backup", "stopped.backup"]);
    let (stopped, running) = (
        content(&lab.path("stopped.backup")),
        content(&lab.path("whole-2.backup")),
    );
    for table in [Table::Nodes, Table::History, Table::Secrets, Table::Meta] {
        assert_eq!(stopped.get(table.name()), running.get(table.name()), "{}", table.name());
    }
}

/// No temporary file remains.
fn only_these_files(lab: &Lab, kept: usize) -> Result {
    let mut olds = 0;
    for dir in [lab.dir.path(), lab.daemon.state_dir()] {
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name().into_string().unwrap();
            assert!(
                !name.contains("restoring") && !name.starts_with(".rackstrap-backup"),
                "{name}"
            );
            olds += usize::from(name.contains("before-restore"));
        }
    }
    assert_eq!(olds, kept);
    Ok(())
}

#[test]
fn a_machine_that_was_lost_is_set_up_again_from_a_backup() -> Result {
    let lab = Lab::new()?;
    let why = lab.complains(&["backup"]);
    assert!(why.contains("nothing to back up: no daemon answers on "), "{why}");
    lab.daemon.start(&lab.namespace)?;
    add(&lab.client()?, 0, 2)?;
    lab.says(&["backup", "a.backup"]);
    lab.daemon.stop()?;
    // Neither the store nor its directory exists.
    let site = fs::read(lab.daemon.config())?;
    fs::remove_dir_all(lab.daemon.state_dir())?;
    fs::create_dir(lab.daemon.state_dir())?;
    fs::write(lab.daemon.config(), site)?;
    lab.says(&["restore", "a.backup"]);
    assert_eq!(fs::metadata(lab.store())?.permissions().mode() & 0o7777, 0o600);
    lab.daemon.start(&lab.namespace)?;
    assert_eq!(lab.says(&["node", "list"]).lines().count(), 3);
    lab.says(&["node", "delete", "r01n01", "--yes"]);
    lab.daemon.stop()?;
    // Onto a host with an intact store: the leases of that store stay, and the old store is kept.
    let said = lab.says(&["restore", "a.backup"]);
    assert!(
        said.contains("leases, boots and disks are kept from the old store"),
        "{said}"
    );
    lab.daemon.start(&lab.namespace)?;
    assert_eq!(lab.says(&["node", "list"]).lines().count(), 3);
    lab.daemon.stop()?;
    only_these_files(&lab, 1)
}

//! A daemon's parts in the process of the tests, opened as the daemon opens them: the control socket for the real command, the
//! HTTP service and the store.

use rackstrap::parts::{control, serve};
use rackstrap_base::{clock::Timestamp, warnings::SiteWarnings};
use rackstrap_registries::{
    discovery::{Discovery, Observation, Place},
    timeline::Recorder,
};
use rackstrap_site::parse;
use rackstrap_store::Store;
use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
};
use tokio_util::sync::CancellationToken;

/// The usual site file; `DIR` stands for the state directory.
const SITE: &str = r#"
[cluster]
name = "lab"
node-name = "r{rack:02}n{slot:02}"
node-address = "10.5.{rack}.{slot}"
reserved = ["10.5.0.0/24"]

[server]
socket = "DIR/control.sock"
state-dir = "DIR"

[[subnet]]
network = "10.5.0.0/16"
interface = "eth1"
server = "10.5.0.1"

[profile.default]
layout = "scratch"

[layout.scratch]
version = 1
partition = [
  { name = "tmp", size = "100 MiB", fs = "ext4", mount = "/tmp" },
  { name = "var", size = "rest", fs = "ext4", mount = "/var" },
]
"#;

/// All parts that a daemon has before it binds a port. `change` gets the directory and the usual text; its result becomes
/// `DIR/site.toml`.
pub(crate) fn parts(dir: &Path, change: impl FnOnce(&Path, String) -> String) -> serve::Shared {
    let text = change(dir, SITE.replace("DIR", dir.to_str().unwrap()));
    let file = dir.join("site.toml");
    std::fs::write(&file, &text).unwrap();
    let (site, _) = parse(&text, &file).unwrap_or_else(|problems| panic!("{problems}"));
    serve::open(site, SiteWarnings::default()).unwrap()
}

/// A daemon that answers commands.
pub(crate) struct Daemon {
    dir: tempfile::TempDir,
    pub(crate) recorder: Recorder,
    pub(crate) discovery: Discovery,
    pub(crate) store: Store,
    pub(crate) cancel: CancellationToken,
    pub(crate) runtime: tokio::runtime::Runtime,
}

impl Daemon {
    pub(crate) fn start() -> Daemon {
        Daemon::start_with(|_, text| text)
    }

    /// With a changed site file: `change` gets the directory and the usual text.
    pub(crate) fn start_with(change: impl FnOnce(&Path, String) -> String) -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        let parts = parts(dir.path(), change);
        let context = parts.control_context(
            Arc::new(|_| {
                Ok(control::api::Reloaded {
                    message: "site.toml taken over".into(),
                    effects: Vec::new(),
                    done: true,
                })
            }),
            Arc::new(|| Ok(String::new())),
            Arc::new(|addresses| Ok(addresses.to_vec())),
            Arc::new(|| vec![("dhcp offers".into(), 3), ("tftp transfers".into(), 1)]),
        );
        let socket = dir.path().join("control.sock");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let cancel = CancellationToken::new();
        let bound = runtime.block_on(control::bind(&socket)).unwrap();
        runtime.spawn(control::serve(bound, Arc::new(context), cancel.clone()));
        Daemon {
            dir,
            recorder: parts.recorder,
            discovery: parts.discovery,
            store: parts.store,
            cancel,
            runtime,
        }
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("site.toml")
    }

    pub(crate) fn command(&self, words: &str) -> Command {
        let mut command = rackstrap(&self.config());
        command.args(words.split_whitespace());
        command
    }

    pub(crate) fn run(&self, words: &str) -> Output {
        self.command(words).output().unwrap()
    }

    /// Returns stdout of a command that must succeed.
    pub(crate) fn says(&self, words: &str) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words}: {output:?}");
        assert!(output.stderr.is_empty(), "{words}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns the one line on stderr of a command that must fail with 1 and print nothing else.
    pub(crate) fn complains(&self, words: &str) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(1), "{words}: {output:?}");
        assert!(output.stdout.is_empty(), "{words}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

/// The real command with this site file.
pub(crate) fn rackstrap(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rackstrap"));
    command.arg("--config").arg(config).stdin(Stdio::null());
    command
}

/// Reports a DHCP packet of an unknown machine that boots and has an address.
pub(crate) fn packet(daemon: &Daemon, hwaddr: &str) {
    daemon.discovery.observe(Observation {
        at: Timestamp::now(),
        hwaddr: hwaddr.parse().unwrap(),
        uuid: None,
        arch: Some(7),
        class: String::new(),
        booting: true,
        confirmed: true,
        offered: true,
        no_room: None,
        place: Place {
            interface: "eth1".into(),
            relay: None,
            network: None,
            switch: "sw1".into(),
            port: "7".into(),
        },
    });
}

//! The servers in the comparison, each a child process on loopback.

use super::{build_example, rpc};
use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use testbed::process::Running;

/// Debian packages of the other server.
pub const NEEDED: &[&str] = &["nfs-ganesha", "nfs-ganesha-vfs", "rpcbind", "iproute2", "util-linux"];
/// A server that cannot be mounted from after this time has failed to start.
const START: Duration = Duration::from_secs(30);

/// A running server of one tree.
pub struct Server {
    pub name: &'static str,
    pub port: u16,
    pub mount_port: u16,
    process: Running,
    /// Another process that it needs.
    _helper: Option<Running>,
}

/// Builds `crates/nfs/examples/nfs.rs`: only the engine of the daemon.
pub fn build_ours() -> Result<PathBuf> {
    build_example("rackstrap-nfs", "nfs")
}

impl Server {
    /// Our engine with its defaults, except that it accepts calls from any port.
    pub fn ours(binary: &Path, tree: &Path, run: &Path) -> Result<Self> {
        let mut command = Command::new(binary);
        command.arg(tree).arg("22049");
        Server {
            name: "rackstrap",
            port: 22049,
            mount_port: 22049,
            process: start("rackstrap", &mut command, run)?,
            _helper: None,
        }
        .once_ready(tree, run)
    }

    /// nfs-ganesha with the options of its documentation for one read-only NFSv3 export.
    pub fn ganesha(tree: &Path, run: &Path) -> Result<Self> {
        let rpcbind = start("rpcbind", Command::new("rpcbind").arg("-f"), run)?;
        let config = run.join("ganesha.conf");
        let text = format!(
            "NFS_CORE_PARAM {{ Protocols = 3; NFS_Port = 22149; MNT_Port = 22150; Bind_addr = 127.0.0.1;\n\
             \x20 Enable_NLM = false; Enable_RQUOTA = false; mount_path_pseudo = false; }}\n\
             EXPORT_DEFAULTS {{ SecType = sys; Squash = No_Root_Squash; PrivilegedPort = false; }}\n\
             EXPORT {{ Export_Id = 1; Path = \"{}\"; Pseudo = /tree; Access_Type = RO; Protocols = 3;\n\
             \x20 Transports = TCP; MaxRead = 1048576; PrefRead = 1048576; FSAL {{ Name = VFS; }} }}\n",
            tree.display()
        );
        fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
        wait_for("rpcbind", run, || Ok(std::net::TcpStream::connect(("127.0.0.1", 111))?))?;
        let mut command = Command::new("ganesha.nfsd");
        command
            .args(["-F", "-N", "NIV_WARN", "-L", "STDERR", "-f"])
            .arg(&config);
        command.arg("-p").arg(run.join("ganesha.pid"));
        Server {
            name: "ganesha",
            port: 22149,
            mount_port: 22150,
            process: start("ganesha", &mut command, run)?,
            _helper: Some(rpcbind),
        }
        .once_ready(tree, run)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    fn once_ready(self, tree: &Path, run: &Path) -> Result<Self> {
        wait_for(self.name, run, || rpc::mount(self.mount_port, &tree.to_string_lossy()))?;
        Ok(self)
    }
}

/// Starts a server with its output in a file of its own.
fn start(name: &str, command: &mut Command, run: &Path) -> Result<Running> {
    let log = File::create(run.join(format!("{name}.log"))).context("making a log file")?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Running::start(name, command)
}

fn wait_for<T>(name: &str, run: &Path, mut try_it: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + START;
    loop {
        match try_it() {
            Ok(done) => return Ok(done),
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(50)),
            Err(error) => {
                let log = fs::read_to_string(run.join(format!("{name}.log"))).unwrap_or_default();
                let start = log.len().saturating_sub(3000);
                let log = String::from_utf8_lossy(&log.as_bytes()[start..]).into_owned();
                bail!("{name} cannot be used after {START:?}: {error:#}; its log:\n{log}");
            }
        }
    }
}

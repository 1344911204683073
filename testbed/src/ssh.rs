//! Logging in to nodes by ssh, from outside of them, as people do.

use crate::{Namespace, Result, process::output};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A pair of keys without a passphrase.
pub struct SshKey(PathBuf);

impl SshKey {
    /// Makes a pair of keys in `dir`.
    pub fn make(dir: &Path) -> Result<Self> {
        let key = dir.join("key");
        let mut command = Command::new("ssh-keygen");
        output(command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key))?;
        Ok(SshKey(key))
    }

    /// The public key, as a line of `authorized_keys`.
    pub fn public(&self) -> Result<String> {
        Ok(fs::read_to_string(self.0.with_extension("pub"))?.trim().to_owned())
    }

    /// What `command` prints, run as root at `address`.
    pub fn log_in(&self, namespace: &Namespace, address: &str, command: &str) -> Result<String> {
        let mut ssh = ssh(namespace);
        output(ssh.arg("-i").arg(&self.0).args([&format!("root@{address}"), command]))
    }

    /// The same, of a host whose key must be in the file `known_hosts` under `name`: ssh asks for nothing, and takes no other key.
    pub fn log_in_known(
        &self,
        namespace: &Namespace,
        known_hosts: &Path,
        name: &str,
        address: &str,
        command: &str,
    ) -> Result<String> {
        let mut ssh = namespace.command("ssh");
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "GlobalKnownHostsFile=/dev/null",
            &format!("UserKnownHostsFile={}", known_hosts.display()),
            &format!("HostKeyAlias={name}"),
        ] {
            ssh.args(["-o", option]);
        }
        output(ssh.arg("-i").arg(&self.0).args([&format!("root@{address}"), command]))
    }
}

/// Logs in without a key.
pub fn log_in_without_key(namespace: &Namespace, address: &str, command: &str) -> Result<String> {
    let mut ssh = ssh(namespace);
    for option in ["IdentitiesOnly=yes", "IdentityFile=/dev/null"] {
        ssh.args(["-o", option]);
    }
    output(ssh.args([&format!("root@{address}"), command]))
}

/// A client that asks for nothing and knows no host.
fn ssh(namespace: &Namespace) -> Command {
    let mut ssh = namespace.command("ssh");
    for option in [
        "BatchMode=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
    ] {
        ssh.args(["-o", option]);
    }
    ssh
}

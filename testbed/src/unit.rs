//! Applies the limits of the shipped systemd unit to the daemon, without systemd: what works in a test also works in the service.

use crate::{Result, process};
use anyhow::{Context, bail};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The shipped unit.
const UNIT: &str = include_str!("../../systemd/rackstrap.service");

/// Settings that need no imitation: they control when the unit runs, not what it may do.
const NOT_LIMITS: &[&str] = &[
    "ExecStart",
    "ExecReload",
    "Restart",
    "RestartSec",
    "LimitNOFILE",
    "RuntimeDirectory",
    "StateDirectory",
];

/// `ProtectHome=read-only` and `PrivateTmp=yes`, as in systemd.exec(5). Arguments before `--` stay visible below /tmp.
const SANDBOX: &str = r#"
for dir in /home /root /run/user; do
    [ ! -d "$dir" ] || { mount --rbind "$dir" "$dir" && mount -o remount,bind,ro "$dir"; }
done
mount -t tmpfs tmpfs /mnt
mkdir /mnt/tmp /mnt/var
while [ "$1" != -- ]; do
    case "$1" in
    /tmp/*) mkdir -p "/mnt/${1#/}" && mount --bind "$1" "/mnt/${1#/}" ;;
    esac
    shift
done
shift
mount --rbind /mnt/tmp /tmp
mount --rbind /mnt/var /var/tmp
exec "$@"
"#;

/// The lines of the unit's section `[Service]`.
fn service() -> impl Iterator<Item = &'static str> {
    let lines = UNIT.lines().skip_while(|line| line.trim() != "[Service]").skip(1);
    lines.take_while(|line| !line.starts_with('['))
}

/// The values of a setting, which may have several lines.
fn values(name: &str) -> impl Iterator<Item = &'static str> {
    service().filter_map(move |line| line.strip_prefix(name)?.strip_prefix('='))
}

/// Words before a program that give it the unit's capabilities and `NoNewPrivileges`.
pub fn privileges() -> Result<Vec<OsString>> {
    let mut bounding = "-all".to_owned();
    for name in values("CapabilityBoundingSet").flat_map(str::split_whitespace) {
        let Some(name) = name.strip_prefix("CAP_") else {
            bail!("CapabilityBoundingSet of the unit: {name} is not a capability");
        };
        bounding.push_str(",+");
        bounding.push_str(&name.to_ascii_lowercase());
    }
    let mut words: Vec<OsString> = ["setpriv", "--inh-caps=-all", "--bounding-set"]
        .map(OsString::from)
        .into();
    words.push(bounding.into());
    if values("NoNewPrivileges").any(|value| value == "yes") {
        words.push("--no-new-privs".into());
    }
    Ok(words)
}

/// Words before a program that give it the unit's complete sandbox, in a mount namespace of its own. `visible` are directories below /tmp
/// that it needs although its /tmp is private.
pub fn sandbox(visible: &[PathBuf]) -> Result<Vec<OsString>> {
    for line in service() {
        let name = line.split('=').next().unwrap_or_default();
        let known = [
            "CapabilityBoundingSet",
            "NoNewPrivileges",
            "ProtectHome=read-only",
            "PrivateTmp=yes",
        ];
        let known = known.iter().any(|known| *known == name || *known == line);
        if !(known || line.is_empty() || line.starts_with('#') || NOT_LIMITS.contains(&name)) {
            bail!("the unit has {line}, which {} does not imitate", file!());
        }
    }
    let words = [
        "unshare",
        "--mount",
        "--propagation",
        "slave",
        "sh",
        "-e",
        "-c",
        SANDBOX,
        "sh",
    ];
    let mut words: Vec<OsString> = words.map(OsString::from).into();
    words.extend(visible.iter().map(|dir| dir.clone().into_os_string()));
    words.push("--".into());
    words.extend(privileges()?);
    Ok(words)
}

/// Checks the unit with systemd-analyze.
///
/// # Errors
/// The faults that it finds.
pub fn verify(daemon: &Path, dir: &Path) -> Result {
    // systemd-analyze checks that the program exists.
    let unit = UNIT.replace("/usr/sbin/rackstrap", &daemon.display().to_string());
    let file = dir.join("rackstrap.service");
    std::fs::write(&file, unit).with_context(|| format!("writing {}", file.display()))?;
    let mut command = std::process::Command::new("systemd-analyze");
    let said = process::output(command.args(["verify", "--man=no", "--recursive-errors=no"]).arg(&file))?;
    match said.trim() {
        "" => Ok(()),
        said => bail!("systemd-analyze verify: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_settings_are_found() {
        assert_eq!(values("PrivateTmp").collect::<Vec<_>>(), ["yes"]);
        assert_eq!(values("WantedBy").count(), 0, "a setting of [Install] was read");
        let words = privileges().unwrap();
        let bounding = words[3].to_str().unwrap();
        assert!(
            bounding.starts_with("-all,+") && bounding.contains("+net_raw") && bounding.contains("+kill"),
            "{bounding}"
        );
    }
}

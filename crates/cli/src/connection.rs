//! How commands find the daemon: from the site file.

use anyhow::{Context, Result, bail};
use rackstrap_control::{Client, DEFAULT_SOCKET};
use std::{
    io,
    path::{Path, PathBuf},
};

/// A client of the daemon that the site file `config` belongs to.
pub fn connect(config: &Path) -> Result<Client> {
    let socket = socket(config)?;
    Client::new(&socket).context("starting the client's runtime")
}

/// The daemon's socket. The rest of the site file is not read: while it is being edited and has errors, the daemon uses the
/// version that it read before, and commands must still reach it.
pub fn socket(config: &Path) -> Result<PathBuf> {
    server_path(config, "socket", DEFAULT_SOCKET)
}

/// The file of the store, found in the same way: when a backup is restored, the rest of the site file may be lost.
pub fn store(config: &Path) -> Result<PathBuf> {
    Ok(server_path(config, "state-dir", rackstrap_site::DEFAULT_STATE_DIR)?.join("store.redb"))
}

/// The cluster's name in the site file.
pub fn cluster(config: &Path) -> Result<String> {
    let named = site(config)?.and_then(|site| Some(site.get("cluster")?.get("name")?.as_str()?.to_owned()));
    Ok(named.unwrap_or_else(|| rackstrap_site::DEFAULT_CLUSTER.to_owned()))
}

/// The site file; none if it is the default one and does not exist.
fn site(config: &Path) -> Result<Option<toml::Table>> {
    let text = match std::fs::read_to_string(config) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if config != Path::new(super::DEFAULT_CONFIG) {
                bail!(
                    "site file {} does not exist\nhelp: name another one with --config FILE",
                    config.display()
                );
            }
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("site file {}: cannot read it", config.display())),
    };
    let table: toml::Table = toml::from_str(&text).with_context(|| {
        format!(
            "site file {} has errors\nhelp: `rackstrap check` lists them",
            config.display()
        )
    })?;
    Ok(Some(table))
}

/// The path `key` of `[server]`.
fn server_path(config: &Path, key: &str, default: &str) -> Result<PathBuf> {
    let named = site(config)?.and_then(|site| Some(site.get("server")?.get(key)?.clone()));
    match named {
        None => Ok(default.into()),
        Some(toml::Value::String(path)) => rackstrap_site::server_path(&path, config)
            .map_err(|problem| anyhow::anyhow!("site file {}: [server] {key}: {problem}", config.display())),
        Some(other) => bail!(
            "site file {}: [server] {key}: expected a path, found {other}",
            config.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_read_from_a_site_file_with_errors_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("site.toml");
        std::fs::write(&config, "[server]\nsocket = \"/run/x.sock\"\nhttp-port = \"many\"\n").unwrap();
        assert_eq!(socket(&config).unwrap(), Path::new("/run/x.sock"));
        std::fs::write(&config, "[server]\nsocket = \"run/x.sock\"\n").unwrap();
        assert_eq!(
            socket(&config).unwrap(),
            dir.path().join("run/x.sock"),
            "as the daemon takes it"
        );
        std::fs::write(&config, "[server]\nsocket = \"\"\n").unwrap();
        assert!(socket(&config).unwrap_err().to_string().contains("is not a path"));
        std::fs::write(&config, "[cluster]\n").unwrap();
        assert_eq!(socket(&config).unwrap(), Path::new(DEFAULT_SOCKET));
        std::fs::write(&config, "[server]\nsocket = 5\n").unwrap();
        assert!(
            socket(&config)
                .unwrap_err()
                .to_string()
                .contains("expected a path, found 5")
        );
        std::fs::write(&config, "[server\n").unwrap();
        assert!(format!("{:#}", socket(&config).unwrap_err()).contains("rackstrap check"));
        assert!(
            socket(&dir.path().join("none"))
                .unwrap_err()
                .to_string()
                .contains("does not exist")
        );
    }
}

//! Rendering the trees for one node: pure, facts in, files out.

use super::tree::{Body, Templates};
use rackstrap_wire::{DiskState, ImageRef, NetPlan, Overlay, OverlayContent, OverlayFile};
use serde::Serialize;
use std::{collections::BTreeMap, net::Ipv4Addr};

/// All that a template may ask for.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// `node.*`
    pub node: NodeFacts,
    /// `cluster.name`, `cluster.domain`
    pub cluster: BTreeMap<&'static str, String>,
    /// `server.ipaddr`
    pub server: BTreeMap<&'static str, Ipv4Addr>,
    /// `net.hwaddr`, `net.ipaddr`, `net.prefix`, `net.router`, `net.dns`
    pub net: NetPlan,
    /// `image`, as `debian@1`
    pub image: ImageRef,
    /// `image_digest`, the digest of the image's tree; empty if it was sealed before there were digests
    pub image_digest: String,
    /// `disk.mounts`, what is really there, and `disk.status`
    pub disk: DiskState,
    /// `nodes`: every node of the inventory, by name
    pub nodes: Vec<PeerNode>,
    /// `authorized_keys` of root
    pub authorized_keys: Vec<String>,
    /// `ssh.ed25519.private` and so on: the node's host keys
    pub ssh: SshKeys,
}

/// `node.*`
#[derive(Clone, Debug, Serialize)]
pub struct NodeFacts {
    /// Name.
    pub name: String,
    /// Name and domain.
    pub fqdn: String,
    /// Profiles, without `default`; later ones win.
    pub profiles: Vec<String>,
    /// Groups.
    pub groups: Vec<String>,
    /// 32 hex digits, the same at every boot, so that systemd does not take each one for the first.
    pub machine_id: String,
}

/// Another node, for hosts files.
#[derive(Clone, Debug, Serialize)]
pub struct PeerNode {
    /// Name.
    pub name: String,
    /// Address.
    pub ipaddr: Ipv4Addr,
}

/// A node's ssh host keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct SshKeys {
    /// Ed25519.
    pub ed25519: KeyPair,
    /// ECDSA on P-256, for clients of another age.
    pub ecdsa: KeyPair,
}

/// One key pair in OpenSSH's formats, without a newline at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct KeyPair {
    /// Private key.
    pub private: String,
    /// Public key.
    pub public: String,
}

/// Renders `trees` in order; a file of a later tree replaces one of an earlier tree. The error
/// names tree, file and line.
pub fn render(templates: &Templates, trees: &[String], facts: &Facts) -> Result<Overlay, String> {
    let context = minijinja::Value::from(minijinja::value::Serde(facts));
    let mut files: BTreeMap<&str, OverlayFile> = BTreeMap::new();
    for tree in trees {
        let entries = templates.trees.get(tree).ok_or_else(|| {
            let known: Vec<&str> = templates.names().collect();
            format!("there is no template tree '{tree}'; there are: {}", known.join(", "))
        })?;
        for entry in entries {
            let content = match &entry.body {
                Body::Text(text) => OverlayContent::Text(text.clone()),
                Body::Symlink(target) => OverlayContent::Symlink(target.clone()),
                Body::Template(name) => {
                    let rendered = templates.env.get_template(name).and_then(|t| t.render(&context));
                    OverlayContent::Text(rendered.map_err(|e| format!("template {name}: {e:#}"))?)
                }
            };
            let empty = matches!(&content, OverlayContent::Text(text) if text.trim().is_empty());
            if entry.skip_empty && empty {
                continue;
            }
            let (path, mode, uid, gid) = (entry.path.clone(), entry.mode, entry.uid, entry.gid);
            files.insert(
                &entry.path,
                OverlayFile {
                    path,
                    mode,
                    uid,
                    gid,
                    content,
                },
            );
        }
    }
    Ok(Overlay {
        files: files.into_values().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_wire::{DiskStatus, FileSystem, HwAddr, MountedPartition};

    fn facts() -> Facts {
        let key = |name: &str| KeyPair {
            private: format!("PRIVATE {name}"),
            public: format!("PUBLIC {name}"),
        };
        let mounted = |name: &str, fs, mount: Option<&str>, device: &str| MountedPartition {
            name: name.to_owned(),
            device: device.to_owned(),
            fs,
            uuid: String::new(),
            mount: mount.map(str::to_owned),
            options: String::new(),
            size: 0,
        };
        Facts {
            node: NodeFacts {
                name: "r01n03".to_owned(),
                fqdn: "r01n03.cluster".to_owned(),
                profiles: Vec::new(),
                groups: Vec::new(),
                machine_id: "00112233445566778899aabbccddeeff".to_owned(),
            },
            cluster: BTreeMap::from([("name", "lab".to_owned()), ("domain", "cluster".to_owned())]),
            server: BTreeMap::from([("ipaddr", Ipv4Addr::new(10, 5, 0, 1))]),
            net: NetPlan {
                hwaddr: HwAddr([0x52, 0x54, 0, 1, 1, 3]),
                ipaddr: Ipv4Addr::new(10, 5, 1, 3),
                prefix: 16,
                router: None,
                dns: Vec::new(),
                domain: "cluster".to_owned(),
            },
            image: "debian@1".parse().unwrap(),
            image_digest: "blake3:00ff".to_owned(),
            disk: DiskState {
                status: DiskStatus::Kept {
                    layout: "scratch v1".to_owned(),
                },
                device: "vda".to_owned(),
                size: 1 << 31,
                mounts: vec![
                    mounted("swap", FileSystem::Swap, None, "/dev/vda2"),
                    mounted("tmp", FileSystem::Ext4, Some("/tmp"), "/dev/vda3"),
                ],
            },
            nodes: vec![PeerNode {
                name: "r01n03".to_owned(),
                ipaddr: Ipv4Addr::new(10, 5, 1, 3),
            }],
            authorized_keys: Vec::new(),
            ssh: SshKeys {
                ed25519: key("ed25519"),
                ecdsa: key("ecdsa"),
            },
        }
    }

    fn text<'a>(overlay: &'a Overlay, path: &str) -> &'a str {
        match &overlay
            .files
            .iter()
            .find(|f| f.path == path)
            .unwrap_or_else(|| panic!("{path}"))
            .content
        {
            OverlayContent::Text(text) => text,
            OverlayContent::Symlink(target) => target,
        }
    }

    #[test]
    fn the_base_tree_makes_a_node() {
        let overlay = render(&Templates::load(None).unwrap(), &["base".to_owned()], &facts()).unwrap();
        assert_eq!(text(&overlay, "/etc/hostname"), "r01n03\n");
        assert_eq!(text(&overlay, "/etc/rackstrap-image"), "debian@1 blake3:00ff\n");
        insta::assert_snapshot!(text(&overlay, "/etc/hosts"));
        insta::assert_snapshot!(text(&overlay, "/etc/fstab"));
        let private = overlay
            .files
            .iter()
            .find(|f| f.path == "/etc/ssh/ssh_host_ed25519_key")
            .unwrap();
        assert_eq!(private.mode, 0o600);
        assert!(
            overlay.files.iter().all(|f| f.path != "/etc/resolv.conf"),
            "no name server, no resolv.conf"
        );
    }

    #[test]
    fn an_undefined_name_is_refused_with_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("t/etc")).unwrap();
        std::fs::write(dir.path().join("t/etc/x.j2"), "fine\n{{ node.nmae }}\n").unwrap();
        let templates = Templates::load(Some(dir.path())).unwrap();
        let problem = render(&templates, &["t".to_owned()], &facts()).unwrap_err();
        assert!(problem.contains("t/etc/x.j2") && problem.contains(":2"), "{problem}");
        assert!(
            render(&templates, &["nope".to_owned()], &facts())
                .unwrap_err()
                .contains("there are: base, t")
        );
    }

    #[test]
    fn a_later_tree_wins() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("t/etc")).unwrap();
        std::fs::write(dir.path().join("t/etc/hostname"), "mine\n").unwrap();
        let templates = Templates::load(Some(dir.path())).unwrap();
        let overlay = render(&templates, &["base".to_owned(), "t".to_owned()], &facts()).unwrap();
        assert_eq!(text(&overlay, "/etc/hostname"), "mine\n");
    }
}

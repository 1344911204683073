//! Rendering the trees for one node: pure, facts in, files out.

use super::{
    problem,
    tree::{Body, Templates},
};
use rackstrap_base::words::closest;
use rackstrap_site::Diagnostic;
use rackstrap_wire::{DiskState, ImageRef, NetPlan, NetworkPlan, OverlayContent, OverlayFile};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::Ipv4Addr};

/// The values that a template can use.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// `node.*`
    pub node: NodeFacts,
    /// `vars.NAME`: variables of the cluster, the node's profiles and the node.
    pub vars: BTreeMap<String, serde_json::Value>,
    /// `cluster.name`, `cluster.domain`
    pub cluster: BTreeMap<&'static str, String>,
    /// `server.ipaddr`
    pub server: BTreeMap<&'static str, Ipv4Addr>,
    /// `net.hwaddr`, `net.ipaddr`, `net.prefix`, `net.router`, `net.dns`
    pub net: NetPlan,
    /// `networks`, the node's networks besides the boot network: `name`, `address`, `mtu` and so on
    pub networks: Vec<NetworkPlan>,
    /// `dns.servers` and `dns.search` of all networks
    pub dns: DnsFacts,
    /// `image`, as `debian@1`
    pub image: ImageRef,
    /// `image_digest`, the digest of the image's tree; empty if it was sealed before there were digests
    pub image_digest: String,
    /// `disk.mounts`, the mounts that the disk really has, and `disk.status`
    pub disk: DiskState,
    /// `mounts`: the node's mounts of `[[mount]]`, in the order in which they are mounted
    pub mounts: Vec<MountFacts>,
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
    /// The node's name.
    pub name: String,
    /// Name and domain.
    pub fqdn: String,
    /// Profiles, without `default`; later ones win.
    pub profiles: Vec<String>,
    /// The node's groups.
    pub groups: Vec<String>,
    /// `node.attributes.NAME`: what administrators set for the node.
    pub attributes: BTreeMap<String, String>,
    /// 32 hex digits, the same at every boot, so that systemd does not treat each boot as the first.
    pub machine_id: String,
}

/// A line of fstab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountFacts {
    /// The source, with blanks escaped as in fstab.
    pub what: String,
    /// Mount point.
    #[serde(rename = "where")]
    pub place: String,
    /// Type of file system.
    #[serde(rename = "type")]
    pub kind: String,
    /// Options, never empty.
    pub options: String,
    /// Whether a node without it is not ready.
    pub required: bool,
}

/// A file of a node, and the tree that it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Tree, or `[users]` or `[[mount]]` for files that these sections of the site file make.
    pub tree: String,
    /// The file.
    #[serde(flatten)]
    pub file: OverlayFile,
}

/// Another node, for hosts files.
#[derive(Clone, Debug, Serialize)]
pub struct PeerNode {
    /// The other node's name.
    pub name: String,
    /// Its address on the boot network.
    pub ipaddr: Ipv4Addr,
    /// Its names and addresses in further networks.
    pub networks: Vec<PeerAddress>,
}

/// A node in a further network.
#[derive(Clone, Debug, Serialize)]
pub struct PeerAddress {
    /// `r01n03-ib`
    pub name: String,
    /// Its address there.
    pub ipaddr: Ipv4Addr,
}

/// `dns.*`: name servers and search domains of all networks, those of the boot network first.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DnsFacts {
    /// Name servers.
    pub servers: Vec<Ipv4Addr>,
    /// Search domains.
    pub search: Vec<String>,
}

impl DnsFacts {
    /// Those of the boot network and of `networks`, each once.
    pub fn of(net: &NetPlan, networks: &[NetworkPlan]) -> Self {
        let mut dns = DnsFacts {
            servers: net.dns.clone(),
            search: Some(net.domain.clone())
                .filter(|domain| !domain.is_empty())
                .into_iter()
                .collect(),
        };
        for network in networks {
            let new = network.dns.iter().filter(|server| !dns.servers.contains(server));
            dns.servers.extend(new.copied().collect::<Vec<_>>());
            let new = network.search.iter().filter(|domain| !dns.search.contains(domain));
            dns.search.extend(new.cloned().collect::<Vec<_>>());
        }
        dns
    }
}

/// A node's ssh host keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct SshKeys {
    /// Ed25519.
    pub ed25519: KeyPair,
    /// ECDSA on P-256, for old clients.
    pub ecdsa: KeyPair,
}

/// One key pair in the formats of OpenSSH, without a newline at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct KeyPair {
    /// Private key.
    pub private: String,
    /// Public key.
    pub public: String,
}

/// The files in `made` and those of `trees`, sorted by path. A file of a later tree replaces that of an earlier one.
///
/// # Errors
/// A tree does not exist, or a template fails; with file and line.
pub fn render(
    templates: &Templates,
    trees: &[String],
    facts: &Facts,
    made: Vec<Placed>,
) -> Result<Vec<Placed>, Box<Diagnostic>> {
    let context = minijinja::Value::from(minijinja::value::Serde(facts));
    let mut files: BTreeMap<String, Placed> = BTreeMap::new();
    files.extend(made.into_iter().map(|placed| (placed.file.path.clone(), placed)));
    for name in trees {
        let tree = templates.trees.get(name).ok_or_else(|| no_tree(templates, name))?;
        for entry in &tree.entries {
            let content = match &entry.body {
                Body::Text => OverlayContent::Text(entry.source.clone()),
                Body::Symlink(target) => OverlayContent::Symlink(target.clone()),
                Body::Template(template) => {
                    let rendered = templates.env.get_template(template).and_then(|t| t.render(&context));
                    OverlayContent::Text(rendered.map_err(|e| {
                        Box::new(problem::of_template(templates, template, &entry.source, &e, &context))
                    })?)
                }
            };
            let empty = matches!(&content, OverlayContent::Text(text) if text.trim().is_empty());
            if entry.skip_empty && empty {
                continue;
            }
            let file = OverlayFile {
                path: entry.path.clone(),
                mode: entry.mode,
                uid: entry.uid,
                gid: entry.gid,
                content,
            };
            let tree = name.clone();
            files.insert(file.path.clone(), Placed { tree, file });
        }
    }
    Ok(files.into_values().collect())
}

/// The problem that no tree has that name.
pub(super) fn no_tree(templates: &Templates, name: &str) -> Box<Diagnostic> {
    let names: Vec<&str> = templates.names().collect();
    let help = match closest(name, names.iter().copied()) {
        Some(near) => format!("did you mean '{near}'? available: {}", names.join(", ")),
        None => format!(
            "make a directory of that name below templates-dir; available: {}",
            names.join(", ")
        ),
    };
    Box::new(problem::whole(
        "templates",
        &format!("template tree '{name}' does not exist"),
        &help,
    ))
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
            encrypted: false,
        };
        Facts {
            node: NodeFacts {
                name: "r01n03".to_owned(),
                fqdn: "r01n03.cluster".to_owned(),
                profiles: Vec::new(),
                groups: Vec::new(),
                attributes: BTreeMap::from([("location".to_owned(), "row 3".to_owned())]),
                machine_id: "00112233445566778899aabbccddeeff".to_owned(),
            },
            vars: BTreeMap::from([
                ("nics".to_owned(), serde_json::json!(["ib0", "ib1"])),
                ("ipmi".to_owned(), serde_json::json!({ "user": "admin", "lan": 1 })),
            ]),
            cluster: BTreeMap::from([("name", "lab".to_owned()), ("domain", "cluster".to_owned())]),
            server: BTreeMap::from([("ipaddr", Ipv4Addr::new(10, 5, 0, 1))]),
            net: NetPlan {
                hwaddr: HwAddr([0x52, 0x54, 0, 1, 1, 3]),
                ipaddr: Ipv4Addr::new(10, 5, 1, 3),
                prefix: 16,
                router: None,
                dns: Vec::new(),
                domain: "cluster".to_owned(),
                mtu: None,
                vlan: None,
            },
            networks: Vec::new(),
            dns: DnsFacts::default(),
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
                ..DiskState::default()
            },
            nodes: vec![PeerNode {
                name: "r01n03".to_owned(),
                ipaddr: Ipv4Addr::new(10, 5, 1, 3),
                networks: vec![PeerAddress {
                    name: "r01n03-ib".to_owned(),
                    ipaddr: Ipv4Addr::new(10, 6, 1, 3),
                }],
            }],
            mounts: Vec::new(),
            authorized_keys: Vec::new(),
            ssh: SshKeys {
                ed25519: key("ed25519"),
                ecdsa: key("ecdsa"),
            },
        }
    }

    fn text<'a>(files: &'a [Placed], path: &str) -> &'a str {
        let found = files.iter().find(|placed| placed.file.path == path);
        match &found.unwrap_or_else(|| panic!("{path}")).file.content {
            OverlayContent::Text(text) => text,
            OverlayContent::Symlink(target) => target,
            OverlayContent::Directory => panic!("{path} is a directory"),
        }
    }

    #[test]
    fn the_base_tree_makes_a_node() {
        let overlay = render(
            &Templates::load(None).unwrap(),
            &["base".to_owned()],
            &facts(),
            Vec::new(),
        )
        .unwrap();
        assert_eq!(text(&overlay, "/etc/hostname"), "r01n03\n");
        assert_eq!(text(&overlay, "/etc/rackstrap-image"), "debian@1 blake3:00ff\n");
        insta::assert_snapshot!(text(&overlay, "/etc/hosts"));
        insta::assert_snapshot!(text(&overlay, "/etc/fstab"));
        let private = overlay
            .iter()
            .find(|placed| placed.file.path == "/etc/ssh/ssh_host_ed25519_key");
        assert_eq!(private.unwrap().file.mode, 0o600);
        assert!(
            overlay.iter().all(|placed| placed.file.path != "/etc/resolv.conf"),
            "no name server, no resolv.conf"
        );
    }

    #[test]
    fn an_undefined_name_is_refused_with_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("t/etc")).unwrap();
        let mut said = String::new();
        for text in [
            "fine\n  {{ node.nmae }}\n",
            "{{ nodee.name }}",
            "{% for n in nodes %}{{ n.adress }}{% endfor %}",
            "{{ ssh.rsa.private }}",
            "{% if node.name == 'x' %}\n",
            "{{ node.name | uper }}",
            "{{ nodes[0].name.foo.bar }}",
            "fine\n{{ node.attributes.locaton }}",
            "{% include 't/etc/y' %}",
        ] {
            std::fs::write(dir.path().join("t/etc/x.j2"), text).unwrap();
            let problem = match Templates::load(Some(dir.path())) {
                Err(error) => error.to_string(),
                Ok(templates) => render(&templates, &["t".to_owned()], &facts(), Vec::new())
                    .unwrap_err()
                    .to_string(),
            };
            assert!(!problem.contains("PRIVATE"), "{problem}");
            said.push_str(&format!("{problem}\n\n").replace(dir.path().to_str().unwrap(), "templates"));
        }
        std::fs::remove_file(dir.path().join("t/etc/x.j2")).unwrap();
        let templates = Templates::load(Some(dir.path())).unwrap();
        for tree in ["nope", "bsae"] {
            let problem = render(&templates, &[tree.to_owned()], &facts(), Vec::new()).unwrap_err();
            said.push_str(&format!("{}\n", problem.brief()));
        }
        insta::assert_snapshot!(said);
    }

    #[test]
    fn an_attribute_of_the_node_is_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("t/etc")).unwrap();
        let template = "{{ node.attributes.location }}, {{ node.attributes.owner | default('nobody') }}\n";
        std::fs::write(dir.path().join("t/etc/place.j2"), template).unwrap();
        let templates = Templates::load(Some(dir.path())).unwrap();
        let overlay = render(&templates, &["t".to_owned()], &facts(), Vec::new()).unwrap();
        assert_eq!(text(&overlay, "/etc/place"), "row 3, nobody\n");
    }

    #[test]
    fn variables_are_values_and_a_table_is_no_text() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("t/etc")).unwrap();
        let rendered = |template: &str| {
            std::fs::write(dir.path().join("t/etc/x.j2"), template).unwrap();
            let templates = Templates::load(Some(dir.path())).unwrap();
            render(&templates, &["t".to_owned()], &facts(), Vec::new())
        };
        let good = "{{ vars.ipmi.user }} {{ vars.ipmi.lan + 1 }} {% for nic in vars.nics %}{{ nic }};{% endfor %}{{ vars.none | default('-') }}\n";
        assert_eq!(text(&rendered(good).unwrap(), "/etc/x"), "admin 2 ib0;ib1;-\n");
        for (template, says) in [
            (
                "fine\n{{ vars.ipmi }}\n",
                "x.j2:2:4: invalid operation: this is a table, and a text is wanted here",
            ),
            ("fine\n{{ vars.ipmo.user }}\n", "x.j2:2:4: 'vars.ipmo' is not defined"),
        ] {
            let problem = rendered(template).unwrap_err().to_string();
            assert!(problem.contains(says), "{problem}");
        }
    }

    #[test]
    fn a_later_tree_wins() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("t/etc")).unwrap();
        std::fs::write(dir.path().join("t/etc/hostname"), "mine\n").unwrap();
        let templates = Templates::load(Some(dir.path())).unwrap();
        let overlay = render(&templates, &["base".to_owned(), "t".to_owned()], &facts(), Vec::new()).unwrap();
        assert_eq!(text(&overlay, "/etc/hostname"), "mine\n");
    }
}

//! The root of a node.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::net::Ipv4Addr;

/// The root of a node. In JSON, `kind` names the variant, next to its fields.
///
/// A new kind of root is a variant here and a file below `root/` in the agent. Agents of wire versions 1 to 4 do not read `kind` and
/// take every root for NFS, so a plan with another kind may only be sent to agents of the version that introduced it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", remote = "Self")]
pub enum Root {
    /// A directory tree over NFSv3.
    Nfs(NfsRoot),
}

/// An NFSv3 root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NfsRoot {
    /// Server address.
    pub server: Ipv4Addr,
    /// TCP port of NFS and of MOUNT (one listener serves both programs).
    pub port: u16,
    /// Export path, `/debian@1`.
    pub export: String,
    /// Mount options after `vers=3,proto=tcp,…`, such as `nocto,acregmin=600`.
    pub options: String,
}

impl Serialize for Root {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        Root::serialize(self, s)
    }
}

impl<'de> Deserialize<'de> for Root {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut fields = serde_json::Map::deserialize(d)?;
        // Before kinds existed, all roots were NFS and had no `kind`.
        fields.entry("kind").or_insert_with(|| "nfs".into());
        Root::deserialize(serde_json::Value::from(fields)).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Plan;

    /// A plan from the release before, for an agent and in the store.
    const BEFORE: &str = r#"{"wire":4,"id":"k3v9","node":"r01n01","net":{"hwaddr":"52:54:00:01:01:01","ipaddr":"10.5.1.1",
        "prefix":16,"router":"10.5.0.1","dns":["10.5.0.1"],"domain":"lab"},"image":"debian@1","root":{"server":"10.5.0.1",
        "port":2049,"export":"/debian@1","options":"hard,nocto"},"init":"/sbin/init","disk":null,"ram_size":"50%",
        "heartbeat_secs":30,"health":{"checks":[],"within_secs":300,"command_secs":10,"mounts":[],"login":true}}"#;

    /// A plan as agents of wire versions 1 to 4 read it, with the fields for the root.
    #[derive(Deserialize)]
    struct PlanBefore {
        root: NfsRootBefore,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct NfsRootBefore {
        server: Ipv4Addr,
        port: u16,
        export: String,
        options: String,
    }

    fn root() -> NfsRoot {
        NfsRoot {
            server: [10, 5, 0, 1].into(),
            port: 2049,
            export: "/debian@1".to_owned(),
            options: "hard,nocto".to_owned(),
        }
    }

    #[test]
    fn a_plan_of_the_release_before_has_an_nfs_root() {
        let plan: Plan = serde_json::from_str(BEFORE).unwrap();
        assert_eq!(plan.root, Root::Nfs(root()));
    }

    #[test]
    fn an_agent_of_the_release_before_reads_the_root_of_a_plan() {
        let plan: Plan = serde_json::from_str(BEFORE).unwrap();
        let text = serde_json::to_string(&plan).unwrap();
        let now =
            r#""root":{"kind":"nfs","server":"10.5.0.1","port":2049,"export":"/debian@1","options":"hard,nocto"}"#;
        assert!(text.contains(now), "{text}");
        let before: PlanBefore = serde_json::from_str(&text).unwrap();
        let NfsRoot {
            server,
            port,
            export,
            options,
        } = root();
        let same = NfsRootBefore {
            server,
            port,
            export,
            options,
        };
        assert_eq!(before.root, same);
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }

    #[test]
    fn a_root_of_an_unknown_kind_is_refused_by_its_name() {
        let text = r#"{"kind":"tape","server":"10.5.0.1","port":1,"export":"/x","options":""}"#;
        let error = serde_json::from_str::<Root>(text).unwrap_err().to_string();
        assert!(error.contains("unknown variant `tape`, expected `nfs`"), "{error}");
    }
}

//! Finds out whether a tree enforces SELinux. NFSv3 does not transfer labels, so no file on a node has the label that the policy
//! expects, and an enforcing policy lets no user in.

use super::root::RootDir;

/// Kernel argument that makes the policy log violations only. For libselinux and systemd it precedes the configuration.
const PERMISSIVE: &str = "enforcing=0";

/// True if the configuration of the tree (selinux(8), /etc/selinux/config) enforces a policy, and the policy exists.
pub(crate) fn enforces_selinux(tree: &RootDir) -> bool {
    let Ok(text) = tree.read("etc/selinux/config", 64 << 10) else {
        return false;
    };
    let text = String::from_utf8_lossy(&text);
    let value = |key: &str| {
        let mut values = text.lines().filter_map(|line| line.trim().strip_prefix(key));
        values.next_back().map(|value| value.trim().to_owned())
    };
    let mode = value("SELINUX=").unwrap_or_default();
    let policy = value("SELINUXTYPE=").unwrap_or_else(|| "targeted".to_owned());
    mode.eq_ignore_ascii_case("enforcing")
        && tree
            .list(format!("etc/selinux/{policy}/policy"))
            .is_ok_and(|names| !names.is_empty())
}

/// The remark about such an image.
pub fn selinux_remark(image: &str) -> String {
    format!(
        "{image} enforces SELinux, but NFS does not transfer its labels: nodes boot permissive (kernel argument {PERMISSIVE}); to \
         silence this remark, set SELINUX=permissive or disabled in its /etc/selinux/config"
    )
}

/// The kernel's arguments with SELinux made permissive, unless the site's own arguments set it.
pub fn permissive_args(given: &str) -> String {
    let said = |arg: &str| arg.starts_with("enforcing=") || arg == "selinux=0";
    match given.split_whitespace().any(said) {
        true => given.to_owned(),
        false => format!("{PERMISSIVE} {given}").trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_sites_own_arguments_take_precedence() {
        assert_eq!(permissive_args(""), "enforcing=0");
        assert_eq!(permissive_args("quiet"), "enforcing=0 quiet");
        for given in ["enforcing=1", "quiet selinux=0"] {
            assert_eq!(permissive_args(given), given);
        }
    }

    #[test]
    fn an_enforced_policy_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let selinux = dir.path().join("etc/selinux");
        fs::create_dir_all(&selinux).unwrap();
        let enforces = |text: &str| {
            fs::write(selinux.join("config"), text).unwrap();
            enforces_selinux(&RootDir::open(dir.path()).unwrap())
        };
        let config = "# SELINUX=disabled\nSELINUX=enforcing\nSELINUXTYPE=targeted\n";
        assert!(!enforces(config), "no policy");
        fs::create_dir_all(selinux.join("targeted/policy")).unwrap();
        assert!(!enforces(config), "no policy");
        fs::write(selinux.join("targeted/policy/policy.33"), "x").unwrap();
        assert!(enforces(config) && enforces("SELINUX=Enforcing \n"));
        for other in [
            "SELINUX=permissive\nSELINUXTYPE=targeted\n",
            "SELINUX=enforcing\nSELINUX=disabled\n",
            "SELINUX=enforcing\nSELINUXTYPE=mls\n",
            "#SELINUX=enforcing\n",
            "",
        ] {
            assert!(!enforces(other), "{other}");
        }
        fs::remove_file(selinux.join("config")).unwrap();
        assert!(!enforces_selinux(&RootDir::open(dir.path()).unwrap()));
    }
}

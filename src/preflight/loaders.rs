//! Boot loaders: directories and files that the site file names, and whether any firmware can get a loader.

use super::{Finding, Reach, files::directory_fault, finding};
use rackstrap_base::{
    bootname::ScriptLanguage,
    firmware::{DEFAULT_LOADERS, language_of},
    subnet::{DhcpPart, Subnet},
};
use rackstrap_catalog::Catalog;
use rackstrap_loaders::{Family, Loaders};
use rackstrap_model::decide::LoaderChoice;
use rackstrap_site::{LayoutPolicy, LoaderFile, SYSTEM_LOADER_DIRS, Site};
use std::{collections::BTreeSet, io, net::Ipv4Addr, os::unix::fs::MetadataExt, path::Path, sync::Arc};

pub(super) fn of(site: &Site, images: &Catalog, found: &io::Result<Arc<Loaders>>) -> Vec<Finding> {
    let dirs = &site.server.loader_dirs;
    let system = |dir: &Path| SYSTEM_LOADER_DIRS.iter().any(|known| dir == Path::new(known));
    let mut all: Vec<Finding> = (dirs.iter().filter(|dir| !system(dir)))
        .filter_map(|dir| Some((dir, directory_fault(dir)?)))
        .map(|(dir, (what, mend))| {
            let message = format!("loader-dirs: {what}");
            let help = format!("{mend}; or remove it from [server] loader-dirs");
            finding(false, &format!("loader-dir {}", dir.display()), message, help)
        })
        .collect();
    match found {
        Ok(found) => {
            all.extend(of_rules(site, found));
            all.extend(of_layouts(site, images, found));
            all.extend(left_out(site, found));
            all.extend(beside_dhcp(site, found));
            all.extend(nothing(site, found));
        }
        Err(error) => {
            let listed: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
            all.push(finding(
                true,
                "loaders",
                format!("the boot loaders in {} cannot be read: {error}", listed.join(", ")),
                "let root read these directories".to_owned(),
            ));
        }
    }
    all
}

/// The files of `[loader.NAME]` that do not exist, are refused, or that users other than root can change.
fn of_rules(site: &Site, found: &Loaders) -> Vec<Finding> {
    let of_rule = |rule: &rackstrap_site::LoaderRule| {
        let topic = format!("loader {}", rule.name);
        let choice = LoaderChoice {
            name: rule.name.clone(),
            of_site: true,
            files: vec![rule.served()],
            why: String::new(),
        };
        let Some((_, content)) = found.first_of(&choice) else {
            let (what, help) = found.lacks(&choice, Family::of_this_machine());
            let message = match &rule.file {
                LoaderFile::Path(path) => format!("[loader.{}] {}: {what}", rule.name, path.display()),
                LoaderFile::Named(_) => format!("[loader.{}]: {what}", rule.name),
            };
            let found = finding(true, &topic, format!("{message}; its machines do not boot"), help);
            return Some(found.about(Reach::Machines));
        };
        let (message, help) = changeable(&content.path)?;
        Some(finding(
            false,
            &topic,
            format!("[loader.{}]: {message}", rule.name),
            help,
        ))
    };
    site.loaders.iter().filter_map(of_rule).collect()
}

/// EFI system partitions of layouts that disks get without content, so that nothing on them starts.
fn of_layouts(site: &Site, images: &Catalog, found: &Loaders) -> Vec<Finding> {
    let family = Family::of_this_machine();
    let of_layout = |(name, policy): (&String, &LayoutPolicy)| {
        let all = found.lacks_for_esp(policy, site, family, |arch| images.has_architecture(arch));
        let name = name.clone();
        all.into_iter().map(move |(arch, (what, help))| {
            let message = format!("[layout.{name}] esp: {what}; its disks start no machine with {arch}");
            finding(true, &format!("layout {name} {arch}"), message, help).about(Reach::Machines)
        })
    };
    site.layouts.iter().flat_map(of_layout).collect()
}

/// Servers of subnets with another DHCP server that GRUB on disks does not ask by itself, and that the other server does not name either.
fn left_out(site: &Site, found: &Loaders) -> Option<Finding> {
    let is_named = |server: &&Ipv4Addr| site.subnets.iter().any(|s| s.next_server && s.server == **server);
    let left_out = found.layout_esps().left_out().iter();
    let servers: Vec<String> = left_out
        .filter(|server| !is_named(server))
        .map(Ipv4Addr::to_string)
        .collect();
    if servers.is_empty() {
        return None;
    }
    let message = format!(
        "GRUB on disks with 'esp' asks the servers of four subnets with another DHCP server, and not {}",
        servers.join(", ")
    );
    let help = "set next-server to rackstrap's address in the DHCP server of each of these subnets, which GRUB asks first; then write it as \
                next-server in the [[subnet]], which ends this warning";
    Some(finding(false, "servers of disks", message, help.to_owned()).about(Reach::Machines))
}

/// Subnets with `dhcp = "proxy"` whose machines may load GRUB: it takes its server from the answer that gives it an address (`dhcp_ack` in
/// `net/bootp.c` of GRUB 2.06), not from the ProxyDHCP offer.
fn beside_dhcp(site: &Site, found: &Loaders) -> Vec<Finding> {
    let is_grub = |file: &str| language_of(file) == Some(ScriptLanguage::Grub);
    let of_rules = site.loaders.iter().filter(|rule| is_grub(&rule.served()));
    let mut loaders: Vec<String> = of_rules.map(|rule| format!("[loader.{}]", rule.name)).collect();
    // A package with GRUB for arm64 is there only if somebody installed it for these machines.
    let of_defaults = DEFAULT_LOADERS.iter().filter_map(|loader| {
        let first = loader.files.iter().find(|file| found.find(file).is_some())?;
        is_grub(first).then(|| format!("the default loader {first}"))
    });
    loaders.extend(of_defaults);
    if loaders.is_empty() {
        return Vec::new();
    }
    // With `dhcp = "off"` the export sets next-server together with the boot files.
    let proxies = (site.subnets.iter()).filter(|subnet| subnet.dhcp == DhcpPart::Proxy && !subnet.next_server);
    let of_subnet = |subnet: &Subnet| {
        let message = format!(
            "dhcp = \"proxy\" in {}: GRUB ({}) takes its server from your DHCP server, and stops at its prompt without it",
            subnet.network,
            loaders.join(", ")
        );
        let help = format!(
            "set next-server there to {0}, as `rackstrap export kea`, `dhcpd` and `dnsmasq` do for nodes; then write next-server = \"{0}\" in the [[subnet]], which ends this warning",
            subnet.server
        );
        finding(false, &format!("next-server {}", subnet.network), message, help).about(Reach::Machines)
    };
    proxies.map(of_subnet).collect()
}

/// How a user other than root can change a file that is served, and the remedy; none if nobody can. A file of loader-dirs is served whoever's
/// it is, and its machines run what that user writes.
fn changeable(path: &Path) -> Option<(String, String)> {
    let real = path.canonicalize().ok()?;
    // All directories on the way, of the link, too: there the next one can be exchanged for another.
    let mut dirs = path.ancestors().chain(real.ancestors());
    dirs.find_map(|part| {
        let metadata = std::fs::metadata(part).ok()?;
        let (owner, mode, shown) = (metadata.uid(), metadata.mode() & 0o7777, part.display());
        // In a directory with the sticky bit, others cannot exchange root's files.
        let sticky = metadata.is_dir() && mode & 0o1000 != 0;
        match () {
            () if owner != 0 => Some((
                format!("{shown} belongs to the user with id {owner}, who can change what machines run"),
                format!("chown root {shown}"),
            )),
            () if mode & 0o022 != 0 && !sticky => Some((
                format!("users other than root can write to {shown} (mode {mode:04o}), and change what machines run"),
                format!("chmod go-w {shown}"),
            )),
            () => None,
        }
    })
}

/// Nothing boots: neither a default loader nor one of the site file is there.
fn nothing(site: &Site, found: &Loaders) -> Option<Finding> {
    let served = |name: &str| found.find(name).is_some();
    let of_site = site.loaders.iter().any(|rule| served(&rule.served()));
    if of_site
        || DEFAULT_LOADERS
            .iter()
            .any(|loader| loader.files.iter().any(|file| served(file)))
    {
        return None;
    }
    let names: BTreeSet<&str> = DEFAULT_LOADERS.iter().map(|loader| loader.files[0]).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let message = format!(
        "no boot loaders found: none of {} in {}",
        names.join(", "),
        found.searched()
    );
    let family = Family::of_this_machine();
    let help = match family.package(&["undionly.kpxe"]) {
        Some(package) => format!(
            "install the package: {}; then: rackstrap reload",
            family.install(package)
        ),
        None => "put iPXE's loaders into a directory of [server] loader-dirs; then: rackstrap reload".to_owned(),
    };
    Some(finding(true, "loaders", message, help))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{PermissionsExt, chown, symlink},
        path::PathBuf,
    };

    /// The findings for these sections, in a directory that `prepare` fills; its path is DIR in both.
    fn found(lines: &str, prepare: impl Fn(&Path)) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap().to_owned();
        fs::write(dir.path().join("undionly.kpxe"), "x").unwrap();
        prepare(dir.path());
        let text = format!(
            "[cluster]\nnode-name = \"n{{n:02}}\"\nnode-address = \"10.5.1.{{n}}\"\n[[subnet]]\nnetwork = \"10.5.0.0/16\"\n\
             relayed = true\nserver = \"10.5.0.1\"\n{}",
            lines.replace("DIR", &root)
        );
        let (mut site, _) = rackstrap_site::parse(&text, Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}"));
        site.server.loader_dirs = vec![PathBuf::from(&root)];
        let loaders = Loaders::load(&site).map(Arc::new);
        let all = of(&site, &Catalog::default(), &loaders).into_iter().map(|finding| {
            let level = if finding.fatal { "error" } else { "warning" };
            format!("{level}: {}\n  {}", finding.message, finding.help).replace(&root, "DIR")
        });
        all.collect()
    }

    fn file(path: &Path, mode: u32) {
        fs::write(path, "x").unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_of_a_loader_that_is_missing_or_not_public_is_found() {
        let rule = "[loader.own]\nfile = \"DIR/own.efi\"\narch = [7]\n";
        assert_eq!(
            found(rule, |_| {}),
            [
                "error: [loader.own] DIR/own.efi: the file of [loader.own] does not exist; its machines do not boot\n  put the file \
              there, or correct 'file' in [loader.own]; then: rackstrap reload"
            ]
        );
        assert_eq!(
            found(&rule.replace("DIR/own.efi", "own.efi"), |_| {}),
            [
                "error: [loader.own]: own.efi does not exist in DIR; its machines do not boot\n  put the file there, or correct 'file' \
              in [loader.own]; then: rackstrap reload"
            ]
        );
        if !rustix::process::geteuid().is_root() {
            return;
        }
        assert_eq!(found(rule, |dir| file(&dir.join("own.efi"), 0o644)), [""; 0]);
        let refused = |mode| found(rule, |dir| file(&dir.join("own.efi"), mode)).join("\n");
        assert!(refused(0o666).contains("users other than root can write to it (mode 0666)"));
        assert!(refused(0o666).ends_with("chmod go-w DIR/own.efi"));
        assert!(refused(0o600).ends_with("chmod a+r DIR/own.efi"));
    }

    #[test]
    fn files_and_links_of_another_user_are_found() {
        // Only root can give files away.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let given = |dir: &Path| {
            file(&dir.join("own.efi"), 0o644);
            chown(dir.join("own.efi"), Some(65534), None).unwrap();
        };
        assert_eq!(
            found("[loader.own]\nfile = \"DIR/own.efi\"\narch = [7]\n", given),
            [
                "error: [loader.own] DIR/own.efi: DIR/own.efi is not served: DIR/own.efi belongs to the user with id 65534, not to \
              root; its machines do not boot\n  chown -h root DIR/own.efi"
            ]
        );
        assert_eq!(
            found("[loader.own]\nfile = \"own.efi\"\narch = [7]\n", given),
            [
                "warning: [loader.own]: DIR/own.efi belongs to the user with id 65534, who can change what machines run\n  chown \
              root DIR/own.efi"
            ]
        );
        let named = "[loader.own]\nfile = \"own.efi\"\narch = [7]\n";
        for mode in [0o664, 0o646] {
            assert_eq!(
                found(named, |dir| file(&dir.join("own.efi"), mode)),
                [format!(
                    "warning: [loader.own]: users other than root can write to DIR/own.efi (mode {mode:04o}), and change what machines \
                     run\n  chmod go-w DIR/own.efi"
                )]
            );
        }
        let directory = |mode| {
            found(named, |dir| {
                file(&dir.join("own.efi"), 0o644);
                fs::set_permissions(dir, Permissions::from_mode(mode)).unwrap();
            })
            .join("\n")
        };
        assert!(
            directory(0o775).contains("can write to DIR (mode 0775)"),
            "{}",
            directory(0o775)
        );
        assert!(directory(0o775).ends_with("\n  chmod go-w DIR"), "{}", directory(0o775));
        assert_eq!(directory(0o1777), "", "with the sticky bit");
        // Who owns a directory further up can put another directory in the place of this one.
        let home = |owner, mode| {
            let outer = tempfile::tempdir().unwrap();
            let dir = outer.path().join("home/loaders");
            fs::create_dir_all(&dir).unwrap();
            file(&dir.join("own.efi"), 0o644);
            let home = outer.path().join("home");
            chown(&home, Some(owner), None).unwrap();
            fs::set_permissions(&home, Permissions::from_mode(mode)).unwrap();
            changeable(&dir.join("own.efi")).map(|(what, _)| what.replace(home.to_str().unwrap(), "HOME"))
        };
        assert_eq!(home(0, 0o755), None);
        let owned = "HOME belongs to the user with id 65534, who can change what machines run";
        assert_eq!(home(65534, 0o755).as_deref(), Some(owned));
        assert!(home(0, 0o777).unwrap().contains("can write to HOME (mode 0777)"));
        let link = |dir: &Path| {
            symlink("/etc/hostname", dir.join("own.efi")).unwrap();
            std::os::unix::fs::lchown(dir.join("own.efi"), Some(65534), None).unwrap();
        };
        let said = found("[loader.own]\nfile = \"own.efi\"\narch = [7]\n", link).join("\n");
        assert!(said.contains("DIR/own.efi belongs to the user with id 65534"), "{said}");
    }

    /// A subnet with another DHCP server.
    fn subnet(second: u8, dhcp: &str) -> String {
        format!(
            "[[subnet]]\nnetwork = \"10.{second}.0.0/16\"\nrelayed = true\nserver = \"10.{second}.0.1\"\ndhcp = \"{dhcp}\"\n"
        )
    }

    #[test]
    fn a_subnet_whose_machines_load_grub_beside_another_dhcp_server_is_found() {
        let shim = "[loader.secure]\nfile = \"shimx64.efi.signed\"\narch = [7]\n";
        let warnings = |lines: &str| {
            let found = found(lines, |_| {});
            let of_dhcp = found.into_iter().filter(|text| text.contains("next-server"));
            of_dhcp.collect::<Vec<_>>().join("\n")
        };
        let text = warnings(&(subnet(6, "proxy") + &subnet(7, "off") + shim));
        assert!(
            text.starts_with("warning: dhcp = \"proxy\" in 10.6.0.0/16: GRUB ([loader.secure]")
                && text.contains("set next-server there to 10.6.0.1"),
            "{text}"
        );
        assert!(
            !text.contains("10.7.0"),
            "the export has next-server for dhcp = \"off\": {text}"
        );
        assert_eq!(warnings(shim), "", "without another DHCP server");
        assert!(
            text.contains("write next-server = \"10.6.0.1\" in the [[subnet]]"),
            "{text}"
        );
        let stated = subnet(6, "proxy") + "next-server = \"10.6.0.1\"\n";
        assert_eq!(warnings(&(stated + shim)), "", "the other server gives it");
    }

    #[test]
    fn servers_that_grub_on_disks_does_not_ask_are_found() {
        let layout = "[layout.s]\nversion = 1\nesp = \"16MiB\"\n[[layout.s.partition]]\nname = \"a\"\nsize = \"rest\"\nfs = \"raw\"\n";
        let of = |count: u8| {
            let subnets: String = (6..6 + count).map(|second| subnet(second, "off")).collect();
            let found = found(&(subnets + layout), |_| {}).into_iter();
            found.filter(|text| text.contains("GRUB on disks")).collect::<Vec<_>>()
        };
        assert_eq!(of(4), [""; 0]);
        let five = of(5);
        assert!(
            five.len() == 1 && five[0].contains("and not 10.10.0.1\n") && five[0].contains("next-server"),
            "{five:?}"
        );
        let (four, fifth): (String, String) =
            ((6..10).map(|second| subnet(second, "off")).collect(), subnet(10, "off"));
        let stated = found(&(four + &fifth + "next-server = \"10.10.0.1\"\n" + layout), |_| {});
        assert!(!stated.iter().any(|text| text.contains("GRUB on disks")), "{stated:?}");
    }
}

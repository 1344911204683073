//! Problems of this machine although the site file is valid: loaders, images, keys, interfaces and addresses, and the files
//! that the site file names.
//!
//! `rackstrap check` prints it; the daemon logs it and shows it in `status`.

mod bmcs;
mod disks;
mod files;
mod freebsd;
mod images;
mod lines;
mod loaders;
mod networks;
mod nodes;
mod programs;
mod vars;

pub use lines::of_nodes as lines_of_nodes;
pub use nodes::of_nodes;

use rackstrap_base::{link, warnings::SiteWarnings};
use rackstrap_catalog::Catalog;
use rackstrap_loaders::Loaders;
use rackstrap_model::inventory::Settings;
use rackstrap_site::Site;
use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, UdpSocket},
    sync::Arc,
};

/// One problem that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Short name of the subject, as in [`rackstrap_base::warnings::SiteWarning::topic`].
    pub topic: String,
    /// The problem, with the file or program.
    pub message: String,
    /// How to correct it, with the command.
    pub help: String,
    /// Whether it keeps nodes from booting: then it is an error and not a warning.
    pub fatal: bool,
    /// Which nodes it concerns.
    pub reach: Reach,
}

/// Which nodes a finding concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of them, or the daemon itself.
    All,
    /// Those with one of these profiles.
    Profiles(Vec<String>),
    /// Some machines, by their firmware.
    Machines,
}

/// Whether no node at all can boot: by a finding about all of them, or because each profile that names an image has one.
pub fn stops_all(found: &[Finding], site: &Site) -> bool {
    let fatal = || found.iter().filter(|finding| finding.fatal);
    let concerned: BTreeSet<&String> = fatal()
        .filter_map(|finding| match &finding.reach {
            Reach::Profiles(profiles) => Some(profiles),
            Reach::All | Reach::Machines => None,
        })
        .flatten()
        .collect();
    let mut booted = (site.profiles.keys())
        .filter(|profile| {
            let settings = Settings::of(site, std::slice::from_ref(*profile), |_| ());
            settings.text(|p| &p.image).is_some()
        })
        .peekable();
    let every = booted.peek().is_some() && booted.all(|profile| concerned.contains(profile));
    every || fatal().any(|finding| finding.reach == Reach::All)
}

impl Finding {
    /// The same, about these nodes.
    fn about(self, reach: Reach) -> Self {
        Finding { reach, ..self }
    }

    /// Whether it is about a missing image.
    pub fn is_of_image(&self) -> bool {
        self.topic
            .strip_prefix(TOPIC)
            .is_some_and(|topic| topic.starts_with("image "))
    }
}

/// The topics of all findings begin with this.
const TOPIC: &str = "site ";

/// The problems of this machine. `images` are those of the site's state directory, `found` its boot loaders.
pub fn findings(site: &Site, images: &Catalog, found: &io::Result<Arc<Loaders>>) -> Vec<Finding> {
    let mut all = interfaces(site);
    all.extend(addresses(site));
    all.extend(mtus(site, link::mtu));
    all.extend(loaders::of(site, images, found));
    all.extend(disks::of(site, images, found));
    all.extend(images::of_profiles(site, images));
    all.extend(freebsd::of_profiles(site, images));
    all.extend(programs::of_profiles(site, images));
    all.extend(bmcs::of(site));
    all.extend(keys(site));
    all.extend(files::of(site));
    all
}

/// Shows the findings of the daemon's site in `status`, and new ones in the log. Findings that were corrected disappear.
pub fn report(site: &Site, images: &Catalog, loaders: Arc<Loaders>, warnings: &SiteWarnings) {
    let now = rackstrap_base::clock::Timestamp::now();
    let found = findings(site, images, &Ok(loaders));
    for old in warnings.list(now) {
        if old.topic.starts_with(TOPIC) && found.iter().all(|finding| finding.topic != old.topic) {
            warnings.clear(&old.topic);
        }
    }
    for finding in found {
        let Finding {
            topic,
            message,
            help,
            fatal,
            reach: _,
        } = &finding;
        match fatal {
            true if warnings.raise_error(now, topic, message, help) => tracing::error!("{message}; {help}"),
            false if warnings.raise(now, topic, message, help) => tracing::warn!("{message}; {help}"),
            _ => {}
        }
    }
}

fn finding(fatal: bool, topic: &str, message: String, help: String) -> Finding {
    Finding {
        topic: format!("{TOPIC}{topic}"),
        message,
        help,
        fatal,
        reach: Reach::All,
    }
}

/// Network interfaces that this machine does not have.
fn interfaces(site: &Site) -> Vec<Finding> {
    let named: BTreeSet<&str> = site.subnets.iter().filter_map(|s| s.interface.as_deref()).collect();
    let present = link::interfaces();
    let missing = named
        .into_iter()
        .filter(|name| !present.iter().any(|there| there == name));
    missing
        .map(|name| {
            let message = format!("this machine has no network interface '{name}'; `rackstrap serve` cannot start");
            let help = "correct 'interface' in [[subnet]]; `ip link` lists this machine's interfaces".to_owned();
            finding(true, &format!("interface {name}"), message, help)
        })
        .collect()
}

/// Server addresses that this machine does not have: every port of the daemon is bound to one of them.
fn addresses(site: &Site) -> Vec<Finding> {
    let servers: BTreeSet<Ipv4Addr> = site.subnets.iter().map(|subnet| subnet.server).collect();
    let foreign = servers.into_iter().filter(|server| {
        let bound = UdpSocket::bind((*server, 0));
        bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
    });
    foreign
        .map(|server| {
            let message =
                format!("server address {server} is not an address of this machine; `rackstrap serve` cannot start");
            let help = "give it to the interface (`ip address`), or correct 'server' in [[subnet]]".to_owned();
            finding(true, &format!("address {server}"), message, help)
        })
        .collect()
}

/// Interfaces whose MTU is smaller than that of their nodes. TCP finds the smaller one; the interface drops other large packets.
fn mtus(site: &Site, mtu_of: impl Fn(&str) -> Option<u32>) -> Vec<Finding> {
    let subnets = site.subnets.iter().filter_map(|subnet| {
        let (interface, wanted) = (subnet.interface.as_deref()?, subnet.mtu?);
        let has = mtu_of(interface).filter(|has| *has < u32::from(wanted))?;
        let message = format!(
            "nodes of {} have mtu = {wanted}, and this machine's {interface} has {has}: it drops larger packets of theirs",
            subnet.network
        );
        let help = format!("ip link set {interface} mtu {wanted}; and the same in this machine's own network configuration");
        Some(finding(false, &format!("mtu {interface}"), message, help))
    });
    subnets.collect()
}

/// Profiles whose nodes have no key for a login.
fn keys(site: &Site) -> Vec<Finding> {
    let without: Vec<&str> = (site.profiles.keys())
        .filter(|profile| {
            let settings = Settings::of(site, std::slice::from_ref(*profile), |_| ());
            settings.get(|p| p.authorized_keys.as_ref()).is_none_or(Vec::is_empty)
        })
        .map(String::as_str)
        .collect();
    if without.is_empty() {
        return Vec::new();
    }
    let profiles = if without.len() == 1 { "profile" } else { "profiles" };
    let message = format!(
        "no authorized-keys in {profiles} {}: root login by ssh works on these nodes only if their image has keys",
        without.join(", ")
    );
    let help = "write authorized-keys = [\"ssh-ed25519 ...\"] in [profile.default]".to_owned();
    vec![finding(false, "authorized-keys", message, help)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    fn site(text: &str) -> Site {
        rackstrap_site::parse(text, Path::new("/site.toml"))
            .unwrap_or_else(|e| panic!("{e}"))
            .0
    }

    fn example() -> String {
        include_str!("../rackstrap.example.toml").to_owned()
    }

    fn loaders(site: &Site) -> Arc<Loaders> {
        Arc::new(Loaders::load(site).unwrap())
    }

    fn of<'a>(all: &'a [Finding], topic: &str) -> &'a Finding {
        let found = all.iter().find(|finding| finding.topic == format!("{TOPIC}{topic}"));
        found.unwrap_or_else(|| panic!("no {topic} in {all:?}"))
    }

    #[test]
    fn each_mistake_that_causes_no_error_is_found_with_its_remedy() {
        let mut site = site(&example());
        site.subnets[0].server = "192.0.2.1".parse().unwrap();
        site.subnets[0].interface = Some("eth-none".to_owned());
        site.server.loader_dirs = vec![PathBuf::from("/nonexistent/a"), PathBuf::from("/nonexistent/b")];
        let all = findings(&site, &Catalog::default(), &Ok(loaders(&site)));
        assert!(of(&all, "address 192.0.2.1").fatal);
        assert!(of(&all, "address 192.0.2.1").help.contains("ip address"));
        assert!(!of(&all, "loader-dir /nonexistent/a").fatal);
        assert!(of(&all, "loaders").fatal && of(&all, "loaders").help.contains("apt install ipxe"));
        let of_disks = of(&all, "network loader of disks");
        assert!(
            !of_disks.fatal
                && of_disks
                    .message
                    .starts_with("boot loader 'ipxe.lkrn' does not exist in /nonexistent/a")
        );
        assert!(of_disks.help.contains("apt install ipxe"), "{of_disks:?}");
        assert!(of(&all, "image debian").fatal);
        assert!(!of(&all, "authorized-keys").fatal);
        assert!(of(&all, "interface eth-none").fatal);
        assert!(!of(&all, "loader-dir /nonexistent/b").fatal);
        assert!(of(&all, "x64 UEFI loader of disks").help.contains("apt install ipxe"));
        assert_eq!(all.len(), 9, "{all:?}");
    }

    #[test]
    fn correct_settings_cause_no_finding_and_corrected_ones_disappear() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("undionly.kpxe"), "x").unwrap();
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti a@b";
        let text = example().replace(
            "# authorized-keys = [\"ssh-ed25519 AAAA... admin@example\"]",
            &format!("authorized-keys = [\"{key}\"]"),
        );
        let mut site = site(&text);
        site.subnets[0].server = Ipv4Addr::LOCALHOST;
        site.subnets[0].interface = Some("lo".to_owned());
        site.server.loader_dirs = vec![PathBuf::from("/nonexistent/a")];
        let warnings = SiteWarnings::default();
        let shown = || warnings.list(rackstrap_base::clock::Timestamp::now()).len();
        report(&site, &Catalog::default(), loaders(&site), &warnings);
        assert_eq!(shown(), 5, "the directory, loaders, both of disks, and the image");
        site.server.loader_dirs = vec![dir.path().to_owned()];
        report(&site, &Catalog::default(), loaders(&site), &warnings);
        assert_eq!(shown(), 3, "both loaders of disks, and the image");
        // A file with that name is not enough, and disks that are left alone do not need one.
        std::fs::write(dir.path().join("ipxe.lkrn"), "x").unwrap();
        let all = findings(&site, &Catalog::default(), &Ok(loaders(&site)));
        let unusable = &of(&all, "network loader of disks").message;
        assert!(
            unusable.starts_with("the boot loader ipxe.lkrn is not a Linux kernel image"),
            "{unusable}"
        );
        site.profiles.get_mut("default").unwrap().layout = Some(String::new());
        report(&site, &Catalog::default(), loaders(&site), &warnings);
        assert_eq!(shown(), 1, "the image");
    }

    #[test]
    fn an_interface_with_a_smaller_mtu_than_its_nodes_is_named() {
        let mut site = site(&example());
        let found = |site: &Site, mtu| mtus(site, |_| Some(mtu)).len();
        assert_eq!(found(&site, 1500), 0, "no mtu in the site file");
        site.subnets[0].mtu = Some(9000);
        assert_eq!((found(&site, 9000), found(&site, 9216)), (0, 0));
        let all = mtus(&site, |_| Some(1500));
        let interface = site.subnets[0].interface.clone().unwrap();
        assert_eq!(
            all[0].help.split(';').next(),
            Some(&*format!("ip link set {interface} mtu 9000"))
        );
        assert!(
            mtus(&site, |_| None).is_empty(),
            "a missing interface is another finding"
        );
    }
}

//! The network service of an image, which sets the node's further networks up (pure): the agent writes files for it, and the server warns of
//! images without one.

use crate::{OverlayContent, OverlayFile};
use std::fmt;

/// A network service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// systemd-networkd
    Networkd,
    /// NetworkManager
    NetworkManager,
    /// ifupdown
    Ifupdown,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Service::Networkd => "systemd-networkd",
            Service::NetworkManager => "NetworkManager",
            Service::Ifupdown => "ifupdown",
        })
    }
}

/// The services of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// Whether each is installed.
    pub networkd: Installed,
    /// NetworkManager.
    pub network_manager: Installed,
    /// ifupdown.
    pub ifupdown: Installed,
}

/// Whether a service is installed, and whether it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Installed {
    /// It is not in the image, or one of the node's files masks it.
    #[default]
    No,
    /// It is in the image, but does not start.
    Disabled,
    /// It starts with the system.
    Enabled,
}

/// Finds the services of an image. `exists` is whether the image has a path, without `/` at its begin. A unit that one of the node's own
/// `files` masks does not start.
pub fn find(exists: impl Fn(&str) -> bool, files: &[OverlayFile]) -> Services {
    let masked = |unit: &str| {
        let path = format!("/etc/systemd/system/{unit}");
        let null = |file: &OverlayFile| matches!(&file.content, OverlayContent::Symlink(to) if to == "/dev/null");
        files.iter().any(|file| file.path == path && null(file))
    };
    let service = |unit: &str, programs: &[&str]| {
        if masked(unit) || !programs.iter().any(|program| exists(program)) {
            return Installed::No;
        }
        let wanted = exists(&format!("etc/systemd/system/multi-user.target.wants/{unit}"));
        match wanted {
            true => Installed::Enabled,
            false => Installed::Disabled,
        }
    };
    let networkd = service(
        "systemd-networkd.service",
        &["usr/lib/systemd/systemd-networkd", "lib/systemd/systemd-networkd"],
    );
    let network_manager = service(
        "NetworkManager.service",
        &[
            "usr/sbin/NetworkManager",
            "usr/bin/NetworkManager",
            "sbin/NetworkManager",
        ],
    );
    // Debian's unit is wanted by multi-user.target and network-online.target; other inits run /etc/init.d/networking.
    let ifupdown = match service("networking.service", &["usr/sbin/ifup", "sbin/ifup"]) {
        Installed::Disabled if exists("etc/init.d/networking") && !exists("usr/lib/systemd/systemd") => {
            Installed::Enabled
        }
        other => other,
    };
    Services {
        networkd,
        network_manager,
        ifupdown,
    }
}

impl Services {
    /// The service that gets the networks: the first one that starts, or else systemd-networkd, which is started then. None if the image has
    /// none.
    pub fn choose(self) -> Option<Service> {
        let all = [
            (Service::Networkd, self.networkd),
            (Service::NetworkManager, self.network_manager),
            (Service::Ifupdown, self.ifupdown),
        ];
        let starts = all.into_iter().find(|(_, installed)| *installed == Installed::Enabled);
        let disabled = all
            .into_iter()
            .take(1)
            .find(|(_, installed)| *installed == Installed::Disabled);
        starts.or(disabled).map(|(service, _)| service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::RefCell, collections::BTreeSet};

    #[test]
    fn the_service_that_starts_is_chosen() {
        let paths = RefCell::new(BTreeSet::new());
        let add = |path: &str| paths.borrow_mut().insert(path.to_owned());
        let choose = |files: &[OverlayFile]| find(|path| paths.borrow().contains(path), files).choose();
        assert_eq!(choose(&[]), None);
        add("usr/sbin/ifup");
        assert_eq!(choose(&[]), None, "it does not start");
        add("etc/init.d/networking");
        assert_eq!(choose(&[]), Some(Service::Ifupdown), "an init without units");
        add("usr/lib/systemd/systemd");
        add("usr/lib/systemd/systemd-networkd");
        assert_eq!(choose(&[]), Some(Service::Networkd), "it is there, and will be started");
        add("etc/systemd/system/multi-user.target.wants/networking.service");
        assert_eq!(choose(&[]), Some(Service::Ifupdown));
        add("usr/sbin/NetworkManager");
        add("etc/systemd/system/multi-user.target.wants/NetworkManager.service");
        assert_eq!(choose(&[]), Some(Service::NetworkManager));
        add("etc/systemd/system/multi-user.target.wants/systemd-networkd.service");
        assert_eq!(choose(&[]), Some(Service::Networkd));
        let mask = |unit: &str| OverlayFile {
            path: format!("/etc/systemd/system/{unit}.service"),
            mode: 0o777,
            uid: 0,
            gid: 0,
            content: OverlayContent::Symlink("/dev/null".to_owned()),
        };
        let masks = [mask("systemd-networkd"), mask("NetworkManager")];
        assert_eq!(choose(&masks[..1]), Some(Service::NetworkManager));
        assert_eq!(choose(&masks), Some(Service::Ifupdown));
    }
}

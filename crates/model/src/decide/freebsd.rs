//! Nodes whose image is FreeBSD: their firmware loads the image's own boot loader, which reads the kernel and the root by NFS.

use super::{LoaderChoice, Requester};
use rackstrap_base::{
    bootname::ScriptLanguage,
    firmware::{RASPBERRY_PI, language_of, name, or_bios},
    subnet::{DhcpPart, Subnet},
};
use rackstrap_catalog::{EFI_LOADER, FREEBSD_LOADERS, ImageVersion, PXE_LOADER};
use rackstrap_site::Site;

/// The name of the loader of FreeBSD images, and the directory by which TFTP and HTTP serve its files.
pub const FREEBSD: &str = "freebsd";
/// NFS_PORT (sys/fs/nfs/nfs.h of FreeBSD): its kernel mounts the root from this port, whatever a port mapper says
/// (`nfs_setup_diskless` in sys/nfs/nfs_diskless.c).
pub const FREEBSD_NFS_PORT: u16 = 2049;

/// The loader's file name in an image for a file that TFTP or HTTP was asked for; none if it is not one of FreeBSD's.
pub fn freebsd_file(served: &str) -> Option<&'static str> {
    let name = served.strip_prefix(FREEBSD)?.strip_prefix('/')?;
    FREEBSD_LOADERS.into_iter().find(|file| *file == name)
}

/// Why the node cannot boot FreeBSD in its subnet; none if it can, and for other images.
pub fn freebsd_problem(site: &Site, subnet: &Subnet, version: &ImageVersion) -> Option<String> {
    if !version.is_freebsd() {
        return None;
    }
    let (image, network) = (&version.manifest.image, subnet.network);
    let part = match subnet.dhcp {
        DhcpPart::Full => "",
        DhcpPart::Proxy => "proxy",
        DhcpPart::Off => "off",
    };
    if !part.is_empty() {
        return Some(format!(
            "image {image} is FreeBSD, whose loader gets its root path (option 17) from the DHCP server that gives its address, and \
             subnet {network} has dhcp = \"{part}\"; write dhcp = \"full\" there, or give the node an image of Linux"
        ));
    }
    (site.server.nfs_port != FREEBSD_NFS_PORT).then(|| {
        format!(
            "image {image} is FreeBSD, whose kernel mounts its root from port {FREEBSD_NFS_PORT} only; remove nfs-port = {} from \
             [server], and restart the daemon",
            site.server.nfs_port
        )
    })
}

/// Why a loader other than iPXE cannot start the image: that loader's name is `loader`.
pub fn freebsd_needs_ipxe(version: &ImageVersion, loader: &str) -> String {
    format!(
        "image {} is FreeBSD, which {loader} cannot start; boot the machine by iPXE or by the loader of the image, or give the node an \
         image of Linux",
        version.export_name()
    )
}

/// Why the loader that the firmware has or gets cannot start the image; none if it can, if it is not known, and for other images.
pub(super) fn refused_by(
    requester: &Requester,
    loader: &Result<LoaderChoice, String>,
    version: &ImageVersion,
) -> Option<String> {
    let choice = loader.as_ref().ok().filter(|_| version.is_freebsd())?;
    let name = match choice.files.first() {
        // A loader of the site file wins over the image's own.
        Some(file) => {
            let language = language_of(file).filter(|_| choice.of_site)?;
            (language != ScriptLanguage::Ipxe).then(|| language.loader())?
        }
        None if requester.arch == Some(RASPBERRY_PI) => ScriptLanguage::RaspberryPi.loader(),
        None => ScriptLanguage::Pxelinux.loader(),
    };
    Some(freebsd_needs_ipxe(version, name))
}

/// The loader of `version` for the firmware of `requester`.
///
/// # Errors
/// The image has no loader for this firmware.
pub(super) fn loader(requester: &Requester, version: &ImageVersion) -> Result<LoaderChoice, String> {
    let image = &version.manifest.image;
    let arch = or_bios(requester.arch);
    // Types 0 and 20 are a BIOS (IANA, "Processor Architecture Types"). All others that an image can be for are UEFI.
    let file = match arch {
        0 | 20 => PXE_LOADER,
        _ => EFI_LOADER,
    };
    if !version.manifest.loaders.contains_key(file) {
        return Err(format!(
            "image {image} has no /boot/{file}, which {} needs; import a tree with it",
            name(arch)
        ));
    }
    Ok(LoaderChoice {
        name: FREEBSD.to_owned(),
        of_site: false,
        files: vec![format!("{FREEBSD}/{file}")],
        why: format!("the loader of image {image}"),
    })
}

/// The chain after the loader, for people.
pub(super) fn chain(subnet: &Subnet, version: &ImageVersion) -> String {
    let image = version.export_name();
    format!(
        "image {image} is FreeBSD: its loader asks DHCP again, gets the root path {}:/{image}, and reads the kernel by NFS over UDP; the \
         kernel mounts the same path; there is no agent",
        subnet.server
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_catalog::{Manifest, System};
    use std::path::{Path, PathBuf};

    fn version(loaders: &[&str]) -> ImageVersion {
        let manifest = Manifest {
            system: System::FreeBsd,
            arch: "x86_64".to_owned(),
            loaders: loaders.iter().map(|name| ((*name).to_owned(), String::new())).collect(),
            ..Manifest::bare("freebsd@3".parse().unwrap())
        };
        ImageVersion::new(manifest, PathBuf::new())
    }

    fn asks(arch: Option<u16>) -> Requester {
        Requester {
            arch,
            ..Requester::default()
        }
    }

    #[test]
    fn each_firmware_gets_the_images_own_loader_or_a_reason() {
        let both = version(&["pxeboot", "loader.efi"]);
        for (arch, file) in [
            (None, "freebsd/pxeboot"),
            (Some(0), "freebsd/pxeboot"),
            (Some(7), "freebsd/loader.efi"),
            (Some(16), "freebsd/loader.efi"),
            (Some(11), "freebsd/loader.efi"),
        ] {
            assert_eq!(loader(&asks(arch), &both).unwrap().files, [file], "{arch:?}");
        }
        assert_eq!(
            loader(&asks(Some(0)), &version(&["loader.efi"])).unwrap_err(),
            "image freebsd@3 has no /boot/pxeboot, which BIOS needs; import a tree with it"
        );
        assert_eq!(freebsd_file("freebsd/pxeboot"), Some("pxeboot"));
        for other in [
            "pxeboot",
            "freebsd/kernel",
            "freebsd/../pxeboot",
            "freebsd",
            "freebsdpxeboot",
        ] {
            assert_eq!(freebsd_file(other), None, "{other}");
        }
    }

    #[test]
    fn a_site_in_which_freebsd_cannot_boot_is_named_with_the_key() {
        let site = |server: &str, dhcp: &str| {
            let text = format!(
                "[cluster]\nnode-name = \"n{{n:02}}\"\nnode-address = \"10.5.1.{{n}}\"\n[server]\n{server}\n\
                 [[subnet]]\nnetwork = \"10.5.0.0/16\"\nrelayed = true\nserver = \"10.5.0.1\"\n{dhcp}\n"
            );
            rackstrap_site::parse(&text, Path::new("/site.toml"))
                .unwrap_or_else(|e| panic!("{e}"))
                .0
        };
        let freebsd = version(&["pxeboot"]);
        let problem = |site: &Site| freebsd_problem(site, &site.subnets[0], &freebsd);
        assert_eq!(problem(&site("", "")), None);
        let port = problem(&site("nfs-port = 20049", "")).unwrap();
        assert!(port.contains("remove nfs-port = 20049 from [server]"), "{port}");
        for part in ["proxy", "off"] {
            let why = problem(&site("", &format!("dhcp = \"{part}\""))).unwrap();
            assert!(
                why.contains(&format!("dhcp = \"{part}\"; write dhcp = \"full\"")),
                "{why}"
            );
        }
    }
}

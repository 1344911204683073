//! Which boot loader the firmware of a machine gets: by the `[loader.NAME]` sections, or else by default.

use super::Requester;
use rackstrap_base::firmware::{
    ARCH_TYPES, ArchType, PXE_CLIENT, arch_type, default_loader, loads_itself, name, name_and_number, names_of, or_bios,
};
use rackstrap_site::{LoaderRule, Site};
use std::collections::BTreeSet;

/// The loader for a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoaderChoice {
    /// The NAME of `[loader.NAME]`, or that of the default loader.
    pub name: String,
    /// Whether the site file has it.
    pub of_site: bool,
    /// The names by which TFTP and HTTP may serve it, the best one first. The first one that exists is the loader. Empty for firmware that
    /// asks for names of its own ([`loads_itself`]).
    pub files: Vec<String>,
    /// Why this one, for people.
    pub why: String,
}

/// How particular a rule is where it matches; the greatest one wins. In the order of the comparison: the place of its profile in the node's
/// list, the length of its vendor class, and whether it names architectures.
type Rank = (usize, usize, bool);

/// The loader for the firmware of `requester`. `profiles` are those of the node; none for an unknown machine.
///
/// # Errors
/// No loader is made for this firmware. The text names the firmware, and what to add.
pub fn choose_loader(site: &Site, requester: &Requester, profiles: Option<&[String]>) -> Result<LoaderChoice, String> {
    let ranked = site
        .loaders
        .iter()
        .filter_map(|rule| Some((rank(rule, requester, profiles)?, rule)));
    // A checked site has no two rules of one rank for a machine; of equal ones the first would win.
    let best = ranked.rev().max_by_key(|(rank, _)| *rank);
    if let Some((_, rule)) = best {
        return Ok(LoaderChoice {
            name: rule.name.clone(),
            of_site: true,
            files: vec![rule.served()],
            why: format!("[loader.{}] of the site file, for {}", rule.name, conditions(rule)),
        });
    }
    if let Some((name, why)) = loads_itself(requester.arch, &requester.class) {
        return Ok(LoaderChoice {
            name: name.to_owned(),
            of_site: false,
            files: Vec::new(),
            why: why.to_owned(),
        });
    }
    if let Some(default) = default_loader(requester.arch) {
        return Ok(LoaderChoice {
            name: default.name.to_owned(),
            of_site: false,
            files: default.files.iter().map(|file| (*file).to_owned()).collect(),
            why: "the default loader".to_owned(),
        });
    }
    Err(none_for(or_bios(requester.arch)))
}

/// What the firmware of nodes with these profiles gets, for other DHCP servers: how its vendor class begins, its architecture type, and the
/// loader. Of those that match, the one with the longest class counts. Firmware without a loader is left out.
pub fn loaders_of(site: &Site, profiles: &[String]) -> Vec<(String, u16, LoaderChoice)> {
    let rules = site.loaders.iter();
    let mut archs: BTreeSet<u16> = ARCH_TYPES.iter().map(|row| row.number).collect();
    archs.extend(rules.clone().flat_map(|rule| rule.archs.iter().copied()));
    let mut all = Vec::new();
    for arch in archs {
        let kind = arch_type(arch).map_or(PXE_CLIENT, ArchType::client);
        let longer = rules.clone().map(|rule| rule.vendor_class.as_str());
        let longer = longer.filter(|class| class.starts_with(kind));
        // Sorted: a class comes after those that it begins with.
        let classes: BTreeSet<&str> = longer.chain([kind]).collect();
        let mut of_arch: Vec<(String, u16, LoaderChoice)> = Vec::new();
        for class in classes {
            let requester = Requester {
                arch: Some(arch),
                class: class.to_owned(),
                ..Requester::default()
            };
            let Ok(choice) = choose_loader(site, &requester, Some(profiles)) else {
                continue;
            };
            // No file is to be named to it.
            if choice.files.is_empty() {
                continue;
            }
            let shorter = of_arch
                .iter()
                .rev()
                .find(|(shorter, ..)| class.starts_with(shorter.as_str()));
            if shorter.is_none_or(|(.., before)| *before != choice) {
                of_arch.push((class.to_owned(), arch, choice));
            }
        }
        all.extend(of_arch);
    }
    all
}

/// Why firmware gets no loader at all, and the remedies.
fn none_for(arch: u16) -> String {
    let wanted = match arch_type(arch) {
        Some(row) => format!("\"{}\"", row.name),
        None => arch.to_string(),
    };
    format!(
        "no loader for {}, {}: add [loader.NAME] with arch = [{wanted}] to the site file, or choose another boot mode in the machine's \
         firmware setup",
        name_and_number(arch),
        name(arch)
    )
}

fn rank(rule: &LoaderRule, requester: &Requester, profiles: Option<&[String]>) -> Option<Rank> {
    let by_arch = rule.archs.is_empty() || rule.archs.contains(&or_bios(requester.arch));
    if !by_arch || !requester.class.starts_with(&rule.vendor_class) {
        return None;
    }
    let by_profile = match &rule.profiles {
        None => 0,
        // Of a node's profiles the last one wins, and all nodes have `default`, before all others.
        Some(wanted) => {
            let own = profiles?;
            let last = own
                .iter()
                .rposition(|profile| wanted.contains(profile))
                .map(|at| at + 2);
            let default = wanted.iter().any(|profile| profile == "default").then_some(1);
            last.or(default)?
        }
    };
    Some((by_profile, rule.vendor_class.len(), !rule.archs.is_empty()))
}

/// What a rule is for: `x86_64-efi, vendor class HTTPClient, profiles gpu`.
pub fn conditions(rule: &LoaderRule) -> String {
    let mut all = names_of(&rule.archs);
    if !rule.vendor_class.is_empty() {
        all.push(format!("vendor class {}", rule.vendor_class));
    }
    if let Some(profiles) = &rule.profiles {
        all.push(format!("profile {}", profiles.join(", ")));
    }
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const SITE: &str = "[cluster]\nnode-name = \"n{n:02}\"\nnode-address = \"10.5.1.{n}\"\n\
        [[subnet]]\nnetwork = \"10.5.0.0/16\"\nrelayed = true\nserver = \"10.5.0.1\"\n[profile.gpu]\n[profile.big]\n";

    fn site(loaders: &str) -> Site {
        let (site, _) = rackstrap_site::parse(&format!("{SITE}{loaders}"), Path::new("/site.toml"))
            .unwrap_or_else(|e| panic!("{e}"));
        site
    }

    fn asks(arch: Option<u16>, class: &str) -> Requester {
        Requester {
            arch,
            class: class.to_owned(),
            ..Requester::default()
        }
    }

    fn chosen(site: &Site, arch: u16, class: &str, profiles: Option<&[&str]>) -> String {
        let own: Option<Vec<String>> = profiles.map(|all| all.iter().map(|name| (*name).to_owned()).collect());
        match choose_loader(site, &asks(Some(arch), class), own.as_deref()) {
            Ok(choice) => choice.name,
            Err(why) => why,
        }
    }

    #[test]
    fn without_a_section_the_defaults_hold() {
        let site = site("");
        for (arch, name, first) in [
            (None, "bios", "undionly.kpxe"),
            (Some(0), "bios", "undionly.kpxe"),
            (Some(7), "x86_64-efi", "snponly.efi"),
            (Some(9), "x86_64-efi", "snponly.efi"),
            (Some(16), "x86_64-efi", "snponly.efi"),
            (Some(11), "arm64-efi", "snponly-arm64.efi"),
            (Some(19), "arm64-efi", "snponly-arm64.efi"),
        ] {
            let choice = choose_loader(&site, &asks(arch, ""), None).unwrap();
            assert_eq!(
                (choice.name.as_str(), choice.files[0].as_str(), choice.of_site),
                (name, first, false)
            );
        }
        assert_eq!(
            choose_loader(&site, &asks(Some(10), ""), None).unwrap_err(),
            "no loader for arm-efi (10), ARM 32-bit UEFI: add [loader.NAME] with arch = [\"arm-efi\"] to the site file, or choose \
             another boot mode in the machine's firmware setup"
        );
        for (arch, class, name) in [
            (22, "U-Boot.armv8", "u-boot"),
            (0, "U-Boot", "u-boot"),
            (41, "PXEClient:Arch:00000:UNDI:002001", "raspberry-pi"),
        ] {
            let choice = choose_loader(&site, &asks(Some(arch), class), None).unwrap();
            assert_eq!((choice.name.as_str(), choice.files.len()), (name, 0));
        }
        let unheard = choose_loader(&site, &asks(Some(900), ""), None).unwrap_err();
        assert!(unheard.contains("arch = [900]"), "{unheard}");
    }

    #[test]
    fn the_most_particular_one_wins_whatever_the_order() {
        let rules = [
            "[loader.arch]\nfile = \"a\"\narch = [7]\n",
            "[loader.class]\nfile = \"b\"\nvendor-class = \"PXEClient\"\n",
            "[loader.longer]\nfile = \"c\"\nvendor-class = \"PXEClient:Arch:00007\"\n",
            "[loader.both]\nfile = \"d\"\nvendor-class = \"PXEClient:Arch:00007\"\narch = [7]\n",
            "[loader.all-nodes]\nfile = \"e\"\nprofiles = [\"default\"]\narch = [7]\n",
            "[loader.gpu]\nfile = \"f\"\nprofiles = [\"gpu\"]\n",
            "[loader.big]\nfile = \"g\"\nprofiles = [\"big\"]\n",
        ];
        let forwards = site(&rules.concat());
        let backwards = site(&rules.iter().rev().copied().collect::<String>());
        for site in [forwards, backwards] {
            let class = "PXEClient:Arch:00007:UNDI:003016";
            assert_eq!(chosen(&site, 7, "", None), "arch");
            assert_eq!(chosen(&site, 7, "PXEClient:Arch:00009", None), "class");
            assert_eq!(chosen(&site, 9, class, None), "longer");
            assert_eq!(chosen(&site, 7, class, None), "both");
            assert_eq!(chosen(&site, 7, class, Some(&[])), "all-nodes");
            assert_eq!(chosen(&site, 9, class, Some(&[])), "longer");
            assert_eq!(chosen(&site, 7, class, Some(&["big", "gpu"])), "gpu");
            assert_eq!(chosen(&site, 0, "", Some(&["gpu", "big"])), "big");
            assert_eq!(chosen(&site, 11, "", None), "arm64-efi", "the default one");
            // Firmware too old for option 93 is a BIOS, to rules as well.
            assert!(!choose_loader(&site, &asks(None, ""), None).unwrap().of_site);
        }
    }

    #[test]
    fn other_servers_get_a_list_that_gives_each_firmware_the_same_loader() {
        let site = site(
            "[loader.vendor]\nfile = \"v\"\nvendor-class = \"PXEClient:Arch:00007:UNDI:009\"\narch = [7]\n\
             [loader.http]\nfile = \"h\"\nvendor-class = \"HTTPClient\"\narch = [16]\n\
             [loader.gpu]\nfile = \"g\"\nprofiles = [\"gpu\"]\narch = [7, 10]\n",
        );
        let of = |profiles: &[&str]| {
            let own: Vec<String> = profiles.iter().map(|name| (*name).to_owned()).collect();
            let all = loaders_of(&site, &own).into_iter();
            all.map(|(class, arch, choice)| format!("{class} {arch} {}", choice.name))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            of(&[]),
            [
                "PXEClient 0 bios",
                "PXEClient 7 x86_64-efi",
                "PXEClient:Arch:00007:UNDI:009 7 vendor",
                "PXEClient 9 x86_64-efi",
                "PXEClient 11 arm64-efi",
                "HTTPClient 16 http",
                "HTTPClient 19 arm64-efi",
            ]
        );
        // The profile is more particular than the class.
        let gpu = of(&["gpu"]);
        assert_eq!(
            gpu[1..4],
            ["PXEClient 7 gpu", "PXEClient 9 x86_64-efi", "PXEClient 10 gpu"]
        );
    }

    #[test]
    fn a_rule_makes_a_loader_for_firmware_that_has_none() {
        let site = site("[loader.arm]\nfile = \"/srv/arm/snponly.efi\"\narch = [\"arm-efi\"]\n");
        let choice = choose_loader(&site, &asks(Some(10), ""), None).unwrap();
        assert_eq!(choice.files, ["loader.arm/snponly.efi"]);
        assert_eq!(choice.why, "[loader.arm] of the site file, for arm-efi");
    }
}

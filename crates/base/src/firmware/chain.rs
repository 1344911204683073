//! What loaders load in turn: shim starts GRUB, and GRUB has a script of its own language.

use crate::bootname::ScriptLanguage;

/// A program that a loader asks for in the directory that it was loaded from itself, by the same protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Companion {
    /// How the names of the loaders begin that ask for it.
    pub of: &'static str,
    /// The name that they ask for.
    pub asked: &'static str,
    /// The file that Debian and Ubuntu have for it.
    pub file: &'static str,
    /// Whether nothing boots without it.
    pub needed: bool,
}

/// shim asks for the second stage that it was built for (`DEFAULT_LOADER` in its Makefile), and, if a key waits to be enrolled, for its
/// program that does it (`MMNAME`).
pub const COMPANIONS: [Companion; 4] = [
    companion("shimx64.efi", "grubx64.efi", "grubnetx64.efi.signed", true),
    companion("shimx64.efi", "mmx64.efi", "mmx64.efi.signed", false),
    companion("shimaa64.efi", "grubaa64.efi", "grubnetaa64.efi.signed", true),
    companion("shimaa64.efi", "mmaa64.efi", "mmaa64.efi.signed", false),
];

const fn companion(of: &'static str, asked: &'static str, file: &'static str, needed: bool) -> Companion {
    Companion {
        of,
        asked,
        file,
        needed,
    }
}

/// The programs that the loader `file`, a name or a path, asks for.
pub fn companions_of(file: &str) -> impl Iterator<Item = &'static Companion> {
    let name = base(file);
    COMPANIONS
        .iter()
        .filter(move |companion| name.starts_with(companion.of))
}

/// The language of the script that a loader runs in the end, by its name: none if it is not known.
pub fn language_of(file: &str) -> Option<ScriptLanguage> {
    let name = base(file);
    let ipxe = ["undionly", "snponly", "ipxe"];
    match () {
        () if name.starts_with("grub") || companions_of(name).next().is_some() => Some(ScriptLanguage::Grub),
        () if ipxe.iter().any(|known| name.starts_with(known)) => Some(ScriptLanguage::Ipxe),
        () => None,
    }
}

/// The chain that begins with a loader, for people: `shimx64.efi.signed first, then grubx64.efi, then GRUB's script by HTTP or TFTP`.
pub fn chain_of(file: &str) -> String {
    let second = companions_of(file).filter(|companion| companion.needed);
    let mut all: Vec<String> = second.map(|companion| companion.asked.to_owned()).collect();
    all.extend(
        match language_of(file) {
            Some(ScriptLanguage::Grub) => Some("GRUB's script by HTTP or TFTP"),
            Some(ScriptLanguage::Ipxe) => Some("iPXE's script by HTTP"),
            None => None,
        }
        .map(str::to_owned),
    );
    all.insert(0, format!("{file} first"));
    all.join(", then ")
}

fn base(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_known_by_the_name_of_its_first_file() {
        for (file, chain) in [
            (
                "loader.own/shimx64.efi.signed",
                "loader.own/shimx64.efi.signed first, then grubx64.efi, then GRUB's script by HTTP or TFTP",
            ),
            (
                "shimaa64.efi",
                "shimaa64.efi first, then grubaa64.efi, then GRUB's script by HTTP or TFTP",
            ),
            (
                "grubnetx64.efi.signed",
                "grubnetx64.efi.signed first, then GRUB's script by HTTP or TFTP",
            ),
            ("snponly.efi", "snponly.efi first, then iPXE's script by HTTP"),
            ("my-own.efi", "my-own.efi first"),
        ] {
            assert_eq!(chain_of(file), chain);
        }
    }
}

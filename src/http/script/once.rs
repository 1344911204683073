//! Scripts of boots that no image starts: from the node's own disk, memtest86+, and the site's own scripts.

use super::{BUILT_IN, LIMIT_MS, Scripts, card, grub, pauses, script_url, serial};
use minijinja::{Environment, context};
use rackstrap_base::{bootname::ScriptLanguage, pauses::Pauses, words::closest};
use rackstrap_loaders::MEMTEST;
use rackstrap_wire::HwAddr;
use std::path::Path;

/// Largest boot script of the site, in bytes.
const MAX_SCRIPT: u64 = 1 << 20;
/// At most this many boot scripts of the site are read.
const MOST_SCRIPTS: usize = 256;

/// How the names of scripts end that an order can name.
const ENDS: [&str; 3] = [".ipxe.j2", ".grub.j2", ".pxelinux.j2"];

/// The values in a script that starts something which reports nothing.
#[derive(Clone, Debug)]
pub struct UnmanagedScript<'a> {
    /// The name of the node.
    pub node: &'a str,
    /// The card that it booted from.
    pub hwaddr: HwAddr,
    /// `http://10.5.0.1:80`
    pub base: &'a str,
    /// The serial consoles as the kernel takes them, with spaces between them; empty if there is none.
    pub console: &'a str,
    /// Pauses between attempts.
    pub pauses: Pauses,
}

/// The built-in script that `name` is, or probably means; none if it is a name of its own. Scripts of one language differ before its ending only.
pub(super) fn near_built_in(name: &str) -> Option<&'static str> {
    let built_in = || BUILT_IN.files().filter_map(|file| file.path().to_str());
    let Some((end, stem)) = ENDS.iter().find_map(|end| Some((*end, name.strip_suffix(end)?))) else {
        return closest(name, built_in());
    };
    let near = closest(stem, built_in().filter_map(|name| name.strip_suffix(end)))?;
    built_in().find(|name| name.strip_suffix(end) == Some(near))
}

/// Adds the site's own scripts, which orders name. Names that are almost those of built-in scripts are left out, because they are mistakes
/// ([`Scripts::misnamed`]).
pub(super) fn add_own(env: &mut Environment<'static>, site_dir: Option<&Path>) -> Result<(), String> {
    let Some(dir) = site_dir else { return Ok(()) };
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| ENDS.iter().any(|end| name.ends_with(end)) && near_built_in(name).is_none())
        .collect();
    names.sort();
    if names.len() > MOST_SCRIPTS {
        return Err(format!(
            "boot scripts: {} has {} files, and at most {MOST_SCRIPTS} are read; remove some",
            dir.display(),
            names.len()
        ));
    }
    for name in names {
        let path = dir.join(&name);
        let cannot = |why: &dyn std::fmt::Display| format!("boot script {}: cannot read it: {why}", path.display());
        let size = std::fs::metadata(&path).map_err(|e| cannot(&e))?;
        if !size.is_file() || size.len() > MAX_SCRIPT {
            return Err(cannot(&format!("it is not a file of at most {MAX_SCRIPT} bytes")));
        }
        let text = std::fs::read_to_string(&path).map_err(|e| cannot(&e))?;
        env.add_template_owned(name, text)
            .map_err(|e| format!("boot script: {e:#}"))?;
    }
    Ok(())
}

impl Scripts {
    /// Why an order cannot name the script `file`, with the remedy; none if it can.
    pub fn lacks(&self, file: &str) -> Option<String> {
        let own = !BUILT_IN.files().any(|known| known.path().to_str() == Some(file));
        (!own || self.0.get_template(file).is_err()).then(|| {
            format!(
                "the site has no boot script {file}; put it into bootscripts-dir ([server]), then: rackstrap reload"
            )
        })
    }

    /// The script with which the loader starts the system on the node's own disk.
    ///
    /// # Errors
    /// A template of the site is wrong.
    pub fn local(&self, language: ScriptLanguage, script: &UnmanagedScript<'_>) -> Result<String, String> {
        self.unmanaged("local", language, script, "boots from its own disk")
    }

    /// The script with which the loader starts memtest86+.
    ///
    /// # Errors
    /// A template of the site is wrong.
    pub fn memtest(&self, language: ScriptLanguage, script: &UnmanagedScript<'_>) -> Result<String, String> {
        self.unmanaged("memtest", language, script, "tests its memory with memtest86+")
    }

    fn unmanaged(
        &self,
        name: &str,
        language: ScriptLanguage,
        script: &UnmanagedScript<'_>,
        what: &str,
    ) -> Result<String, String> {
        let [bios, efi] = MEMTEST;
        self.render(
            &format!("{name}.{}.j2", language.suffix()),
            context! {
                node => script.node,
                title => grub::word(&format!("rackstrap: {} {what}", script.node)),
                base => script.base,
                bios,
                efi,
                arguments => memtest_console(script.console).unwrap_or_default(),
                card => card(script.hwaddr),
                serial => serial(script.console),
                limit => LIMIT_MS,
                again_url => script_url(script.base, script.hwaddr) + "&failed=${failed}&error=${error}&asked=${asked}",
                ..pauses(&script.pauses)
            },
        )
    }
}

/// The argument by which memtest86+ uses the last serial line (its README, `console=ttySx,bbbbbb`); none without one.
fn memtest_console(console: &str) -> Option<String> {
    let line = console.split_whitespace().last()?;
    let (port, rate) = (line.get(..5)?, line.split_once(',').map_or("9600", |(_, rate)| rate));
    let rate: String = rate.chars().take_while(char::is_ascii_digit).collect();
    (port.starts_with("ttyS") && matches!(port.as_bytes()[4], b'0'..=b'3')).then(|| format!("console={port},{rate}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ScriptLanguage::{Grub, Ipxe, Pxelinux};

    fn script(console: &str) -> UnmanagedScript<'_> {
        UnmanagedScript {
            node: "r01n01",
            hwaddr: "52:54:00:01:01:01".parse().unwrap(),
            base: "http://10.5.0.1:80",
            console,
            pauses: Pauses::spread(1),
        }
    }

    #[test]
    fn each_loader_starts_the_own_disk_and_memtest_in_its_language() {
        let scripts = Scripts::load(None).unwrap();
        let all: Vec<String> = [Ipxe, Grub, Pxelinux]
            .into_iter()
            .flat_map(|language| {
                let script = script("tty1 ttyS0,115200n8");
                let texts = [scripts.local(language, &script), scripts.memtest(language, &script)];
                texts.map(|text| format!("== {language:?}\n{}", text.unwrap()))
            })
            .collect();
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn memtest_prints_on_the_serial_line() {
        for (console, expected) in [
            ("ttyS0,115200n8", Some("console=ttyS0,115200")),
            ("ttyS1", Some("console=ttyS1,9600")),
            ("ttyAMA0,115200", None),
            ("ttyS9", None),
            ("tty", None),
            ("", None),
        ] {
            assert_eq!(memtest_console(console).as_deref(), expected, "{console}");
        }
    }

    #[test]
    fn an_order_names_a_script_of_the_site() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("flash.ipxe.j2"), "#!ipxe\necho {{ node }}\n").unwrap();
        std::fs::write(dir.path().join("nodes.ipxe.j2"), "{{").unwrap();
        let scripts = Scripts::load(Some(dir.path())).unwrap();
        assert_eq!(scripts.lacks("flash.ipxe.j2"), None);
        for file in ["other.ipxe.j2", "nodes.ipxe.j2", "node.ipxe.j2", "../flash.ipxe.j2"] {
            let said = scripts.lacks(file).unwrap();
            assert!(said.contains("rackstrap reload"), "{said}");
        }
        std::fs::write(dir.path().join("wrong.grub.j2"), "{{").unwrap();
        assert!(Scripts::load(Some(dir.path())).is_err_and(|e| e.contains("wrong.grub.j2")));
    }
}

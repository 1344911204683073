//! What a tree says of its modules: the texts of modprobe.d, depmod.d and depmod's indexes, separated by NUL bytes. The import
//! reads them and writes what the agent reads, and both have to mean the same.

use rackstrap_agent::{ModuleConfig, ModuleIndex};
use rackstrap_image::{ModuleTexts, survey_modules};
use rackstrap_modindex::{name_of, plain_path};
use std::collections::BTreeSet;

/// Modules that are looked at one by one.
const LOOKED_AT: usize = 40;

/// One run; true if an initramfs has modules of it.
pub fn run(input: &[u8]) -> bool {
    let mut parts = input.split(|byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let texts = ModuleTexts {
        modprobe: next(),
        depmod: next(),
        dep: next(),
        softdep: next(),
        alias: next(),
        builtin: next(),
    };
    // Names that somebody asks for: what devices and the kernel say.
    let wanted = String::from_utf8_lossy(next()).into_owned();
    let cmdline: Vec<String> = wanted.split_whitespace().map(str::to_owned).collect();
    let Some(survey) = survey_modules(&texts) else {
        return false;
    };
    let index = ModuleIndex::new(&survey.alias, &survey.dep, &survey.softdep, &survey.builtin);
    let config = ModuleConfig::new(&survey.modprobe, &[]);
    let _ = ModuleConfig::new(&survey.modprobe, &cmdline);

    let names: BTreeSet<String> = survey.included.iter().map(|path| name_of(path)).collect();
    assert_eq!(names.len(), survey.included.len(), "one module of each name");
    for path in survey.included.iter().take(LOOKED_AT) {
        // A path never leads out of /lib/modules/RELEASE, and the agent finds the file that the archive has.
        assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..")), "{path:?}");
        let name = name_of(path);
        assert_eq!(index.file(&name), Some(plain_path(path)), "{path:?}");
        let order = index.load_order(&name);
        let unique: BTreeSet<&String> = order.iter().collect();
        assert_eq!(unique.len(), order.len(), "{order:?}");
        assert!(
            order.contains(&name) && order.iter().all(|name| names.contains(name)),
            "{order:?}"
        );

        // No line of a configuration can name a module with a blank.
        if name.contains(char::is_whitespace) {
            continue;
        }
        // Parameters, blacklists and the like say of each module what the image's files say.
        let lines = |keyword: &str| -> Vec<&str> {
            let of_module = |line: &'_ str| -> Option<usize> {
                let rest = line
                    .strip_prefix(keyword)?
                    .strip_prefix(' ')?
                    .strip_prefix(name.as_str())?;
                (rest.is_empty() || rest.starts_with(' ')).then(|| line.len() - rest.len())
            };
            let found = survey.modprobe.lines();
            found
                .filter_map(|line| Some(line[of_module(line)?..].trim_start_matches(' ')))
                .collect()
        };
        assert_eq!(config.parameters(&name), lines("options").join(" "));
        assert_eq!(config.is_blacklisted(&name), !lines("blacklist").is_empty());
        assert_eq!(config.is_blocked(&name), !lines("install").is_empty());
    }
    for name in cmdline.iter().take(LOOKED_AT) {
        config.aliased(name);
        for module in index.resolve(name) {
            index.load_order(&module);
        }
    }
    // What the root needs is forbidden by nothing.
    for name in ["sunrpc", "nfs", "nfsv3", "overlay"]
        .iter()
        .filter(|name| names.contains(**name))
    {
        assert!(!config.is_blacklisted(name) && !config.is_blocked(name), "{name}");
    }
    !survey.included.is_empty()
}

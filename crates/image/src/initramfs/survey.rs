//! Computes the module files of an initramfs from texts alone, without a tree, for fuzzers.

use super::{Modprobe, conf, configuration, depmod::SearchOrder, index_of, select};

/// Kernel release of the texts.
const RELEASE: &str = "6.1";

/// The configuration and the indexes of a tree's modules.
#[derive(Clone, Copy, Debug, Default)]
pub struct ModuleTexts<'a> {
    /// The lines of all files of modprobe.d(5).
    pub modprobe: &'a [u8],
    /// The lines of all files of depmod.d(5).
    pub depmod: &'a [u8],
    /// `modules.dep`
    pub dep: &'a [u8],
    /// `modules.softdep`
    pub softdep: &'a [u8],
    /// `modules.alias`
    pub alias: &'a [u8],
    /// `modules.builtin`
    pub builtin: &'a [u8],
}

/// The module files of the initramfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleSurvey {
    /// Paths of its modules below `/lib/modules/RELEASE`, as in the tree: compressed ones with their suffixes.
    pub included: Vec<String>,
    /// `modules.dep`
    pub dep: String,
    /// `modules.softdep`
    pub softdep: String,
    /// `modules.alias`
    pub alias: String,
    /// `modules.builtin`
    pub builtin: String,
    /// The configuration.
    pub modprobe: String,
}

/// The files for the initramfs. None if `modules.dep` names a module without an entry, which an import refuses.
pub fn survey_modules(texts: &ModuleTexts<'_>) -> Option<ModuleSurvey> {
    let modprobe = conf::joined(texts.modprobe).into_iter();
    let modprobe: Vec<(String, String)> = modprobe.map(|line| (String::new(), line)).collect();
    let modprobe = Modprobe::of_lines(&modprobe);
    let depmod = conf::joined(texts.depmod);
    let order = SearchOrder::parse(depmod.iter().map(String::as_str), RELEASE);
    let read = [texts.dep, texts.softdep, texts.alias, texts.builtin];
    let index = index_of(
        read.map(|text| String::from_utf8_lossy(text).into_owned()),
        &modprobe,
        &order,
    );
    let (included, missing) = index.closure(index.paths().filter(|path| select::is_wanted(path)));
    if !missing.is_empty() {
        return None;
    }
    Some(ModuleSurvey {
        dep: index.reduced_dep(&included),
        softdep: index.reduced_softdep(&included),
        alias: index.reduced_alias(&included),
        builtin: index.builtin().to_owned(),
        modprobe: configuration(&index, &modprobe, &included).0,
        included: included.into_iter().map(str::to_owned).collect(),
    })
}

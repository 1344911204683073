//! `[loader.NAME]`: boot loaders of the site's own, and the firmware that gets them.

use super::{
    LoaderFile, LoaderRule, Profile,
    diagnostic::{Report, quote, shown},
    mount::read_profile,
    section::{Section, article},
};
use rackstrap_base::firmware::{arch_type, class_text, near_name, numbers_of};
use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Component, Path, PathBuf},
};
use toml::{Spanned, de::DeValue};

/// The `file` field of a DHCP message has 128 bytes, one of them the final NUL (RFC 2131 section 2).
const LONGEST: usize = 127;
const ARCH_EXAMPLE: &str = "[\"x86_64-efi\"]";

type Problem = (String, String);

/// A loader, with the place of its section.
pub(super) struct Read {
    pub(super) value: LoaderRule,
    at: Range<usize>,
}

/// One `[loader.NAME]`.
pub(super) fn read(
    report: &mut Report<'_>,
    name: &Spanned<String>,
    section: &Section<'_>,
    profiles: &BTreeMap<String, Profile>,
) -> Option<Read> {
    let own = name.get_ref();
    if !plain(own) || own.len() > 32 || own.starts_with('.') {
        let message = format!("{} is not a loader name", quote(own));
        let help = "write letters, digits, dots, - and _, at most 32, such as [loader.secure-boot]";
        report.error(name.span(), message, help);
        return None;
    }
    section.require(report, "file", "\"snponly.efi\"");
    let file = section.parsed(report, "file", "\"snponly.efi\"", read_file);
    let archs = read_archs(report, section);
    let class = section.parsed(report, "vendor-class", "\"PXEClient:Arch:00007\"", read_class);
    let wanted = section.list(report, "profiles", "[\"compute\"]", |text| read_profile(text, profiles));
    let empty = |key: &str| {
        let list = section.get(key).and_then(|value| value.get_ref().as_array());
        list.is_some_and(|all| all.is_empty())
    };
    for key in ["arch", "profiles"].into_iter().filter(|key| empty(key)) {
        let help = format!("add to the list, or leave '{key}' out for all");
        report.error(
            section.key_at(key),
            format!("'{key}' is empty: no machine gets this loader"),
            help,
        );
    }
    if ["arch", "vendor-class", "profiles"]
        .iter()
        .all(|key| section.get(key).is_none())
    {
        let message = format!(
            "{} has no condition: each machine would get it, whatever its firmware is",
            section.title
        );
        let help = format!("write arch = {ARCH_EXAMPLE}, or 'vendor-class' or 'profiles'");
        report.error(section.at.clone(), message, help);
    }
    let value = LoaderRule {
        name: own.clone(),
        file: file?.into_inner(),
        archs: archs?,
        vendor_class: class.map(Spanned::into_inner).unwrap_or_default(),
        profiles: wanted.map(|all| all.into_iter().map(Spanned::into_inner).collect()),
    };
    let served = value.served();
    if served.len() > LONGEST {
        let message = format!(
            "firmware would ask for {served}, {} bytes, and DHCP has room for {LONGEST}",
            served.len()
        );
        report.error(
            section.key_at("file"),
            message,
            "give the file a shorter name, or the loader",
        );
        return None;
    }
    let at = section.at.clone();
    Some(Read { value, at })
}

/// Reports two loaders of which neither is more particular, although both match the same machine.
pub(super) fn against_each_other(report: &mut Report<'_>, all: &[Read]) {
    for (i, this) in all.iter().enumerate() {
        let Some((other, what)) = all[..i].iter().find_map(|o| Some((o, same(&o.value, &this.value)?))) else {
            continue;
        };
        let message = format!(
            "[loader.{}] in line {} and [loader.{}] in line {} are for the same machines: {what}",
            other.value.name,
            report.line(&other.at),
            this.value.name,
            report.line(&this.at),
        );
        let help = "remove one of them, or give one 'profiles' or a longer 'vendor-class' that the other does not have";
        report.error(this.at.clone(), message, help);
    }
}

/// What both match with the same precedence; none if one is more particular where both match.
///
/// Two vendor classes of which both are prefixes of one text are equal, or one is longer and so more particular. Of two profiles of a
/// node the last one wins, so that two loaders compete only in a profile that both name.
fn same(a: &LoaderRule, b: &LoaderRule) -> Option<String> {
    let mut what = Vec::new();
    match (a.archs.as_slice(), b.archs.as_slice()) {
        ([], []) => what.push("any architecture".to_owned()),
        (a, b) => {
            let number = a.iter().find(|number| b.contains(number))?;
            what.push(rackstrap_base::firmware::name_and_number(*number));
        }
    }
    match (&a.profiles, &b.profiles) {
        (None, None) => {}
        (Some(a), Some(b)) => what.push(format!("profile {}", a.iter().find(|name| b.contains(name))?)),
        _ => return None,
    }
    match (a.vendor_class == b.vendor_class, a.vendor_class.as_str()) {
        (false, _) => return None,
        (true, "") => {}
        (true, class) => what.push(format!("vendor class {class}")),
    }
    Some(what.join(", "))
}

fn plain(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !text.is_empty() && text.bytes().all(good)
}

/// A file below the loader directories, or an absolute path.
fn read_file(text: &str) -> Result<LoaderFile, Problem> {
    let wrong = |why: &str| {
        let help = "write the name of a file below [server] loader-dirs, such as \"snponly.efi\", or a path such as \
                    \"/usr/lib/shim/shimx64.efi.signed\"";
        Err((format!("{} {why}", quote(text)), help.to_owned()))
    };
    let text = text.strip_prefix("./").unwrap_or(text);
    let absolute = text.starts_with('/');
    let path = Path::new(text);
    let mut parts = path.components();
    if absolute {
        parts.next();
    }
    // The name is part of a URL, and of TFTP's request: a blank, % or ? would be another name there.
    let good = |part: Component<'_>| matches!(part, Component::Normal(part) if part.to_str().is_some_and(|part| plain(&part.replace(['+', '@'], ""))));
    match () {
        () if text.is_empty() => wrong("is not a file"),
        () if text.ends_with('/') => wrong("is a directory"),
        () if text.len() > 1000 || path.file_name().is_none() || !parts.all(good) => {
            wrong("is not a file name of letters, digits, dots, -, _, + and @")
        }
        () if absolute => Ok(LoaderFile::Path(PathBuf::from(text))),
        () => Ok(LoaderFile::Named(text.to_owned())),
    }
}

fn read_class(text: &str) -> Result<String, Problem> {
    if text.is_empty() || class_text(text.as_bytes()) != text {
        let help = "write how option 60 of the firmware begins, at most 64 bytes, such as vendor-class = \"PXEClient:Arch:00007\"; \
                    `rackstrap explain NODE` shows it";
        return Err((format!("{} is not a vendor class", quote(text)), help.to_owned()));
    }
    Ok(text.to_owned())
}

/// The numbers of `arch`, sorted; empty without the key. None if a value is wrong.
fn read_archs(report: &mut Report<'_>, section: &Section<'_>) -> Option<Vec<u16>> {
    let Some(value) = section.get("arch") else {
        return Some(Vec::new());
    };
    let Some(items) = value.get_ref().as_array() else {
        let message = format!("'arch' is a list, not {}", article(value.get_ref()));
        let help = match one_arch(report, value) {
            Ok(_) => format!("write arch = [{}]", shown(report.source(&value.span()))),
            Err(_) => format!("write arch = {ARCH_EXAMPLE}"),
        };
        report.error(value.span(), message, help);
        return None;
    };
    let mut all = Vec::new();
    let mut good = true;
    for item in items.iter() {
        match one_arch(report, item) {
            Ok(numbers) => all.extend(numbers),
            Err((message, help)) => {
                report.error(item.span(), message, help);
                good = false;
            }
        }
    }
    all.sort_unstable();
    all.dedup();
    good.then_some(all)
}

/// The numbers of one item of `arch`.
fn one_arch(report: &Report<'_>, item: &Spanned<DeValue<'_>>) -> Result<Vec<u16>, Problem> {
    const NUMBERS: &str = "write a number of option 93 from 0 to 65535, such as 7, or a name such as \"x86_64-efi\"";
    match item.get_ref() {
        DeValue::Integer(number) => {
            match u16::from_str_radix(number.as_str().trim_start_matches('+'), number.radix()) {
                Ok(number) => Ok(vec![number]),
                Err(_) => Err((
                    format!(
                        "{} is not the number of an architecture",
                        shown(report.source(&item.span()))
                    ),
                    NUMBERS.to_owned(),
                )),
            }
        }
        DeValue::String(name) => {
            let numbers = numbers_of(name);
            if !numbers.is_empty() {
                return Ok(numbers);
            }
            let number = name.parse().ok().filter(|number| arch_type(*number).is_some());
            let help = match (number, near_name(name)) {
                (Some(number), _) => format!("write the number without quotes: {number}"),
                (None, Some(near)) => format!("did you mean \"{near}\"?"),
                (None, None) => {
                    "`rackstrap loaders --archs` lists the names; a number of option 93 is possible too".to_owned()
                }
            };
            Err((format!("architecture {} is not known", quote(name)), help))
        }
        other => {
            let message = format!("an architecture is a name or a number, not {}", article(other));
            Err((message, NUMBERS.to_owned()))
        }
    }
}

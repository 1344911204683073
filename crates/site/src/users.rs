//! `[users]`: which of the server's users and groups nodes get.

use super::{
    Users,
    diagnostic::{Report, quote},
    section::Section,
    server::read_path,
};
use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};
use toml::Spanned;

/// The directory of `passwd`, `group` and `shadow` if the section names none.
const FROM: &str = "/etc";
const MOST_EXCLUDED: usize = 1000;

type Problem = (String, String);

pub(super) fn read(report: &mut Report<'_>, section: &Section<'_>, directory: &Path) -> Option<Users> {
    section.require(report, "uid", "\"1000-59999\"");
    let uid = section.parsed(report, "uid", "\"1000-59999\"", |text| read_range("uid", text));
    let gid = section.parsed(report, "gid", "\"1000-59999\"", |text| read_range("gid", text));
    let exclude = section
        .list(report, "exclude", "[\"nobody\"]", read_name)
        .unwrap_or_default();
    if exclude.len() > MOST_EXCLUDED {
        let message = format!(
            "there are {} names in 'exclude', at most {MOST_EXCLUDED}",
            exclude.len()
        );
        report.error(section.key_at("exclude"), message, "choose a narrower range");
    }
    let shadow = section.boolean(report, "shadow");
    let from = section.parsed(report, "from", "\"/etc\"", |text| read_path(text, directory));
    for (key, range) in [("uid", &uid), ("gid", &gid)] {
        // login.defs of Debian and Red Hat begins people's numbers at 1000; lower numbers belong to the distribution.
        if let Some(range) = range.as_ref().filter(|range| *range.get_ref().start() < 500) {
            let message = format!("this range of {key}s contains system users");
            let help = "images have their own system users with other numbers: begin at 1000";
            report.warn(range.span(), message, help);
        }
    }
    let uid = uid?.into_inner();
    if section.get("gid").is_some() && gid.is_none() {
        return None;
    }
    Some(Users {
        gid: gid.map_or_else(|| uid.clone(), Spanned::into_inner),
        uid,
        exclude: exclude.into_iter().map(Spanned::into_inner).collect(),
        shadow: shadow.is_some_and(Spanned::into_inner),
        from: from.map_or_else(|| PathBuf::from(FROM), Spanned::into_inner),
    })
}

fn read_range(key: &str, text: &str) -> Result<RangeInclusive<u32>, Problem> {
    let help = format!("write the first and the last, such as {key} = \"1000-59999\"");
    let number = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse::<u32>().ok())?
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (Some(first), Some(last)) = (number(first.trim()), number(last.trim())) else {
        return Err((format!("{} is not a range of {key}s", quote(text)), help));
    };
    if first == 0 {
        let help = format!("begin at 1000, such as {key} = \"1000-59999\"; root is the image's own");
        return Err((format!("{} contains root", quote(text)), help));
    }
    // -1 means "no change" to chown(2), for 16-bit and for 32-bit callers.
    if first > last || last == u32::MAX {
        return Err((format!("{} is not a range of {key}s", quote(text)), help));
    }
    Ok(first..=last)
}

fn read_name(text: &str) -> Result<String, Problem> {
    match rackstrap_wire::users::valid_name(text) {
        true => Ok(text.to_owned()),
        false => Err((
            format!("{} is not a user or group name", quote(text)),
            "write names as in passwd or group, such as exclude = [\"nobody\"]".to_owned(),
        )),
    }
}

//! `[backup]`: nightly backups of the store, which the daemon makes by itself.

use super::{
    Backup,
    diagnostic::{Report, quote},
    section::Section,
    server::read_path,
};
use rackstrap_base::NIGHTLY_DIR;
use std::path::Path;

/// At most this many backups are kept: those of some years.
const MOST: u64 = 1_000;

pub(super) fn read(
    report: &mut Report<'_>,
    section: Option<&Section<'_>>,
    directory: &Path,
    state_dir: &Path,
) -> Backup {
    let mut backup = Backup {
        keep: 7,
        dir: state_dir.join(NIGHTLY_DIR),
        at: (3, 0),
    };
    let Some(section) = section else { return backup };
    if let Some(keep) = section.integer(report, "keep", 0..=MOST, 7) {
        backup.keep = usize::try_from(keep.into_inner()).unwrap_or(backup.keep);
    }
    let path = |text: &str| read_path(text, directory);
    if let Some(dir) = section.parsed(report, "dir", "\"/var/backups/rackstrap\"", path) {
        backup.dir = dir.into_inner();
    }
    if let Some(at) = section.parsed(report, "at", "\"03:00\"", read_time) {
        backup.at = at.into_inner();
    }
    backup
}

/// Hours and minutes.
fn read_time(text: &str) -> Result<(u8, u8), (String, String)> {
    let digits = |text: &str| match text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse::<u8>().ok(),
        false => None,
    };
    let time = text.split_once(':').and_then(|(hours, minutes)| {
        let (hours, minutes) = (digits(hours)?, digits(minutes)?);
        (hours < 24 && minutes < 60).then_some((hours, minutes))
    });
    time.ok_or_else(|| {
        (
            format!("{} is not a time of day", quote(text)),
            "write hours and minutes of the server's local time, such as at = \"03:00\"".to_owned(),
        )
    })
}

//! The passwords of BMCs: each is one line in a file that only the daemon may read. They are in no argument, log or listing.

use rackstrap_ipmi::{Login, Privilege};
use rustix::fs::OFlags;
use std::{
    fs::OpenOptions,
    io::Read,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

/// A longer file is no password: those of IPMI have at most 20 bytes.
const MOST_BYTES: u64 = 1024;

/// A problem, and its correction.
type Fault = (String, String);

/// Reads the password.
///
/// # Errors
/// The file cannot be read, other users can read it, or it is not one line.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        (
            format!("password file {shown}: {error}"),
            format!("write the password into {shown}"),
        )
    };
    // A named pipe would wait for a writer.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    if !about.is_file() {
        let help = "name a file whose only line is the password".to_owned();
        return Err((format!("password file {shown}: it is not a regular file"), help));
    }
    let mode = about.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let message = format!("password file {shown}: other users than its owner may use it (mode {mode:04o})");
        return Err((message, format!("chmod 600 {shown}")));
    }
    if about.uid() != 0 && about.uid() != rustix::process::geteuid().as_raw() {
        let message = format!(
            "password file {shown}: it belongs to the user {}, who can read it",
            about.uid()
        );
        return Err((message, format!("chown root {shown}")));
    }
    let mut text = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut text).map_err(unreadable)?;
    let line = text.strip_suffix(b"\n").unwrap_or(&text);
    if line.is_empty() || text.len() as u64 > MOST_BYTES || line.iter().any(u8::is_ascii_control) {
        let help = format!("write the password as the only line of {shown}");
        return Err((
            format!("password file {shown}: it is not one line with a password"),
            help,
        ));
    }
    Ok(line.to_vec())
}

/// Why the file cannot be used; none if it can.
pub fn fault(path: &Path) -> Option<(String, String)> {
    let password = match read(path) {
        Ok(password) => password,
        Err(fault) => return Some(fault),
    };
    let error = Login::new("", &password, Privilege::Operator).err()?;
    Some((
        format!("password file {}: {error}", path.display()),
        "give the BMC's user a shorter password, and write it into the file".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn a_password_is_one_line_that_only_its_owner_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let with = |text: &[u8], mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            read(&path).map_err(|(message, _)| message.rsplit(": ").next().unwrap_or_default().to_owned())
        };
        assert_eq!(with(b"geheim\n", 0o600), Ok(b"geheim".to_vec()));
        assert_eq!(with(b" two words ", 0o400), Ok(b" two words ".to_vec()));
        let wrong = |text: &str| Err(text.to_owned());
        let others = wrong("other users than its owner may use it (mode 0640)");
        assert_eq!(with(b"geheim\n", 0o640), others);
        fs::remove_file(&path).unwrap();
        for text in [&b""[..], b"\n", b"one\ntwo\n", b"a\0b", &[b'x'; 2000]] {
            assert_eq!(with(text, 0o600), wrong("it is not one line with a password"));
        }
        let none = dir.path().join("none");
        assert!(fault(&none).unwrap().0.contains("No such file"));
        assert!(fault(dir.path()).unwrap().0.ends_with("it is not a regular file"));
        // A pipe without a writer.
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        assert!(fault(&pipe).unwrap().0.ends_with("it is not a regular file"));
        assert_eq!(with(&[b'x'; 21], 0o600), Ok(vec![b'x'; 21]));
        assert!(fault(&path).unwrap().0.ends_with("more than 20 bytes"));
    }
}

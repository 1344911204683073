//! Parses and writes lines of passwd(5), group(5) and shadow(5).

use serde::{Deserialize, Serialize};

/// A user of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Number of the primary group.
    pub gid: u32,
    /// Full name and other information.
    pub gecos: String,
    /// Home directory.
    pub home: String,
    /// Login shell; empty means /bin/sh.
    pub shell: String,
    /// The fields of shadow after the name. None for a user without a password, who can only log in with a key.
    #[serde(skip)]
    pub shadow: Option<String>,
}

/// A group of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Name of the group.
    pub name: String,
    /// Group id.
    pub gid: u32,
    /// Names of users who have it in addition to their primary group.
    pub members: Vec<String>,
}

/// Most bytes of a line. Only a large group's entry comes near; glibc's buffers grow.
const LONGEST: usize = 64 << 10;

/// True for a name that useradd(8) accepts with the usual settings, including capitals and dots. Fields of the files end at `:`, and
/// names in lists end at `,`.
pub fn valid_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let first = bytes.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
    // Machine accounts of Samba end with $.
    let stem = bytes.strip_suffix(b"$").unwrap_or(bytes);
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    first && name.len() <= 64 && stem.iter().all(plain)
}

/// The lines of a file with their numbers, from 1, without empty lines and comments. A line that is not text is an error.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, Result<&str, String>)> {
    let lines = bytes.split(|b| *b == b'\n').enumerate();
    lines.filter_map(|(index, line)| {
        if line.is_empty() || line.starts_with(b"#") {
            return None;
        }
        let text = match std::str::from_utf8(line) {
            _ if line.len() > LONGEST => Err(format!("the line is longer than {} KiB", LONGEST >> 10)),
            Err(_) => Err("it is not UTF-8".to_owned()),
            Ok(text) if text.chars().any(char::is_control) => Err("it has control characters in it".to_owned()),
            Ok(text) if text.starts_with(['+', '-']) => Err("it refers to NIS, which nodes do not use".to_owned()),
            Ok(text) => Ok(text),
        };
        Some((index + 1, text))
    })
}

/// The fields of a line. They are not an array of `right` elements, because that would generate code for each number.
fn fields(line: &str, right: usize) -> Result<Vec<&str>, String> {
    let all: Vec<&str> = line.split(':').collect();
    match all.len() == right {
        true => Ok(all),
        false => Err(format!("it should have {right} fields, and has {}", all.len())),
    }
}

fn name(text: &str) -> Result<String, String> {
    match valid_name(text) {
        true => Ok(text.to_owned()),
        false => Err("its name has characters that are not allowed in names of users and groups".to_owned()),
    }
}

fn number(text: &str, what: &str) -> Result<u32, String> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = plain.then(|| text.parse().ok()).flatten();
    // chown(2) interprets -1 as "no change".
    number
        .filter(|n| *n != u32::MAX)
        .ok_or_else(|| format!("its {what} is not a number from 0 to 4294967294"))
}

impl User {
    /// Its line of passwd, with the line break.
    pub(super) fn line(&self, password: &str) -> String {
        let User {
            name,
            uid,
            gid,
            gecos,
            home,
            shell,
            ..
        } = self;
        format!("{name}:{password}:{uid}:{gid}:{gecos}:{home}:{shell}\n")
    }
}

impl Group {
    /// Its line of group, with the line break.
    pub(super) fn line(&self) -> String {
        group_line(&self.name, self.gid, &self.members.join(","))
    }
}

pub(super) fn group_line(name: &str, gid: u32, members: &str) -> String {
    format!("{name}:x:{gid}:{members}\n")
}

/// `name:password:uid:gid:gecos:home:shell`
///
/// # Errors
/// The fault of the line. The text quotes nothing of the line except a name.
pub fn user(line: &str) -> Result<User, String> {
    let all = fields(line, 7)?;
    let (login, uid, gid, gecos, home, shell) = (all[0], all[2], all[3], all[4], all[5], all[6]);
    let path = |text: &str| text.starts_with('/') && !text.split('/').any(|part| part == "..");
    let user = User {
        name: name(login)?,
        uid: number(uid, "uid")?,
        gid: number(gid, "gid")?,
        gecos: gecos.to_owned(),
        home: home.to_owned(),
        shell: shell.to_owned(),
        shadow: None,
    };
    match (path(home), shell.is_empty() || path(shell)) {
        (true, true) => Ok(user),
        (false, _) => Err("its home directory is not an absolute path".to_owned()),
        (_, false) => Err("its shell is not an absolute path".to_owned()),
    }
}

/// `name:password:gid:members`
///
/// # Errors
/// As for [`user`].
pub fn group(line: &str) -> Result<Group, String> {
    let all = fields(line, 4)?;
    let (group, gid, members) = (all[0], all[2], all[3]);
    let members = members.split(',').filter(|member| !member.is_empty());
    Ok(Group {
        name: name(group)?,
        gid: number(gid, "gid")?,
        members: members
            .map(|member| name(member).map_err(|_| "it has a member with an invalid name".to_owned()))
            .collect::<Result<_, _>>()?,
    })
}

/// `name:hash:changed:min:max:warn:inactive:expire:reserved`: returns the name and all fields after it.
///
/// # Errors
/// As for [`user`]; an empty password is also an error.
pub fn shadow(line: &str) -> Result<(String, String), String> {
    let all = fields(line, 9)?;
    let (login, hash, ageing) = (all[0], all[1], &all[2..]);
    if hash.is_empty() {
        return Err("it has an empty password, with which any user could log in".to_owned());
    }
    if !hash.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("its password is not a hash".to_owned());
    }
    let days = |text: &&str| {
        text.is_empty()
            || text
                .strip_prefix('-')
                .unwrap_or(text)
                .bytes()
                .all(|b| b.is_ascii_digit())
    };
    match ageing.iter().all(days) {
        true => Ok((name(login)?, format!("{hash}:{}", ageing.join(":")))),
        false => Err("its dates are not numbers of days".to_owned()),
    }
}

//! The author of a change: taken from the kernel's record of the requesting process, never from the process's own data.

use std::fs;

/// The author for histories: the user of a process, and the user who logged in if that is another one: `root (login: alice)`.
///
/// The login is the kernel's record of the session (`/proc/PID/loginuid`, audit(7)). Root can start a process with another
/// login, so the login is shown as a login only.
pub fn of_process(uid: u32, pid: u32) -> String {
    let login = fs::read_to_string(format!("/proc/{pid}/loginuid")).unwrap_or_default();
    named(uid, login.trim().parse().ok(), &user)
}

/// The author of changes that this process makes by itself.
pub fn own() -> String {
    of_process(rustix::process::geteuid().as_raw(), std::process::id())
}

fn named(uid: u32, login: Option<u32>, name: &dyn Fn(u32) -> String) -> String {
    match login {
        // -1 means a process without a login, such as a service.
        Some(login) if login != u32::MAX && login != uid => format!("{} (login: {})", name(uid), name(login)),
        _ => name(uid),
    }
}

/// The name of a uid by `/etc/passwd`, or its number.
fn user(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| uid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_names() {
        assert_eq!(user(0), "root");
        assert_eq!(user(u32::MAX - 7), (u32::MAX - 7).to_string());
    }

    #[test]
    fn the_login_is_shown_in_addition_to_the_user() {
        let name = |uid: u32| ["root", "alice"][uid as usize].to_owned();
        for (uid, login, shown) in [
            (0, None, "root"),
            (0, Some(u32::MAX), "root"),
            (0, Some(0), "root"),
            (0, Some(1), "root (login: alice)"),
            (1, Some(1), "alice"),
        ] {
            assert_eq!(named(uid, login, &name), shown);
        }
    }
}

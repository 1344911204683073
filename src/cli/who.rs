//! Who types: for the history of changes.

use std::fs;

/// The user behind root: who called sudo, or else who logged in (`/proc/self/loginuid`, audit(7)), or else who runs this.
pub fn who() -> String {
    let own = user(rustix::process::geteuid().as_raw());
    let behind = std::env::var("SUDO_USER")
        .ok()
        .filter(|name| !name.is_empty())
        .or_else(|| {
            let login = fs::read_to_string("/proc/self/loginuid").ok()?;
            // -1: nobody logged in, a service for instance.
            login.trim().parse().ok().filter(|uid| *uid != u32::MAX).map(user)
        });
    match behind {
        Some(name) if name != own => format!("{name} as {own}"),
        _ => own,
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
}

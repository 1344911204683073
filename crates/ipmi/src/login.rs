//! Who logs in to a BMC: names, passwords and privileges, within the specification's limits (pure).

use std::fmt;
use thiserror::Error;

/// Most bytes of a user's name (22.28 of "IPMI Specification, v2.0, rev. 1.1").
const MOST_NAME: usize = 16;
/// Most bytes of a password (22.30).
const MOST_PASSWORD: usize = 20;

/// The most that a session may do (6.8). A session gets exactly this privilege, or fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// Also switch the power.
    Operator,
    /// Everything.
    Administrator,
}

impl Privilege {
    /// The specification's number (table 13-9).
    pub(crate) fn number(self) -> u8 {
        match self {
            Privilege::Operator => 3,
            Privilege::Administrator => 4,
        }
    }
}

/// A user of a BMC with the password. No text shows the password.
#[derive(Clone)]
pub struct Login {
    user: String,
    password: Vec<u8>,
    privilege: Privilege,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Login { user, privilege, .. } = self;
        write!(f, "Login {{ {user:?} as {privilege:?} }}")
    }
}

/// Why a name or password cannot be one of a BMC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LoginError {
    /// The name is too long.
    #[error("the user's name has more than {MOST_NAME} bytes")]
    LongName,
    /// The password is too long.
    #[error("the password has more than {MOST_PASSWORD} bytes")]
    LongPassword,
    /// The password has a zero byte, which BMCs take as its end.
    #[error("the password has a zero byte")]
    ZeroByte,
}

impl Login {
    /// The login of `user`.
    ///
    /// # Errors
    /// A BMC cannot have such a user, or such a password.
    pub fn new(user: &str, password: &[u8], privilege: Privilege) -> Result<Login, LoginError> {
        if user.len() > MOST_NAME {
            return Err(LoginError::LongName);
        }
        if password.len() > MOST_PASSWORD {
            return Err(LoginError::LongPassword);
        }
        if password.contains(&0) {
            return Err(LoginError::ZeroByte);
        }
        Ok(Login {
            user: user.to_owned(),
            password: password.to_vec(),
            privilege,
        })
    }

    pub(crate) fn user(&self) -> &[u8] {
        self.user.as_bytes()
    }

    pub(crate) fn password(&self) -> &[u8] {
        &self.password
    }

    pub(crate) fn privilege(&self) -> Privilege {
        self.privilege
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords_have_the_limits_of_ipmi() {
        let login = |user: &str, password: &[u8]| Login::new(user, password, Privilege::Operator).map(drop);
        assert_eq!(login(&"u".repeat(16), &[b'p'; 20]), Ok(()));
        assert_eq!(login(&"u".repeat(17), b"p"), Err(LoginError::LongName));
        assert_eq!(login("u", &[b'p'; 21]), Err(LoginError::LongPassword));
        assert_eq!(login("u", b"a\0b"), Err(LoginError::ZeroByte));
    }

    #[test]
    fn no_text_shows_the_password() {
        let login = Login::new("admin", b"geheim", Privilege::Operator).unwrap();
        assert_eq!(format!("{login:?}"), "Login { \"admin\" as Operator }");
    }
}

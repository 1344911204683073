//! Why a BMC did not do what it was asked, in words.

use std::fmt;
use thiserror::Error;

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The first message of a login.
    OpenSession,
    /// RAKP message 1, which names the user.
    User,
    /// RAKP message 3, which proves the password.
    Password,
    /// Set Session Privilege Level.
    Privilege,
    /// A command, by the name that the specification gives it.
    Command(&'static str),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::OpenSession => "opening a session",
            Step::User => "logging in (RAKP message 1)",
            Step::Password => "logging in (RAKP message 3)",
            Step::Privilege => "setting the privilege of the session",
            Step::Command(name) => name,
        })
    }
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No answer, after this many requests.
    Silent {
        /// Number of requests.
        tries: u32,
    },
    /// The BMC refused a message of the login, with this status (table 13-15).
    Refused(u8),
    /// The BMC proved another password than the site's.
    OtherPassword,
    /// The BMC does not know the cipher suites that were offered, or chose another one.
    CipherSuite,
    /// The BMC refused a command, with this completion code (table 5-2).
    Completion(u8),
    /// The answer to a command is not as long as the specification wants it, or has values that do not exist.
    Malformed,
    /// The socket failed.
    Socket(String),
}

/// A step that failed, and why.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Failure {
    /// What was being done.
    pub step: Step,
    /// Why it failed.
    pub reason: Reason,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { step, reason } = self;
        match reason {
            Reason::Silent { tries } => write!(f, "{step}: no answer to {tries} requests"),
            Reason::Refused(status) => write!(f, "{step}: {} (status {status:#04x})", status_text(*status)),
            Reason::OtherPassword => write!(f, "{step}: the BMC has another password for this user"),
            Reason::CipherSuite => write!(f, "{step}: the BMC accepts neither cipher suite 17 nor 3"),
            Reason::Completion(code) => {
                write!(
                    f,
                    "{step}: {} (completion code {code:#04x})",
                    completion_text(*step, *code)
                )
            }
            Reason::Malformed => write!(f, "{step}: the BMC's answer is malformed"),
            Reason::Socket(error) => write!(f, "{step}: {error}"),
        }
    }
}

/// Statuses of Open Session Response and RAKP messages (table 13-15).
mod status {
    pub const NO_RESOURCES: u8 = 0x01;
    pub const INVALID_SESSION: u8 = 0x02;
    pub const INVALID_ROLE: u8 = 0x09;
    pub const UNAUTHORIZED_ROLE: u8 = 0x0a;
    pub const NO_RESOURCES_FOR_ROLE: u8 = 0x0b;
    pub const INVALID_NAME_LENGTH: u8 = 0x0c;
    pub const UNAUTHORIZED_NAME: u8 = 0x0d;
    pub const INVALID_CHECK_VALUE: u8 = 0x0f;
}

/// Statuses by which a BMC refuses the algorithms of a cipher suite: of authentication, integrity, confidentiality, and all together.
const OTHER_SUITE: [u8; 6] = [0x04, 0x05, 0x06, 0x07, 0x10, 0x11];

/// "Command not supported in present state" (table 5-2).
const PRESENT_STATE: u8 = 0xd5;

impl Failure {
    pub(crate) fn new(step: Step, reason: Reason) -> Failure {
        Failure { step, reason }
    }

    /// What an administrator can do about it, in one sentence.
    pub fn remedy(&self) -> &'static str {
        match self.reason {
            Reason::Silent { .. } => "check the BMC's address, its cable, and that IPMI over LAN is on",
            Reason::Refused(status::NO_RESOURCES | status::NO_RESOURCES_FOR_ROLE) => {
                "all sessions of the BMC are in use; they end after 60 s without a command, or with a cold reset of the BMC"
            }
            Reason::Refused(status::INVALID_ROLE | status::UNAUTHORIZED_ROLE) => {
                "give the user the privilege Operator or Administrator on the BMC's LAN channel"
            }
            Reason::Refused(status::UNAUTHORIZED_NAME | status::INVALID_NAME_LENGTH) => {
                "check `bmc-user`, and that the user is enabled for the BMC's LAN channel"
            }
            Reason::Refused(status::INVALID_CHECK_VALUE) | Reason::OtherPassword => {
                "check the file of `bmc-password-file`, and that the BMC has no second key (K_G)"
            }
            Reason::CipherSuite => "enable cipher suite 17 or 3 on the BMC",
            Reason::Completion(PRESENT_STATE) => "the machine's present power state does not allow it",
            Reason::Completion(0x80 | 0x81) if self.step == Step::Privilege => {
                "give the user the privilege Operator or Administrator on the BMC's LAN channel"
            }
            Reason::Completion(0xd4) => {
                "give the user the privilege Operator or Administrator on the BMC's LAN channel"
            }
            Reason::Completion(0xc0 | 0xc3 | 0xd1 | 0xd2) => "wait until the BMC is idle, and repeat the command",
            Reason::Refused(_) | Reason::Completion(_) | Reason::Malformed => {
                "compare with `ipmitool -I lanplus`, and update the BMC's firmware"
            }
            Reason::Socket(_) => "check the route from this server to the BMC",
        }
    }

    /// Whether the BMC refused the cipher suite, so that the other one may be accepted.
    pub(crate) fn is_of_suite(&self) -> bool {
        match self.reason {
            Reason::CipherSuite => true,
            Reason::Refused(status) => self.step == Step::OpenSession && OTHER_SUITE.contains(&status),
            _ => false,
        }
    }

    /// Whether a new login may succeed: the BMC forgot the session, or an answer to the last message of the login was lost. A BMC accepts
    /// that message only once.
    pub(crate) fn is_of_lost_login(&self) -> bool {
        self.step == Step::Password
            && matches!(
                self.reason,
                Reason::Silent { .. } | Reason::Refused(status::INVALID_SESSION | 0x08)
            )
    }
}

/// The meaning of a status (table 13-15).
fn status_text(status: u8) -> &'static str {
    match status {
        status::NO_RESOURCES => "no free session",
        status::INVALID_SESSION => "invalid session ID",
        0x03 => "invalid payload type",
        0x04 => "invalid authentication algorithm",
        0x05 => "invalid integrity algorithm",
        0x06 => "no matching authentication payload",
        0x07 => "no matching integrity payload",
        0x08 => "inactive session ID",
        status::INVALID_ROLE => "invalid role",
        status::UNAUTHORIZED_ROLE => "the user may not have this privilege",
        status::NO_RESOURCES_FOR_ROLE => "no free session with this privilege",
        status::INVALID_NAME_LENGTH => "invalid length of the user's name",
        status::UNAUTHORIZED_NAME => "unknown user",
        0x0e => "unauthorized GUID",
        status::INVALID_CHECK_VALUE => "wrong password",
        0x10 => "invalid confidentiality algorithm",
        0x11 => "no cipher suite match",
        0x12 => "illegal or unrecognized parameter",
        _ => "unknown status",
    }
}

/// The meaning of a completion code (table 5-2, and those of Set Session Privilege Level, 22.18).
fn completion_text(step: Step, code: u8) -> &'static str {
    match code {
        0x80 if step == Step::Privilege => "the user may not have this privilege",
        0x81 if step == Step::Privilege => "the channel or the user limits the privilege",
        0xc0 => "the BMC is busy",
        0xc1 => "invalid command",
        0xc2 => "invalid command for this LUN",
        0xc3 => "timeout in the BMC",
        0xc4 => "out of space",
        0xc5 => "reservation cancelled",
        0xc6 => "request data truncated",
        0xc7 => "invalid length of the request",
        0xc8 => "length limit exceeded",
        0xc9 => "parameter out of range",
        0xca => "cannot return this number of bytes",
        0xcb => "sensor, data or record not present",
        0xcc => "invalid data field in the request",
        0xcd => "command illegal for this sensor or record",
        0xce => "the response could not be provided",
        0xcf => "duplicated request",
        0xd0 => "SDR repository in update mode",
        0xd1 => "firmware update mode",
        0xd2 => "the BMC is starting",
        0xd3 => "destination unavailable",
        0xd4 => "insufficient privilege",
        PRESENT_STATE => "not supported in the present state",
        0xd6 => "sub-function disabled",
        0xff => "unspecified error",
        0x80..=0xbe => "error of this command",
        _ => "error of the manufacturer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_name_step_code_and_remedy() {
        for (step, reason, text) in [
            (
                Step::OpenSession,
                Reason::Silent { tries: 4 },
                "opening a session: no answer to 4 requests",
            ),
            (
                Step::OpenSession,
                Reason::Refused(0x01),
                "opening a session: no free session (status 0x01)",
            ),
            (
                Step::User,
                Reason::Refused(0x0d),
                "logging in (RAKP message 1): unknown user (status 0x0d)",
            ),
            (
                Step::Privilege,
                Reason::Completion(0x81),
                "setting the privilege of the session: the channel or the user limits the privilege (completion code 0x81)",
            ),
            (
                Step::Command("Chassis Control"),
                Reason::Completion(0xd5),
                "Chassis Control: not supported in the present state (completion code 0xd5)",
            ),
        ] {
            assert_eq!(Failure::new(step, reason).to_string(), text);
        }
        for code in 0..=u8::MAX {
            for reason in [Reason::Refused(code), Reason::Completion(code)] {
                let failure = Failure::new(Step::Privilege, reason);
                assert!(!failure.remedy().is_empty() && !failure.to_string().is_empty());
            }
        }
    }
}

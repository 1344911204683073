//! What a loader reports about its last attempt when it asks for its script again (pure).

use rackstrap_registries::timeline::LoaderStep;

/// At most this many failed requests are believed at once; a loader that asks for a day makes some thousands.
const MOST_ASKED: u64 = 100_000;
/// iPXE's number of EINVAL, in bits 30 to 24 of an error (include/errno.h): what an iPXE says that does not know an option.
const EINVAL: u32 = 0x1c;

/// The failure of a loader's last attempt. All of it comes from the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// The step; none if its name is unknown.
    pub step: Option<LoaderStep>,
    /// iPXE's error; none if it gave none.
    error: Option<u32>,
    /// How often it asked for its script in vain before this request.
    pub asked: u64,
}

impl FailedAttempt {
    /// Reads the values of a query. Anything that is not as our scripts write it counts as missing.
    pub fn read(failed: &str, error: &str, asked: &str) -> Self {
        FailedAttempt {
            step: LoaderStep::of_script(failed),
            error: number(error).filter(|error| (1..=i32::MAX as u32).contains(error)),
            asked: times(asked),
        }
    }

    /// Whether its iPXE may not know an option of the script.
    pub fn may_lack_options(&self) -> bool {
        self.error.is_some_and(|error| error >> 24 == EINVAL)
    }

    /// The text for the timeline: `its kernel did not load: connection timed out (iPXE error 4c0a6035); asked 3 times in vain`.
    pub fn describe(&self) -> String {
        let what = match self.step {
            Some(LoaderStep::Kernel) => "its kernel did not load",
            Some(LoaderStep::Initramfs) => "its initramfs did not load",
            Some(LoaderStep::Boot) => "its kernel did not start",
            Some(LoaderStep::Script) | None => "it had no usable script",
        };
        let why = self.error.map(|error| match meaning(error >> 24) {
            "" => format!(": iPXE error {error:08x}"),
            meaning => format!(": {meaning} (iPXE error {error:08x})"),
        });
        let asked = match self.asked {
            0 => String::new(),
            1 => "; asked once in vain".to_owned(),
            times => format!("; asked {times} times in vain"),
        };
        format!("{what}{}{asked}", why.unwrap_or_default())
    }
}

/// A number of requests in vain; 0 if it is none or empty.
pub fn times(text: &str) -> u64 {
    text.parse().unwrap_or(0).min(MOST_ASKED)
}

/// iPXE writes its error as `0x4c0a6035`.
fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Meanings of the POSIX part of iPXE's errors that boots meet (include/errno.h of iPXE); empty for others.
fn meaning(posix: u32) -> &'static str {
    match posix {
        0x02 => "permission denied",
        0x04 => "no address",
        0x0b => "stopped at the keyboard",
        0x0d => "connection aborted",
        0x0e => "connection refused",
        0x0f => "connection reset",
        0x17 => "host unreachable",
        EINVAL => "refused by this iPXE as invalid",
        0x1d => "input or output error",
        0x26 => "network is down",
        0x28 => "network unreachable",
        0x2d => "not found",
        0x2e => "not a program that it can start",
        0x31 => "not enough memory",
        0x3e => "not permitted",
        0x4c => "connection timed out",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_script_sends_is_put_in_words() {
        let read = |failed, error, asked| FailedAttempt::read(failed, error, asked).describe();
        assert_eq!(
            read("kernel", "0x4c0a6035", "3"),
            "its kernel did not load: connection timed out (iPXE error 4c0a6035); asked 3 times in vain"
        );
        assert_eq!(read("boot", "", "1"), "its kernel did not start; asked once in vain");
        assert_eq!(
            read("initramfs", "2130706432", ""),
            "its initramfs did not load: iPXE error 7f000000"
        );
        assert_eq!(read("../..", "-1", "x"), "it had no usable script");
    }

    #[test]
    fn an_unknown_option_is_recognised() {
        let lacks = |error: u32| FailedAttempt::read("kernel", &error.to_string(), "0").may_lack_options();
        assert!(lacks(0x1c25_e082));
        assert!(!lacks(0x4c0a_6035));
        assert!(!FailedAttempt::read("kernel", "", "0").may_lack_options());
    }

    #[test]
    fn a_number_that_is_none_counts_as_none() {
        let read = [
            "5",
            "",
            "-1",
            "${tried}",
            "0x5",
            "99999999999",
            "100001",
            "18446744073709551616",
        ]
        .map(times);
        assert_eq!(read, [5, 0, 0, 0, 0, MOST_ASKED, MOST_ASKED, 0]);
    }

    proptest! {
        #[test]
        fn hostile_values_are_bounded(failed: String, error: String, asked: String) {
            let attempt = FailedAttempt::read(&failed, &error, &asked);
            prop_assert!(attempt.asked <= MOST_ASKED);
            prop_assert!(attempt.describe().len() < 200);
            prop_assert!(times(&asked) <= MOST_ASKED);
        }
    }
}

//! File names: one form for every way that firmware writes them.

use super::packet::ErrorCode;

/// Why a file is not served; becomes an ERROR packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Code of the ERROR packet.
    pub code: ErrorCode,
    /// Text of the ERROR packet, shown on the node's screen by most firmware.
    pub message: String,
}

impl Refusal {
    /// A refusal with its text.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Refusal {
            code,
            message: message.into(),
        }
    }
}

/// Turns a request's file name into the one that is looked up: components joined by single slashes, none in front.
///
/// Backslashes separate as slashes do (Windows boot managers write `\Boot\BCD`). Names that leave the root by `..`,
/// that are empty, end in a separator, hold control characters or are not UTF-8 are refused.
pub fn normalise(name: &[u8]) -> Result<String, Refusal> {
    // Intel's older PXE ROMs take a DHCP boot file name past its end up to the option field's 255 end mark. No UTF-8 has this byte.
    let end = name.iter().rposition(|byte| *byte != 0xff).map_or(0, |last| last + 1);
    let name = &name[..end];
    let text = std::str::from_utf8(name)
        .map_err(|_| Refusal::new(ErrorCode::NotFound, "the file name is not UTF-8, so no file has it"))?;
    if text.chars().any(char::is_control) {
        return Err(Refusal::new(
            ErrorCode::AccessViolation,
            "the file name holds control characters",
        ));
    }
    let mut parts = Vec::new();
    for part in text.split(['/', '\\']) {
        match part {
            "" | "." => {}
            ".." => {
                return Err(Refusal::new(
                    ErrorCode::AccessViolation,
                    "file names with `..` are not served",
                ));
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err(Refusal::new(ErrorCode::NotFound, "the file name is empty"));
    }
    if text.ends_with(['/', '\\']) || text.ends_with("/.") || text.ends_with("\\.") {
        return Err(Refusal::new(
            ErrorCode::NotFound,
            "the name is a directory's, and only files are served",
        ));
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings_of_one_file() {
        for name in [
            &b"undionly.kpxe"[..],
            b"/undionly.kpxe",
            b"//undionly.kpxe",
            b"./undionly.kpxe",
            b"undionly.kpxe\xff",
            b"undionly.kpxe\xff\xff",
            b"\\undionly.kpxe",
            b"\\\\undionly.kpxe\xff",
            b".\\/undionly.kpxe",
        ] {
            assert_eq!(normalise(name).as_deref(), Ok("undionly.kpxe"));
        }
        assert_eq!(normalise(b"\\Boot\\BCD").as_deref(), Ok("Boot/BCD"));
        assert_eq!(
            normalise(b"/grub//x86_64-efi/./fs.lst").as_deref(),
            Ok("grub/x86_64-efi/fs.lst")
        );
        assert_eq!(normalise(b"..a/b..").as_deref(), Ok("..a/b.."));
    }

    #[test]
    fn refused_names() {
        for (name, code) in [
            (&b""[..], ErrorCode::NotFound),
            (b"/", ErrorCode::NotFound),
            (b"\\", ErrorCode::NotFound),
            (b"\xff", ErrorCode::NotFound),
            (b"\\\xff", ErrorCode::NotFound),
            (b"a\xffb", ErrorCode::NotFound),
            (b"dir\\", ErrorCode::NotFound),
            (b"\\..\\secret", ErrorCode::AccessViolation),
            (b".", ErrorCode::NotFound),
            (b"dir/", ErrorCode::NotFound),
            (b"dir/.", ErrorCode::NotFound),
            (b"\xc3\x28", ErrorCode::NotFound),
            (b"..", ErrorCode::AccessViolation),
            (b"../etc/shadow", ErrorCode::AccessViolation),
            (b"/a/../../etc/shadow", ErrorCode::AccessViolation),
            (b"a\\..\\..\\etc", ErrorCode::AccessViolation),
            (b"a\0b", ErrorCode::AccessViolation),
            (b"a\nb", ErrorCode::AccessViolation),
        ] {
            assert_eq!(normalise(name).unwrap_err().code, code, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_name_has_no_parent_directory_and_stays_the_same(name in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), Just(b'\\'), any::<u8>()], 0..40)) {
            if let Ok(name) = normalise(&name) {
                prop_assert!(!name.contains(['\0', '\\']));
                prop_assert!(name.split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
                prop_assert_eq!(normalise(name.as_bytes()), Ok(name.clone()));
            }
        }
    }
}

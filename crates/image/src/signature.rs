//! Whether a kernel is signed for Secure Boot (pure but for the reading of the file).

use std::{fs::File, io::Read, path::Path};

/// Bytes from the beginning of a kernel that have its headers: those of Debian's kernels end before 1 KiB.
const HEADERS: u64 = 4096;

/// Whether the kernel at `path` has a signature; none if it is not an EFI program, or cannot be read. Whose signature it is, and whether
/// firmware trusts it, is not looked at.
pub fn kernel_is_signed(path: &Path) -> Option<bool> {
    let mut headers = Vec::new();
    File::open(path).ok()?.take(HEADERS).read_to_end(&mut headers).ok()?;
    is_signed(&headers)
}

/// The same for the first bytes of a file: an EFI program is signed if its certificate table is not empty (PE format, "Optional Header Data
/// Directories": the fifth one).
pub fn is_signed(headers: &[u8]) -> Option<bool> {
    let number = |at: usize, len: usize| -> Option<usize> {
        let bytes = headers.get(at..at.checked_add(len)?)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |number, byte| number << 8 | usize::from(*byte)),
        )
    };
    if !headers.starts_with(b"MZ") {
        return None;
    }
    let pe = number(0x3c, 4)?;
    if headers.get(pe..pe.checked_add(4)?)? != b"PE\0\0" {
        return None;
    }
    // After the signature of 4 bytes and the COFF header of 20.
    let optional = pe + 24;
    let directories = match number(optional, 2)? {
        0x20b => optional + 112,
        0x10b => optional + 96,
        _ => return None,
    };
    if number(directories - 4, 4)? < 5 {
        return Some(false);
    }
    Some(number(directories + 4 * 8 + 4, 4)? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The headers of an EFI program of 64 bits with a certificate table of that many bytes.
    fn program(certificates: u32) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x80;
        bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
        let optional = 0x80 + 24;
        bytes[optional..optional + 2].copy_from_slice(&0x20b_u16.to_le_bytes());
        bytes[optional + 108] = 16;
        let entry = optional + 112 + 32;
        bytes[entry + 4..entry + 8].copy_from_slice(&certificates.to_le_bytes());
        bytes
    }

    #[test]
    fn a_certificate_table_is_a_signature() {
        assert_eq!(is_signed(&program(2048)), Some(true));
        assert_eq!(is_signed(&program(0)), Some(false));
        let mut few = program(2048);
        few[0x80 + 24 + 108] = 4;
        assert_eq!(is_signed(&few), Some(false), "it has only four directories");
    }

    #[test]
    fn what_is_not_an_efi_program_is_neither() {
        let whole = program(2048);
        for len in 0..300 {
            let known = is_signed(&whole[..len]);
            assert_ne!(known, Some(false), "{len} bytes");
        }
        assert_eq!(is_signed(b"\x1f\x8b\x08 a compressed kernel"), None);
        let mut far = whole.clone();
        far[0x3c..0x40].copy_from_slice(&[0xff; 4]);
        assert_eq!(is_signed(&far), None);
        assert_eq!(kernel_is_signed(Path::new("/nowhere/kernel")), None);
    }
}

//! Reads the release in a kernel's file. The name of the file may only have a flavour (`vmlinuz-lts`).

use super::root::RootDir;
use rackstrap_base::arch::Architecture;
use std::{
    io::{self, BufRead, Read, Seek, SeekFrom},
    path::Path,
};

/// Bytes that are searched for the banner. Uncompressed kernels of distributions have up to 80 MB.
const LONGEST: u64 = 256 << 20;
/// Memory limit for unpacking.
const XZ_MEMORY: u64 = 128 << 20;
/// The beginning of `linux_banner` (init/version-timestamp.c); the release follows.
const BANNER: &[u8] = b"Linux version ";
/// Longest release that is accepted: `__NEW_UTS_LEN` (include/uapi/linux/utsname.h).
const LONGEST_RELEASE: usize = 64;

/// The release of the kernel at `path`. None if the file is not a kernel of a known kind: x86 (bzImage), arm64 and riscv64 (`Image`,
/// also gzip and EFI's self-extracting form), ELF (`vmlinux`).
pub(super) fn own_release(tree: &RootDir, path: &Path) -> Option<String> {
    release_of(io::BufReader::new(tree.open_file(path).ok()?))
}

/// The release in a kernel, as [`own_release`] reads it from a file of a tree.
pub fn release_of(mut file: impl BufRead + Seek) -> Option<String> {
    let mut head = Vec::new();
    (&mut file).take(0x210).read_to_end(&mut head).ok()?;
    if head.get(0x202..0x206) == Some(b"HdrS") {
        return from_boot_header(file, &head);
    }
    // Offset and length of the compressed kernel in EFI's self-extracting form (drivers/firmware/efi/libstub/zboot-header.S).
    let (at, len) = match head.get(4..8) == Some(b"zimg") {
        true => (number(&head, 8)?, number(&head, 12)?),
        false => (0, LONGEST),
    };
    let mut begin = [0; 6];
    file.seek(SeekFrom::Start(at)).ok()?;
    file.read_exact(&mut begin).ok()?;
    file.seek(SeekFrom::Start(at)).ok()?;
    let file = file.take(len);
    match begin {
        [0x1f, 0x8b, ..] => banner(flate2::bufread::GzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => banner(zstd::stream::read::Decoder::with_buffer(file).ok()?),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            let stream = xz2::stream::Stream::new_stream_decoder(XZ_MEMORY, xz2::stream::CONCATENATED).ok()?;
            banner(xz2::bufread::XzDecoder::new_stream(file, stream))
        }
        [0x7f, b'E', b'L', b'F', ..] => banner(file),
        // The magic of arm64 (Documentation/arch/arm64/booting.rst) and of riscv64 (Documentation/arch/riscv/boot-image-header.rst).
        _ if matches!(head.get(56..60), Some(b"ARM\x64" | b"RSC\x05")) => banner(file),
        _ => None,
    }
}

/// The architectures for which the kernel at `path` may be, by its header. Empty if the header does not show it, as with compressed
/// kernels. The header of x86 is the same for 32 and 64 bits.
pub(super) fn own_architectures(tree: &RootDir, path: &Path) -> &'static [Architecture] {
    let mut head = Vec::new();
    let read = tree.open_file(path).map(|file| file.take(0x210).read_to_end(&mut head));
    match (read, head.get(0x202..0x206), head.get(56..60)) {
        (Err(_) | Ok(Err(_)), ..) => &[],
        (_, Some(b"HdrS"), _) => &[Architecture::Amd64, Architecture::I386],
        (_, _, Some(b"ARM\x64")) => &[Architecture::Arm64],
        (_, _, Some(b"RSC\x05")) => &[Architecture::Riscv64],
        _ => &[],
    }
}

/// The text to which the header of an x86 kernel points (Documentation/arch/x86/boot.rst, `kernel_version`).
fn from_boot_header(mut file: impl Read + Seek, head: &[u8]) -> Option<String> {
    let offset = u16::from_le_bytes(head.get(0x20e..0x210)?.try_into().ok()?);
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(u64::from(offset) + 0x200)).ok()?;
    file.take(128).read_to_end(&mut text).ok()?;
    release(&text)
}

/// The release after the first banner in `from`.
fn banner(from: impl Read) -> Option<String> {
    let mut from = from.take(LONGEST);
    let mut buffer = Vec::new();
    loop {
        let read = (&mut from).take(1 << 20).read_to_end(&mut buffer);
        let found = buffer.windows(BANNER.len()).enumerate().find_map(|(at, window)| {
            // Messages and formats (`Linux version %s`) begin with the same words; a release begins with a digit.
            let rest = buffer.get(at + BANNER.len()..)?;
            let is_banner = window == BANNER && rest.first().is_some_and(u8::is_ascii_digit);
            (is_banner && rest.contains(&b' ')).then(|| release(rest))?
        });
        if found.is_some() {
            return found;
        }
        // Damaged data may end after the banner; the text before the end counts.
        if !matches!(read, Ok(1..)) {
            return None;
        }
        let keep = buffer.len().saturating_sub(BANNER.len() + LONGEST_RELEASE + 1);
        buffer.drain(..keep);
    }
}

/// The release at the start of `text`, if it is a valid name for a directory of modules.
fn release(text: &[u8]) -> Option<String> {
    let release = text.split(|b| matches!(b, b' ' | 0)).next()?;
    let plain = release.len() <= LONGEST_RELEASE && release.iter().all(|b| b.is_ascii_graphic() && *b != b'/');
    (plain && release.first().is_some_and(u8::is_ascii_digit)).then(|| String::from_utf8(release.to_vec()).ok())?
}

fn number(head: &[u8], at: usize) -> Option<u64> {
    Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?).into())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{fs, io::Write};

    /// The header of a bzImage, without code.
    pub fn x86(release: &str) -> Vec<u8> {
        let mut kernel = vec![0; 0x400];
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[0x20f] = 1; // text at 0x300
        let text = format!("{release} (me) #1\0");
        kernel[0x300..0x300 + text.len()].copy_from_slice(text.as_bytes());
        kernel
    }

    pub fn arm64(release: &str) -> Vec<u8> {
        let mut kernel = vec![0; 3 << 20];
        kernel[56..60].copy_from_slice(b"ARM\x64");
        let text = format!("Linux version %s\0Linux version {release} (me@here) (gcc) #1 SMP\n\0");
        // The banner crosses the border of a read.
        let at = (1 << 20) - 40;
        kernel[at..at + text.len()].copy_from_slice(text.as_bytes());
        kernel
    }

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(plain).unwrap();
        gz.finish().unwrap()
    }

    fn said_by(kernel: &[u8]) -> Option<String> {
        let tree = tempfile::tempdir().unwrap();
        fs::write(tree.path().join("kernel"), kernel).unwrap();
        own_release(&RootDir::open(tree.path()).unwrap(), Path::new("kernel"))
    }

    #[test]
    fn the_release_of_every_kind_is_read() {
        let expected = Some("6.12.9-0-lts".to_owned());
        let plain = arm64("6.12.9-0-lts");
        assert_eq!(said_by(&x86("6.12.9-0-lts")), expected);
        assert_eq!(said_by(&plain), expected);
        assert_eq!(said_by(&gzip(&plain)), expected);
        for packed in [gzip(&plain), zstd::encode_all(plain.as_slice(), 1).unwrap()] {
            let mut zboot = vec![0; 64];
            zboot[..8].copy_from_slice(b"MZ\0\0zimg");
            zboot[8] = 64;
            zboot[12..16].copy_from_slice(&(packed.len() as u32).to_le_bytes());
            zboot.extend(packed);
            assert_eq!(said_by(&zboot), expected);
        }
        let mut elf = plain;
        elf[..4].copy_from_slice(b"\x7fELF");
        assert_eq!(said_by(&elf), expected);
    }

    #[test]
    fn other_files_have_no_release() {
        for file in [&b""[..], b"kernel", b"Linux version 6.1 ", &[0; 4096]] {
            assert_eq!(said_by(file), None);
        }
        for release in ["../../etc", "..", "", "6.1/x", "\u{e4}"] {
            assert_eq!(said_by(&x86(release)), None, "{release}");
        }
    }

    proptest! {
        #[test]
        fn damaged_kernels_do_no_harm(at in 0usize..0x400, value: u8, cut in 0usize..0x400) {
            let mut kernel = x86("6.1");
            kernel[at] = value;
            kernel.truncate(cut);
            said_by(&kernel);
            let mut packed = gzip(b"Linux version 6.1 x");
            let at = at % packed.len();
            packed[at] = value;
            said_by(&packed);
        }
    }
}

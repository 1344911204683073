//! The network loader that prepared disks carry for BIOS (pure).
//!
//! A BIOS that boots from the disk, first or after the network failed, runs the disk's boot sector. That starts this
//! loader: a second stage, and iPXE with its own drivers (`ipxe.lkrn`), which asks DHCP on each network card for its script as
//! it would have done as a PXE client. After eight rounds (four to five minutes with one card) it resets the machine, so that the firmware
//! tries its boot order again. Without a driver for any card it hands over to the next boot device at once.
//!
//! | bytes | content |
//! |---|---|
//! | 0..2048 | second stage (`stage2.S`), with size and CRC-32 at 16..24 and two lengths at 24..28 |
//! | 2048..4096 | script (`disk.ipxe`), which iPXE takes as its command line |
//! | 4096.. | iPXE's set-up code, padded to 4 KiB |
//! | behind | the rest of iPXE, padded to 4 KiB |

mod stage2;

use bytes::Bytes;
use rackstrap_wire::DiskLoader;

/// The file in the loader directories that the loader is made of.
pub const IPXE: &str = "ipxe.lkrn";
/// The second stage reads blocks of this size.
const BLOCK: usize = 4096;
/// Offset of the script.
const SCRIPT_AT: usize = 2048;
/// Largest size in bytes: the agent reserves 960 KiB for it on the disk.
const MOST: usize = 960 << 10;
const SCRIPT: &str = include_str!("disk.ipxe");
/// The first line of the script, whose digit is this machine's part of all pauses, in seconds: the second stage changes it.
const SPREAD: &str = "set spread 0\n";

const _: () = assert!(stage2::INSTRUCTIONS.len() <= SCRIPT_AT && SCRIPT.len() < BLOCK - SCRIPT_AT);

/// The same script as a file for an iPXE with UEFI. `spread` may be set before it begins.
pub(crate) fn script_for_uefi() -> String {
    let rest = SCRIPT.strip_prefix(SPREAD).unwrap_or(SCRIPT);
    format!("#!ipxe\nisset ${{spread}} || {SPREAD}{rest}")
}

/// Makes the loader from `ipxe`; none if `ipxe` is not a Linux kernel by the x86 boot protocol 2.07 or later, or too large.
pub fn build(ipxe: &[u8]) -> Option<(DiskLoader, Bytes)> {
    // Linux, Documentation/arch/x86/boot.rst: setup_sects at 0x1f1, "HdrS" at 0x202, version at 0x206.
    let version = u16::from_le_bytes([*ipxe.get(0x206)?, *ipxe.get(0x207)?]);
    if ipxe.get(0x202..0x206)? != b"HdrS" || version < 0x207 {
        return None;
    }
    let (setup, high) = ipxe.split_at_checked((usize::from(ipxe[0x1f1]) + 1) * 512)?;
    let blocks = |bytes: &[u8]| u16::try_from(bytes.len().div_ceil(BLOCK)).ok().filter(|n| *n > 0);
    let (setup_blocks, high_blocks) = (blocks(setup)?, blocks(high)?);
    // The set-up code has one segment, including its stack.
    if setup_blocks > 8 {
        return None;
    }
    let mut all = vec![0; BLOCK];
    all[..stage2::INSTRUCTIONS.len()].copy_from_slice(&stage2::INSTRUCTIONS);
    all[SCRIPT_AT..SCRIPT_AT + SCRIPT.len()].copy_from_slice(SCRIPT.as_bytes());
    for part in [setup, high] {
        all.extend_from_slice(part);
        all.resize(all.len().next_multiple_of(BLOCK), 0);
    }
    if all.len() > MOST {
        return None;
    }
    let size = u32::try_from(all.len()).ok()?;
    all[16..20].copy_from_slice(&size.to_le_bytes());
    all[24..26].copy_from_slice(&setup_blocks.to_le_bytes());
    all[26..28].copy_from_slice(&high_blocks.to_le_bytes());
    let crc = crc32fast::hash(&all);
    all[20..24].copy_from_slice(&crc.to_le_bytes());
    Some((DiskLoader { size, crc }, Bytes::from(all)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(setup_sects: u8, len: usize) -> Vec<u8> {
        let mut kernel = vec![7; len];
        kernel[0x1f1] = setup_sects;
        kernel[0x202..0x208].copy_from_slice(b"HdrS\x07\x02");
        kernel
    }

    #[test]
    fn set_up_code_and_the_rest_are_padded_and_counted() {
        let (loader, bytes) = build(&kernel(5, 3072 + 5000)).unwrap();
        assert_eq!((bytes.len(), loader.size), (4 * BLOCK, 4 * BLOCK as u32));
        assert_eq!(bytes[..4], *b"RKSB");
        assert_eq!(bytes[24..28], [1, 0, 2, 0]);
        assert_eq!((bytes[BLOCK], bytes[BLOCK + 3071], bytes[BLOCK + 3072]), (7, 7, 0));
        assert_eq!((bytes[2 * BLOCK + 4999], bytes[2 * BLOCK + 5000]), (7, 0));
        assert!(bytes[SCRIPT_AT..].starts_with(SCRIPT.as_bytes()));
        assert_ne!(build(&kernel(5, 3072 + 5001)).unwrap().0.crc, loader.crc);
    }

    #[test]
    fn the_script_begins_with_the_digit_that_the_second_stage_changes_and_the_typist_sets() {
        assert_eq!(SPREAD.find('0'), Some(11));
        let rest = SCRIPT.strip_prefix(SPREAD).unwrap();
        let uefi = script_for_uefi();
        assert_eq!(
            uefi.strip_prefix("#!ipxe\nisset ${spread} || set spread 0\n"),
            Some(rest)
        );
        assert!(!rest.contains("set spread"));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            vec![],
            vec![0; 4096],
            kernel(255, 4096),
            kernel(5, 3072),
            kernel(5, 2 << 20),
            kernel(100, 1 << 19),
        ] {
            assert_eq!(build(&bad), None);
        }
    }
}

//! What the EFI system partitions of prepared disks and of layouts share (pure): the sizes of blocks, the name that firmware starts, and the
//! part of a partition that is sent.

use rackstrap_wire::EspImage;

/// The sizes of disks' logical blocks.
pub const SECTORS: [u32; 2] = [512, 4096];
/// The agent reads and writes multiples of this many bytes.
pub const BLOCK: usize = 4096;

/// The name that UEFI starts on a disk without a boot entry (UEFI 2.10, 3.5.1.1); none for other architectures than those of [`EspImage`].
pub fn boot_name(arch: &str) -> Option<&'static str> {
    match arch {
        "x86_64" => Some("BOOTX64.EFI"),
        "aarch64" => Some("BOOTAA64.EFI"),
        _ => None,
    }
}

/// The image of a partition that begins with `bytes`, without the part at its end that is zero; none if it is empty or has 4 GiB.
pub fn of(mut bytes: Vec<u8>, arch: &str, sector: u32) -> Option<(EspImage, Vec<u8>)> {
    let used = bytes.iter().rposition(|byte| *byte != 0)? + 1;
    bytes.resize(used.next_multiple_of(BLOCK), 0);
    let image = EspImage {
        arch: arch.to_owned(),
        sector,
        size: u32::try_from(bytes.len()).ok()?,
        crc: crc32fast::hash(&bytes),
    };
    Some((image, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_ends_with_the_block_of_its_last_byte() {
        assert_eq!(of(vec![0; 8192], "x86_64", 512), None);
        let mut bytes = vec![0; 3 * BLOCK];
        bytes[BLOCK] = 1;
        let (image, bytes) = of(bytes, "x86_64", 512).unwrap();
        assert_eq!((image.size as usize, bytes.len()), (2 * BLOCK, 2 * BLOCK));
        assert_eq!(image.crc, crc32fast::hash(&bytes));
        // A part of a disk may end within a block.
        assert_eq!(of(vec![1; 5], "aarch64", 4096).unwrap().1.len(), BLOCK);
    }
}

//! What the disk does when a firmware boots it: says so, and goes back to the network.
//!
//! A cluster whose firmware prefers the disk, or falls back to it after a failed PXE, must not end at
//! "no operating system" (the Fellowship cluster's experience). The code is for BIOS: the first 440
//! bytes of sector 0, loaded at 0000:7c00 in real mode.
//!
//! `int 18h` is the BIOS Boot Specification's "this boot device failed, try the next" (1.01, chapter
//! 6.7); some firmware returns from it, then the machine waits five seconds and resets.

/// Assembled, in GNU syntax, from:
/// ```text
///         ljmp  $0, $1f              # some firmware jumps to 07c0:0000
/// 1:      cli
///         xorw  %ax, %ax
///         movw  %ax, %ds
///         movw  %ax, %ss
///         movw  $0x7c00, %sp
///         sti
///         cld
///         movw  $message, %si
/// 2:      lodsb
///         testb %al, %al
///         jz    3f
///         movb  $0x0e, %ah           # teletype output
///         movw  $0x0007, %bx
///         int   $0x10
///         jmp   2b
/// 3:      int   $0x18                # next boot device
///         movb  $0x86, %ah           # wait CX:DX microseconds: 5 s
///         movw  $0x004c, %cx
///         movw  $0x4b40, %dx
///         int   $0x15
///         movw  $0x1234, 0x472       # warm reset: no memory test
///         ljmp  $0xffff, $0
/// message:
/// ```
#[rustfmt::skip]
const INSTRUCTIONS: [u8; 57] = [
    0xea, 0x05, 0x7c, 0x00, 0x00,
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xfb, 0xfc,
    0xbe, 0x39, 0x7c,
    0xac, 0x84, 0xc0, 0x74, 0x09, 0xb4, 0x0e, 0xbb, 0x07, 0x00, 0xcd, 0x10, 0xeb, 0xf2,
    0xcd, 0x18,
    0xb4, 0x86, 0xb9, 0x4c, 0x00, 0xba, 0x40, 0x4b, 0xcd, 0x15,
    0xc7, 0x06, 0x72, 0x04, 0x34, 0x12,
    0xea, 0x00, 0x00, 0xff, 0xff,
];

const MESSAGE: &[u8] = b"rackstrap: nothing boots from this disk; back to the network.\r\n\0";

/// Bytes that a boot sector has for code (the disk signature follows).
pub const LENGTH: usize = 440;

/// Instructions, message, zeroes. The marker's record is put behind them (see `marker`).
pub const CODE: [u8; LENGTH] = {
    let mut code = [0; LENGTH];
    let mut i = 0;
    while i < INSTRUCTIONS.len() {
        code[i] = INSTRUCTIONS[i];
        i += 1;
    }
    let mut j = 0;
    while j < MESSAGE.len() {
        code[i + j] = MESSAGE[j];
        j += 1;
    }
    code
};

/// Bytes of [`CODE`] in use.
pub const USED: usize = INSTRUCTIONS.len() + MESSAGE.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_fit_the_load_address() {
        // The far jump lands behind itself; SI points at the message.
        assert_eq!(u16::from_le_bytes([CODE[1], CODE[2]]), 0x7c00 + 5);
        assert_eq!(
            u16::from_le_bytes([CODE[0x12], CODE[0x13]]) as usize,
            0x7c00 + INSTRUCTIONS.len()
        );
        assert!(CODE[INSTRUCTIONS.len()..].starts_with(b"rackstrap: "));
        // jz to `int 18h`, jmp back to `lodsb`.
        let jz = 0x17usize;
        assert_eq!(
            (CODE[jz], &CODE[jz + 2 + CODE[jz + 1] as usize..][..2]),
            (0x74, &[0xcd, 0x18][..])
        );
        let jmp = 0x20usize;
        assert_eq!(CODE[jmp], 0xeb);
        assert_eq!(CODE[(jmp + 2).wrapping_add_signed(CODE[jmp + 1] as i8 as isize)], 0xac);
        assert_eq!(CODE[USED - 1], 0);
        assert!(CODE[USED..].iter().all(|b| *b == 0));
    }
}

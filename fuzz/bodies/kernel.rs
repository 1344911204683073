//! A file in /boot: which release the kernel says that it is. Compressed ones are unpacked for it.

use rackstrap_image::{is_signed, kernel_release};
use std::io::Cursor;

/// One run; true if it is a kernel that says its release.
pub fn run(input: &[u8]) -> bool {
    // Of an EFI program only its first bytes are looked at.
    let _ = is_signed(input);
    let Some(release) = kernel_release(Cursor::new(input)) else {
        return false;
    };
    // It becomes a part of paths.
    assert!(
        release.len() <= 64 && release.starts_with(|c: char| c.is_ascii_digit()),
        "{release:?}"
    );
    assert!(
        release.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'),
        "{release:?}"
    );
    true
}

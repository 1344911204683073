//! The longest kernel command lines, by what takes them (pure).

/// The longest command line that all kernels here accept uncut: `COMMAND_LINE_SIZE` is 2048 with the NUL
/// (arch/x86/include/asm/setup.h, arch/arm64/include/uapi/asm/setup.h).
pub(super) const KERNEL: usize = 2047;
/// U-Boot refuses an `APPEND` that does not fit a buffer of `CONFIG_SYS_CBSIZE` with its NUL: `bootarg overflow` (label_boot in
/// boot/pxe_utils.c). 1024 is the size on most boards with arm64; some vendors' builds have 256, which they do not report.
const U_BOOT: usize = 1023;
/// The firmware of a Raspberry Pi takes 1,024 characters of cmdline.txt (its maintainer in
/// <https://github.com/raspberrypi/linux/issues/140>).
const RASPBERRY_PI: usize = 1024;

/// What takes a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// The kernel alone: iPXE, GRUB and PXELINUX pass on all of it.
    Kernel,
    /// U-Boot.
    UBoot,
    /// The firmware of a Raspberry Pi.
    RaspberryPi,
}

/// Refuses a command line of that many bytes if something would cut or refuse it.
pub(super) fn fits(len: usize, limit: Limit) -> Result<(), String> {
    let (most, what) = match limit {
        Limit::Kernel => (KERNEL, "kernels cut it at"),
        Limit::UBoot => (U_BOOT, "U-Boot takes at most"),
        Limit::RaspberryPi => (RASPBERRY_PI, "a Raspberry Pi's firmware takes at most"),
    };
    match len > most {
        true => Err(format!(
            "the kernel command line has {len} bytes, and {what} {most}; shorten kernel-args"
        )),
        false => Ok(()),
    }
}

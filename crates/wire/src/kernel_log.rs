//! Lines of a kernel's log (pure).

/// How kernels begin the message of a panic (kernel/panic.c).
pub const PANIC: &str = "Kernel panic - not syncing";

/// How they begin the line that ends the dump of a panic.
const PANIC_END: &str = "---[ end Kernel panic - not syncing";

/// The message of a kernel's line: without its time, `[   12.345678]`, and the task or CPU that printed it, `[  T123]` or `[    C0]`
/// (print_prefix in kernel/printk/printk.c; the second part comes with CONFIG_PRINTK_CALLER).
pub fn kernel_message(line: &str) -> &str {
    let is_time =
        |text: &str| text.contains('.') && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b' '));
    let is_caller = |text: &str| {
        let number = text.trim_start().strip_prefix(['T', 'C']);
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    let group = |text: &'_ str, fits: &dyn Fn(&str) -> bool| -> Option<usize> {
        let (inside, _) = text.strip_prefix('[')?.split_once(']')?;
        fits(inside).then_some(inside.len() + 2)
    };
    let rest = match group(line, &is_time) {
        Some(end) => &line[end..],
        None => line,
    };
    let rest = match group(rest, &is_caller) {
        Some(end) => &rest[end..],
        None => rest,
    };
    match rest.len() == line.len() {
        true => line,
        false => rest.strip_prefix(' ').unwrap_or(rest),
    }
}

/// Whether the kernel's line is the message of a panic. Only its beginning counts: the kernel also logs names that users choose, such as
/// those of cgroups.
pub fn is_panic(line: &str) -> bool {
    kernel_message(line).starts_with(PANIC)
}

/// Whether the kernel's line ends the dump of a panic; it repeats the message.
pub fn is_end_of_panic(line: &str) -> bool {
    kernel_message(line).starts_with(PANIC_END)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_known_by_the_beginning_of_its_message() {
        for (line, panic) in [
            ("Kernel panic - not syncing: Attempted to kill init!", true),
            ("[   12.345678] Kernel panic - not syncing: Fatal exception", true),
            (
                "[   12.345678][  T123] Kernel panic - not syncing: Fatal exception",
                true,
            ),
            (
                "[12345.345678][    C0] Kernel panic - not syncing: Fatal exception",
                true,
            ),
            ("[  T123] Kernel panic - not syncing: Fatal exception", true),
            // Names that users choose.
            (
                "[   12.345678] oom-kill:constraint=CONSTRAINT_MEMCG,task_memcg=/Kernel panic - not syncing: x,task=sh",
                false,
            ),
            (
                "[   12.345678] Memory cgroup stats for /user/Kernel panic - not syncing: x:",
                false,
            ),
            ("[   12.345678] [x] Kernel panic - not syncing: x", false),
            ("[x] Kernel panic - not syncing: x", false),
            (
                "[   12.345678] ---[ end Kernel panic - not syncing: Fatal exception ]---",
                false,
            ),
            ("[", false),
            ("[]", false),
            ("[ T]", false),
            ("", false),
        ] {
            assert_eq!(is_panic(line), panic, "{line}");
        }
        assert!(is_end_of_panic(
            "[   12.345678] ---[ end Kernel panic - not syncing: x ]---"
        ));
        assert_eq!(kernel_message("[   12.345678][  T1] [x] usb"), "[x] usb");
        assert_eq!(kernel_message("[7] usb"), "[7] usb");
    }
}

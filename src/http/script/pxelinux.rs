//! The scripts of PXELINUX and of U-Boot's `pxe` command, which read one language, and the two files of a Raspberry Pi (pure).

use super::{Limit, NodeScript, Scripts, attributes, card, fits, vars};
use minijinja::context;
use rackstrap_base::bootname::ScriptLanguage;

impl Scripts {
    pub(super) fn node_by_pxelinux(&self, script: &NodeScript<'_>, line: &str) -> Result<String, String> {
        let plan = script.plan;
        // PXELINUX puts both before the arguments.
        let added = format!("BOOT_IMAGE=boot/{0}/kernel initrd=boot/{0}/initramfs ", plan.id);
        fits(added.len() + line.len(), Limit::Kernel)?;
        if script.is_board {
            fits(line.len(), Limit::UBoot)?;
        }
        self.render(
            &script.template(ScriptLanguage::Pxelinux),
            context! {
                node => plan.node.as_str(),
                attributes => attributes(script, ScriptLanguage::Pxelinux),
                vars => vars(script, ScriptLanguage::Pxelinux),
                image => plan.image.to_string(),
                boot => plan.id.as_str(),
                card => card(plan.net.hwaddr),
                serial => super::serial(script.console),
                device_trees => script.device_trees,
                kernel_args => arguments(line)?,
                delay => script.pauses.first(),
            },
        )
    }

    pub(super) fn node_by_raspberry_pi(&self, script: &NodeScript<'_>, line: &str) -> Result<String, String> {
        fits(line.len(), Limit::RaspberryPi)?;
        if line.chars().any(char::is_control) {
            return Err("kernel-args has a control character, and cmdline.txt is one line".to_owned());
        }
        let text = self.render(
            "node.raspberrypi.j2",
            context! {
                node => script.plan.node.as_str(),
                attributes => attributes(script, ScriptLanguage::RaspberryPi),
                vars => vars(script, ScriptLanguage::RaspberryPi),
                kernel_args => line,
            },
        )?;
        Ok(text.trim_end().to_owned() + "\n")
    }

    /// `config.txt` of a Raspberry Pi; it has no secret.
    ///
    /// # Errors
    /// A template of the site is wrong.
    pub fn config(&self, node: &str, serial_console: bool) -> Result<String, String> {
        self.render("config.raspberrypi.j2", context! { node, serial_console })
    }
}

/// The kernel arguments `line`, if both programs pass them on as they are. Both take the rest of the line; U-Boot then inserts variables
/// (label_boot in its boot/pxe_utils.c, cli_simple_process_macros in common/cli_simple.c).
///
/// # Errors
/// An argument that a program would change.
pub fn arguments(line: &str) -> Result<&str, String> {
    let changed = line.chars().find(|c| matches!(c, '$' | '\\' | '\''));
    if let Some(c) = changed {
        return Err(format!(
            "U-Boot changes {c} in kernel arguments; remove it from kernel-args"
        ));
    }
    match line.chars().any(char::is_control) {
        true => Err("kernel-args has a control character, which PXELINUX does not pass on".to_owned()),
        false => Ok(line),
    }
}

/// The arguments of `SERIAL` for a console as the kernel takes it: `0 115200` of `ttyS0,115200n8`; none if it is not a PC's serial line.
/// U-Boot prints on its own console.
pub fn serial(console: &str) -> Option<String> {
    let rest = console.strip_prefix("ttyS")?;
    let (port, settings) = rest.split_once(',').unwrap_or((rest, ""));
    let port: u8 = port.parse().ok().filter(|port| *port < 4)?;
    let digits = settings.bytes().take_while(u8::is_ascii_digit).count();
    let rate = match settings.split_at(digits).0 {
        "" => "9600",
        rate => rate,
    };
    Some(format!("{port} {rate}"))
}

/// `text` as the rest of a line.
pub fn text(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(200)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_a_program_would_change_are_refused() {
        let line = "quiet dyndbg=\"file a.c +p\" a=b;c|d {e}";
        assert_eq!(arguments(line), Ok(line));
        for (line, says) in [
            ("a=$x", "changes $"),
            ("a=\\n", "changes \\"),
            ("a='b'", "changes '"),
            ("a\nLABEL b", "control character"),
        ] {
            assert!(arguments(line).unwrap_err().contains(says), "{line}");
        }
        assert_eq!(text("a\nLABEL b"), "a LABEL b");
        for (console, expected) in [
            ("ttyS0,115200", Some("0 115200")),
            ("ttyS1,57600n8", Some("1 57600")),
            ("ttyS0", Some("0 9600")),
            ("ttyAMA0,115200", None),
            ("ttyS9", None),
            ("", None),
        ] {
            assert_eq!(serial(console).as_deref(), expected, "{console}");
        }
    }
}

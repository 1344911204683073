//! iPXE scripts, rendered from `bootscripts/`.
//!
//! iPXE has no arithmetic but `inc` and no comparison but equality. A pause that doubles up to a limit needs the exact value
//! that it will reach: [`Pauses`] computes both from one seed.

use include_dir::{Dir, include_dir};
use minijinja::{Environment, UndefinedBehavior, context};
use rackstrap_base::words::closest;
use rackstrap_wire::{HwAddr, Plan, cmdline};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

static BUILT_IN: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/bootscripts");

/// The longest kernel command line that all kernels here accept uncut (`COMMAND_LINE_SIZE` of
/// arch/x86/include/asm/setup.h is 2048, with the NUL).
const MAX_COMMAND_LINE: usize = 2047;

/// The compiled scripts.
pub struct Scripts(Environment<'static>);

/// How long a machine waits between two attempts, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pauses {
    /// The first pause.
    pub first: u32,
    /// The longest: `first` doubled three times.
    pub longest: u32,
}

impl Pauses {
    /// First pauses of 2 to 8 seconds, chosen by `seed` (a random number, or a hash of the machine's address).
    pub fn spread(seed: u64) -> Self {
        let first = 2 + (seed % 7) as u32;
        Pauses {
            first,
            longest: first * 8,
        }
    }
}

/// The values in a node's script.
#[derive(Clone, Copy, Debug)]
pub struct NodeScript<'a> {
    /// The pinned plan.
    pub plan: &'a Plan,
    /// The boot's token.
    pub token: &'a str,
    /// `http://10.5.0.1:80`
    pub base: &'a str,
    /// The serial console as the kernel takes it (`ttyS0,115200`), or empty.
    pub console: &'a str,
    /// Attributes of the node.
    pub attributes: &'a BTreeMap<String, String>,
    /// The site's kernel arguments.
    pub kernel_args: &'a str,
    /// Pauses between attempts.
    pub pauses: Pauses,
}

/// The values in the script of a waiting machine.
#[derive(Clone, Copy, Debug)]
pub struct WaitScript<'a> {
    /// `http://10.5.0.1:80`
    pub base: &'a str,
    /// The machine's hardware address.
    pub hwaddr: HwAddr,
    /// Lines for its screen.
    pub message: &'a [String],
    /// Whether the machine has to ask DHCP again, because it does not have its own address.
    pub new_address: bool,
    /// Pauses between attempts.
    pub pauses: Pauses,
}

impl Scripts {
    /// Compiles the built-in scripts. A file of the same name in `site_dir` replaces one.
    pub fn load(site_dir: Option<&Path>) -> Result<Self, String> {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_debug(false);
        for file in BUILT_IN.files() {
            let name = file.path().to_string_lossy().into_owned();
            let own = site_dir.map(|dir| dir.join(&name)).filter(|path| path.exists());
            let text = match own {
                Some(path) => std::fs::read_to_string(&path)
                    .map_err(|e| format!("boot script {}: cannot read it: {e}", path.display()))?,
                None => file.contents_utf8().unwrap_or_default().to_owned(),
            };
            env.add_template_owned(name, text)
                .map_err(|e| format!("boot script: {e:#}"))?;
        }
        Ok(Scripts(env))
    }

    /// Files in the site's directory whose names are almost a script's, with that name. They are not used.
    pub fn misnamed(site_dir: &Path) -> Vec<(PathBuf, &'static str)> {
        let names: Vec<&str> = BUILT_IN.files().filter_map(|file| file.path().to_str()).collect();
        let entries = std::fs::read_dir(site_dir).into_iter().flatten().flatten();
        let mut found: Vec<(PathBuf, &str)> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let near = closest(&name, names.iter().copied())?;
                (near != name).then(|| (entry.path(), near))
            })
            .collect();
        found.sort();
        found
    }

    /// The script of a node that boots.
    pub fn node(&self, script: &NodeScript<'_>) -> Result<String, String> {
        let plan = script.plan;
        let kernel_args = command_line(script);
        if kernel_args.len() > MAX_COMMAND_LINE {
            return Err(format!(
                "the kernel command line has {} bytes, and kernels cut it at {MAX_COMMAND_LINE}; shorten kernel-args",
                kernel_args.len()
            ));
        }
        let attributes = script.attributes.iter();
        let attributes: BTreeMap<&str, String> = attributes
            .map(|(name, value)| (name.as_str(), value.chars().map(plain).collect()))
            .collect();
        self.render(
            "node.ipxe.j2",
            context! {
                node => plan.node.as_str(),
                attributes,
                image => plan.image.to_string(),
                boot => plan.id.as_str(),
                base => script.base,
                kernel_args,
                delay => script.pauses.first,
                longest_delay => script.pauses.longest,
                // iPXE fills in which step failed, so that the timeline can show why it asks again.
                again_url => script_url(script.base, plan.net.hwaddr) + "&failed=${failed}",
            },
        )
    }

    /// The script of a node that boots FreeBSD. Everything else comes from its loader.
    pub fn freebsd(&self, plan: &Plan, base: &str, pauses: Pauses) -> Result<String, String> {
        self.render(
            "freebsd.ipxe.j2",
            context! {
                node => plan.node.as_str(),
                image => plan.image.to_string(),
                boot => plan.id.as_str(),
                base,
                delay => pauses.first,
                longest_delay => pauses.longest,
                again_url => script_url(base, plan.net.hwaddr) + "&failed=${failed}",
            },
        )
    }

    /// The script of a machine that has to wait: it shows the message, and asks again after a pause, for ever.
    pub fn wait(&self, script: &WaitScript<'_>) -> Result<String, String> {
        let message: Vec<String> = script.message.iter().map(|line| harmless(line)).collect();
        self.render(
            "wait.ipxe.j2",
            context! {
                hwaddr => script.hwaddr.to_string(),
                message,
                new_address => script.new_address,
                delay => script.pauses.first,
                longest_delay => script.pauses.longest,
                // iPXE fills in what it knows of the machine; `:uristring` is a type of iPXE's settings.
                again_url => script_url(script.base, script.hwaddr)
                    + "&uuid=${uuid}&serial=${serial:uristring}&vendor=${manufacturer:uristring}&product=${product:uristring}",
            },
        )
    }

    /// The script of a card that the machine must not boot from: it shows the message and exits, so that the firmware tries
    /// the next card.
    pub fn leave(&self, hwaddr: HwAddr, message: &[String]) -> Result<String, String> {
        let message: Vec<String> = message.iter().map(|line| harmless(line)).collect();
        self.render("leave.ipxe.j2", context! { hwaddr => hwaddr.to_string(), message })
    }

    fn render(&self, name: &str, context: minijinja::Value) -> Result<String, String> {
        self.0
            .get_template(name)
            .and_then(|t| t.render(context))
            .map_err(|e| format!("boot script: {e:#}"))
    }
}

/// The URL of the script for that machine. iPXE inserts the architecture that it was built for, because it also expands
/// settings in the file name of DHCP. This daemon may not know the machine's firmware, if that asked the previous daemon.
pub fn script_url(base: &str, hwaddr: HwAddr) -> String {
    format!("{base}/ipxe?mac={}&arch=${{buildarch}}", hwaddr.hyphenated())
}

/// The same for a DHCP server that gives all machines one URL: iPXE inserts the address of the card that it booted from, too.
pub fn script_url_of_any(base: &str) -> String {
    format!("{base}/ipxe?mac=${{netX/mac:hexhyp}}&arch=${{buildarch}}")
}

/// The kernel's arguments. With `panic=10`, a kernel that panics restarts the machine instead of stopping.
fn command_line(script: &NodeScript<'_>) -> String {
    let plan = script.plan;
    let mut line = String::from("panic=10");
    let mut add = |key: &str, value: &dyn std::fmt::Display| {
        let _ = write!(line, " {key}={value}");
    };
    add(cmdline::SERVER, &script.base);
    add(cmdline::PLAN, &plan.id);
    add(cmdline::TOKEN, &script.token);
    add(cmdline::HWADDR, &plan.net.hwaddr);
    add(
        cmdline::IPADDR,
        &format_args!("{}/{}", plan.net.ipaddr, plan.net.prefix),
    );
    if let Some(router) = plan.net.router {
        add(cmdline::ROUTER, &router);
    }
    if !script.console.is_empty() {
        // The last `console=` becomes /dev/console: the serial line, if the site configures one.
        add("console", &"tty0");
        add("console", &script.console);
    }
    if !script.kernel_args.is_empty() {
        line.push(' ');
        line.push_str(script.kernel_args);
    }
    line
}

/// `text` without what iPXE would interpret: `${…}` is a setting, `||` and `&&` are operators.
fn harmless(text: &str) -> String {
    text.chars().map(plain).take(200).collect()
}

/// A space for a character that iPXE would interpret.
fn plain(c: char) -> char {
    if c.is_control() || "$|&#".contains(c) { ' ' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_wire::testing;

    fn plan() -> Plan {
        let mut plan = testing::plan("r01n01").pinned()("k3v9");
        plan.net.router = Some("10.5.0.1".parse().unwrap());
        plan
    }

    fn script<'a>(plan: &'a Plan, kernel_args: &'a str) -> NodeScript<'a> {
        let pauses = Pauses { first: 3, longest: 24 };
        NodeScript {
            plan,
            token: "t0ken",
            base: "http://10.5.0.1:80",
            console: "ttyS0,115200",
            attributes: const { &BTreeMap::new() },
            kernel_args,
            pauses,
        }
    }

    #[test]
    fn a_nodes_script_has_its_kernel_and_retries() {
        let scripts = Scripts::load(None).unwrap();
        insta::assert_snapshot!(scripts.node(&script(&plan(), "quiet")).unwrap());
    }

    #[test]
    fn a_script_of_the_site_reads_attributes_of_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let text = "#!ipxe\n{% if node == \"r01n01\" %}echo {{ node }} {{ attributes.location }}{% endif %}\n";
        std::fs::write(dir.path().join("node.ipxe.j2"), text).unwrap();
        let scripts = Scripts::load(Some(dir.path())).unwrap();
        let attributes = [("location".to_owned(), "row 3 && ${net0/mac}".to_owned())].into();
        let plan = plan();
        let mut script = script(&plan, "");
        assert!(
            scripts.node(&script).unwrap_err().contains("undefined"),
            "no such attribute"
        );
        script.attributes = &attributes;
        assert_eq!(
            scripts.node(&script).unwrap(),
            "#!ipxe\necho r01n01 row 3     {net0/mac}"
        );
    }

    #[test]
    fn a_command_line_that_the_kernel_would_cut_is_refused() {
        let problem = Scripts::load(None)
            .unwrap()
            .node(&script(&plan(), &"x".repeat(2000)))
            .unwrap_err();
        assert!(problem.contains("shorten kernel-args"), "{problem}");
    }

    #[test]
    fn the_screen_of_a_waiting_machine_says_what_it_waits_for() {
        let message = [
            "unknown machine 52:54:00:01:01:01".to_owned(),
            "evil ${x} || shell".to_owned(),
        ];
        let pauses = Pauses { first: 5, longest: 40 };
        let hwaddr = plan().net.hwaddr;
        let script = WaitScript {
            base: "http://10.5.0.1:80",
            hwaddr,
            message: &message,
            new_address: true,
            pauses,
        };
        insta::assert_snapshot!(Scripts::load(None).unwrap().wait(&script).unwrap());
    }

    #[test]
    fn the_longest_pause_is_reached_by_doubling() {
        for seed in 0..50 {
            let pauses = Pauses::spread(seed);
            let mut delay = pauses.first;
            while delay != pauses.longest {
                delay *= 2;
                assert!(delay <= 64, "never met {pauses:?}");
            }
        }
    }
}

//! Boot scripts, rendered from `bootscripts/`: for each language a script of a node that boots, one of a machine that waits, and one of a
//! card that is left alone.

mod check;
mod grub;
mod limits;
pub mod line;
mod once;
mod pxelinux;
mod values;

use include_dir::{Dir, include_dir};
use limits::{Limit, fits};
use minijinja::{Environment, UndefinedBehavior, context};
pub use once::UnmanagedScript;
use rackstrap_base::{bootname::ScriptLanguage, pauses::Pauses};
use rackstrap_registries::boots::Turn;
use rackstrap_site::value::Value;
use rackstrap_wire::{HwAddr, Plan};
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};
use values::{attributes, vars};

static BUILT_IN: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/bootscripts");

/// The compiled scripts.
pub struct Scripts(Environment<'static>);

/// Downloads of iPXE fail if nothing arrived for so many milliseconds (its option `--timeout`, since 2015). Without it, a download whose
/// connection the server has given up, or whose card stopped, never ends.
const LIMIT_MS: u32 = 60_000;

/// The part of a URL in which iPXE says which step of its script failed, and why, so that the timeline can show why it asks again.
const FAILURE: &str = "&failed=${failed}&error=${error}&asked=${asked}";

/// The values in a node's script.
#[derive(Clone, Debug)]
pub struct NodeScript<'a> {
    /// The pinned plan.
    pub plan: &'a Plan,
    /// The boot's token.
    pub token: &'a str,
    /// `http://10.5.0.1:80`: from where the loader loads.
    pub base: &'a str,
    /// The same for the agent. It differs from `base` for a node of a VLAN whose loader loads without the tag.
    pub agent_base: &'a str,
    /// The serial consoles as the kernel takes them (`ttyS0,115200`), with spaces between them; empty if there is none.
    pub console: &'a str,
    /// Attributes of the node.
    pub attributes: &'a BTreeMap<String, String>,
    /// Variables of the node that are not secret.
    pub vars: &'a BTreeMap<&'a str, &'a Value>,
    /// The site's kernel arguments.
    pub kernel_args: &'a str,
    /// Whether the image has device trees.
    pub device_trees: bool,
    /// Whether the image is for another processor than a PC's: then U-Boot reads PXELINUX's language.
    pub is_board: bool,
    /// Pauses between attempts.
    pub pauses: Pauses,
    /// When the node begins to load.
    pub turn: Turn,
    /// Whether downloads have a limit of time ([`LIMIT_MS`]); false for an iPXE that refused the option.
    pub limited: bool,
    /// The script of the site that an order names; none for the node's usual script.
    pub file: Option<&'a str>,
}

impl NodeScript<'_> {
    /// The name of the template for that language.
    fn template(&self, language: ScriptLanguage) -> String {
        match self.file {
            Some(file) => file.to_owned(),
            None => format!("node.{}.j2", language.suffix()),
        }
    }
}

/// The values in the script of a waiting machine.
#[derive(Clone, Debug)]
pub struct WaitScript<'a> {
    /// `http://10.5.0.1:80`
    pub base: &'a str,
    /// The machine's hardware address.
    pub hwaddr: HwAddr,
    /// The serial consoles of the profile `default`, as in [`NodeScript::console`].
    pub console: &'a str,
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
        env.set_formatter(values::format);
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
        once::add_own(&mut env, site_dir)?;
        Ok(Scripts(env))
    }

    /// Files in the site's directory whose names are almost a script's, with that name. They are not used.
    pub fn misnamed(site_dir: &Path) -> Vec<(PathBuf, &'static str)> {
        let entries = std::fs::read_dir(site_dir).into_iter().flatten().flatten();
        let mut found: Vec<(PathBuf, &str)> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let near = once::near_built_in(&name)?;
                (near != name).then(|| (entry.path(), near))
            })
            .collect();
        found.sort();
        found
    }

    /// The script of a node that boots.
    ///
    /// # Errors
    /// The kernel would not get its arguments as they are, or a template of the site is wrong.
    pub fn node(&self, language: ScriptLanguage, script: &NodeScript<'_>) -> Result<String, String> {
        let line = command_line(script);
        match language {
            ScriptLanguage::Ipxe => self.node_by_ipxe(script, &line),
            ScriptLanguage::Grub => self.node_by_grub(script, &line),
            ScriptLanguage::Pxelinux => self.node_by_pxelinux(script, &line),
            ScriptLanguage::RaspberryPi => self.node_by_raspberry_pi(script, &line),
        }
    }

    fn node_by_ipxe(&self, script: &NodeScript<'_>, kernel_args: &str) -> Result<String, String> {
        let plan = script.plan;
        fits(kernel_args.len(), Limit::Kernel)?;
        self.render(
            &script.template(ScriptLanguage::Ipxe),
            context! {
                node => plan.node.as_str(),
                attributes => attributes(script, ScriptLanguage::Ipxe),
                vars => vars(script, ScriptLanguage::Ipxe),
                image => plan.image.to_string(),
                boot => plan.id.as_str(),
                base => script.base,
                kernel_args,
                turn => script.turn.secs,
                loading => script.turn.others,
                limited => script.limited,
                limit => LIMIT_MS,
                again_url => script_url(script.base, plan.net.hwaddr) + FAILURE,
                ..pauses(&script.pauses)
            },
        )
    }

    /// The script of a node that boots FreeBSD, for iPXE. Everything else comes from its loader.
    ///
    /// # Errors
    /// A template of the site is wrong.
    pub fn freebsd(&self, plan: &Plan, base: &str, pauses: &Pauses) -> Result<String, String> {
        self.render(
            "freebsd.ipxe.j2",
            context! {
                node => plan.node.as_str(),
                image => plan.image.to_string(),
                boot => plan.id.as_str(),
                base,
                limit => LIMIT_MS,
                again_url => script_url(base, plan.net.hwaddr) + FAILURE,
                ..self::pauses(pauses)
            },
        )
    }

    fn node_by_grub(&self, script: &NodeScript<'_>, line: &str) -> Result<String, String> {
        let plan = script.plan;
        // GRUB puts `BOOT_IMAGE=(http,10.5.0.1:80)/boot/ID/kernel` before the arguments (LINUX_IMAGE in its loaders).
        let server = script.base.trim_start_matches("http://");
        let image = format!("BOOT_IMAGE=(http,{server})/boot/{}/kernel ", plan.id);
        fits(image.len() + line.len(), Limit::Kernel)?;
        self.render(
            &script.template(ScriptLanguage::Grub),
            context! {
                node => plan.node.as_str(),
                attributes => attributes(script, ScriptLanguage::Grub),
                vars => vars(script, ScriptLanguage::Grub),
                image => plan.image.to_string(),
                boot => plan.id.as_str(),
                title => grub::word(&format!("rackstrap: {} boots {}", plan.node, plan.image)),
                kernel_args => grub::arguments(line)?,
                turn => script.turn.secs,
                loading => script.turn.others,
                delay => script.pauses.first(),
            },
        )
    }

    /// The script that a loader looks for by itself on `server`, whose HTTP is at `http_port`; it is the same for all machines, and has
    /// no secret.
    ///
    /// # Errors
    /// A template of the site is wrong.
    pub fn start(&self, server: Ipv4Addr, http_port: u16, pauses: &Pauses) -> Result<String, String> {
        // Before 2.04 GRUB knew no ports.
        let port = if http_port == 80 {
            String::new()
        } else {
            format!(":{http_port}")
        };
        self.render(
            "start.grub.j2",
            context! {
                http => grub::word(&format!("(http,{server}{port})")),
                tftp => grub::word(&format!("(tftp,{server})")),
                silent => grub::word(&format!("rackstrap: no script from {server}")),
                pauses => pauses.rising(),
            },
        )
    }

    /// The script of a machine that has to wait: it shows the message, and asks again after a pause, for ever.
    ///
    /// # Errors
    /// A template of the site is wrong.
    pub fn wait(&self, language: ScriptLanguage, script: &WaitScript<'_>) -> Result<String, String> {
        self.render(
            &format!("wait.{}.j2", language.suffix()),
            context! {
                hwaddr => script.hwaddr.to_string(),
                card => card(script.hwaddr),
                serial => serial(script.console),
                message => lines(language, script.message),
                new_address => script.new_address,
                limit => LIMIT_MS,
                // iPXE fills in what it knows of the machine; `:uristring` is a type of iPXE's settings.
                again_url => script_url(script.base, script.hwaddr)
                    + "&uuid=${uuid}&serial=${serial:uristring}&vendor=${manufacturer:uristring}&product=${product:uristring}",
                ..pauses(&script.pauses)
            },
        )
    }

    /// The script of a card that the machine must not boot from: it shows the message and exits, so that the firmware tries
    /// the next card. `console` is as in [`WaitScript`].
    ///
    /// # Errors
    /// A template of the site is wrong.
    pub fn leave(
        &self,
        language: ScriptLanguage,
        hwaddr: HwAddr,
        message: &[String],
        console: &str,
    ) -> Result<String, String> {
        let context = context! {
            hwaddr => hwaddr.to_string(),
            serial => serial(console),
            message => lines(language, message),
        };
        self.render(&format!("leave.{}.j2", language.suffix()), context)
    }

    fn render(&self, name: &str, context: minijinja::Value) -> Result<String, String> {
        self.0
            .get_template(name)
            .and_then(|t| t.render(context))
            .map_err(|e| format!("boot script: {e:#}"))
    }
}

/// The arguments of PXELINUX's `SERIAL` for the last one of these consoles, which is the main one.
fn serial(console: &str) -> Option<String> {
    pxelinux::serial(console.split_whitespace().last().unwrap_or_default())
}

/// The values of `again.ipxe.j2`. `delay` and `longest_delay` are for a site's own scripts from before there was a list: they double
/// the delay until it is exactly the longest one.
fn pauses(pauses: &Pauses) -> minijinja::Value {
    context! {
        pauses => pauses.steps.clone(),
        repeat_from => pauses.repeat_from,
        delay => pauses.first(),
        longest_delay => pauses.first() * 8,
    }
}

/// The URL of the script for that machine. iPXE inserts the architecture that it was built for, because it also expands
/// settings in the file name of DHCP. This daemon may not know the machine's firmware, if that asked the previous daemon.
fn script_url(base: &str, hwaddr: HwAddr) -> String {
    format!("{base}/ipxe?mac={}&arch=${{buildarch}}", hwaddr.hyphenated())
}

/// The part of the URLs of DHCP in which the script of a disk (`disk.ipxe` of the package `loaders`) says how often it asked in vain. Any other
/// iPXE leaves it empty. URLs inside of scripts do not have it, so that no attempt is counted twice.
const TRIED: &str = "&tried=${tried}";

/// The URL of the script as DHCP gives it to that machine.
pub fn first_script_url(base: &str, hwaddr: HwAddr) -> String {
    script_url(base, hwaddr) + TRIED
}

/// The same for a DHCP server that gives all machines one URL: iPXE inserts the address of the card that it booted from, too.
pub fn script_url_of_any(base: &str) -> String {
    format!("{base}/ipxe?mac=${{netX/mac:hexhyp}}&arch=${{buildarch}}{TRIED}")
}

/// The kernel's arguments.
fn command_line(script: &NodeScript<'_>) -> String {
    let line = line::Line {
        base: script.agent_base,
        id: &script.plan.id,
        token: script.token,
        net: &script.plan.net,
        console: script.console,
        kernel_args: script.kernel_args,
    };
    line.text()
}

/// The name by which PXELINUX and U-Boot know a card: 01 is Ethernet.
fn card(hwaddr: HwAddr) -> String {
    format!("01-{}", hwaddr.hyphenated())
}

/// Lines for the screen, as the arguments of `echo`.
fn lines(language: ScriptLanguage, message: &[String]) -> Vec<String> {
    let one = |line: &String| match language {
        ScriptLanguage::Ipxe => harmless(line),
        ScriptLanguage::Grub => grub::word(&line.chars().take(200).collect::<String>()),
        ScriptLanguage::Pxelinux | ScriptLanguage::RaspberryPi => pxelinux::text(line),
    };
    message.iter().map(one).collect()
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
    use ScriptLanguage::{Grub, Ipxe, Pxelinux, RaspberryPi};
    use rackstrap_wire::testing;

    fn plan() -> Plan {
        let mut plan = testing::plan("r01n01").pinned()("k3v9");
        plan.net.router = Some("10.5.0.1".parse().unwrap());
        plan
    }

    fn script<'a>(plan: &'a Plan, kernel_args: &'a str) -> NodeScript<'a> {
        NodeScript {
            plan,
            token: "t0ken",
            base: "http://10.5.0.1:80",
            agent_base: "http://10.5.0.1:80",
            console: "ttyS0,115200",
            attributes: const { &BTreeMap::new() },
            kernel_args,
            device_trees: false,
            is_board: false,
            vars: const { &BTreeMap::new() },
            pauses: Pauses::spread(1),
            turn: Turn::default(),
            limited: true,
            file: None,
        }
    }

    #[test]
    fn a_nodes_script_has_its_kernel_and_retries() {
        let scripts = Scripts::load(None).unwrap();
        insta::assert_snapshot!(scripts.node(Ipxe, &script(&plan(), "quiet")).unwrap());
    }

    #[test]
    fn grub_gets_the_same_boot_in_its_own_language() {
        let scripts = Scripts::load(None).unwrap();
        let plan = plan();
        let text = scripts.node(Grub, &script(&plan, "quiet dyndbg=\"file a.c +p\" $x;y"));
        insta::assert_snapshot!(text.unwrap());
        let problem = scripts.node(Grub, &script(&plan, "a='b'")).unwrap_err();
        assert!(problem.contains("remove it from kernel-args"), "{problem}");
        let most = limits::KERNEL - command_line(&script(&plan, "")).len() - 1;
        assert!(scripts.node(Ipxe, &script(&plan, &"x".repeat(most))).is_ok());
        let problem = scripts.node(Grub, &script(&plan, &"x".repeat(most))).unwrap_err();
        assert!(
            problem.contains("shorten kernel-args"),
            "GRUB adds BOOT_IMAGE: {problem}"
        );
    }

    #[test]
    fn pxelinux_and_u_boot_get_the_same_boot_in_their_language() {
        let scripts = Scripts::load(None).unwrap();
        let plan = plan();
        let mut script = script(&plan, "quiet dyndbg=\"file a.c +p\"");
        script.device_trees = true;
        insta::assert_snapshot!(scripts.node(Pxelinux, &script).unwrap());
        script.kernel_args = "a=$x";
        let problem = scripts.node(Pxelinux, &script).unwrap_err();
        assert!(problem.contains("U-Boot changes $"), "{problem}");
        // A Raspberry Pi passes one line on as it is.
        let line = scripts.node(RaspberryPi, &script).unwrap();
        assert!(
            line.starts_with("panic=10 ") && line.ends_with(" a=$x\n") && line.lines().count() == 1,
            "{line}"
        );
        let config = scripts.config("r01n01", true).unwrap();
        assert!(
            config.contains("\nkernel=kernel8.img\n") && config.contains("\nenable_uart=1"),
            "{config}"
        );
    }

    #[test]
    fn grubs_first_script_asks_for_ever() {
        let scripts = Scripts::load(None).unwrap();
        let server = "10.5.0.1".parse().unwrap();
        let pauses = &Pauses::spread(1);
        insta::assert_snapshot!(scripts.start(server, 80, pauses).unwrap());
        let other = scripts.start(server, 8080, pauses).unwrap();
        assert!(other.contains("'(http,10.5.0.1:8080)'"), "{other}");
    }

    #[test]
    fn a_node_of_a_storm_waits_for_its_turn_and_an_old_loader_gets_no_option_that_it_refuses() {
        let plan = plan();
        let mut script = script(&plan, "");
        script.turn = Turn { others: 900, secs: 28 };
        script.limited = false;
        let text = Scripts::load(None).unwrap().node(Ipxe, &script).unwrap();
        let waits = text
            .find("\necho rackstrap: 900 nodes load now; this one begins in 28 s\nsleep 28\n")
            .unwrap();
        assert!(waits < text.find("\nkernel ${base}").unwrap());
        assert!(
            text.contains("\nkernel ${base}") && text.contains("\ninitrd --name"),
            "{text}"
        );
    }

    #[test]
    fn each_serial_console_is_an_argument_and_the_last_one_is_the_console() {
        let plan = plan();
        let mut script = script(&plan, "");
        script.console = "ttyS1,115200 ttyS0,9600";
        let line = command_line(&script);
        assert!(
            line.ends_with(" console=tty0 console=ttyS1,115200 console=ttyS0,9600"),
            "{line}"
        );
    }

    #[test]
    fn a_script_of_the_site_from_before_reads_its_two_delays() {
        let dir = tempfile::tempdir().unwrap();
        let old = "set delay:int32 {{ delay }}\n:ask\nsleep ${delay}\niseq ${delay} {{ longest_delay }} || inc delay ${delay}\n\
                   chain {{ again_url }} || goto ask\n";
        std::fs::write(dir.path().join("again.ipxe.j2"), old).unwrap();
        let plan = plan();
        let mut script = script(&plan, "");
        script.pauses.steps[0] = 3;
        let text = Scripts::load(Some(dir.path())).unwrap().node(Ipxe, &script).unwrap();
        assert!(
            text.contains("set delay:int32 3\n") && text.contains("iseq ${delay} 24 ||"),
            "{text}"
        );
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
            scripts.node(Ipxe, &script).unwrap_err().contains("undefined"),
            "no such attribute"
        );
        script.attributes = &attributes;
        assert_eq!(
            scripts.node(Ipxe, &script).unwrap(),
            "#!ipxe\necho r01n01 row 3     {net0/mac}"
        );
    }

    #[test]
    fn a_script_of_the_site_reads_variables_and_prints_no_table() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(dir.path().join("node.ipxe.j2"), text).unwrap();
        write(
            "#!ipxe\necho {{ vars.pdu }} {{ vars.disk.size + 1 }} {% for nic in vars.nics %}{{ nic }};{% endfor %}\n",
        );
        let values = serde_json::json!({ "pdu": "a && ${x}", "disk": { "size": 7 }, "nics": ["ib0", "ib|1"] });
        let all = values.as_object().unwrap().iter();
        let vars = all.map(|(name, value)| (name.as_str(), value)).collect();
        let plan = plan();
        let mut script = script(&plan, "");
        let render = |script: &NodeScript<'_>| Scripts::load(Some(dir.path())).unwrap().node(Ipxe, script);
        assert!(render(&script).unwrap_err().contains("undefined"), "no such variable");
        script.vars = &vars;
        assert_eq!(render(&script).unwrap(), "#!ipxe\necho a     {x} 8 ib0;ib 1;");
        write("echo {{ vars.disk }}\n");
        assert!(
            render(&script)
                .unwrap_err()
                .contains("this is a table, and a text is wanted here")
        );
    }

    #[test]
    fn a_command_line_that_the_loader_would_refuse_is_refused() {
        let plan = plan();
        let scripts = Scripts::load(None).unwrap();
        let long = "x".repeat(900);
        let mut script = script(&plan, &long);
        assert!(scripts.node(Pxelinux, &script).is_ok(), "PXELINUX");
        script.is_board = true;
        let problem = scripts.node(Pxelinux, &script).unwrap_err();
        assert!(
            problem.contains("U-Boot takes at most 1023; shorten kernel-args"),
            "{problem}"
        );
        let problem = scripts.node(RaspberryPi, &script).unwrap_err();
        assert!(
            problem.contains("a Raspberry Pi's firmware takes at most 1024"),
            "{problem}"
        );
        assert!(scripts.node(Grub, &script).is_ok() && scripts.node(Ipxe, &script).is_ok());
    }

    #[test]
    fn a_command_line_that_the_kernel_would_cut_is_refused() {
        let problem = Scripts::load(None)
            .unwrap()
            .node(Ipxe, &script(&plan(), &"x".repeat(2000)))
            .unwrap_err();
        assert!(problem.contains("shorten kernel-args"), "{problem}");
    }

    #[test]
    fn the_screen_of_a_waiting_machine_says_what_it_waits_for() {
        let message = [
            "unknown machine 52:54:00:01:01:01".to_owned(),
            "evil ${x} || shell".to_owned(),
        ];
        let hwaddr = plan().net.hwaddr;
        let script = WaitScript {
            base: "http://10.5.0.1:80",
            hwaddr,
            console: "ttyS1,57600 ttyS0,115200",
            message: &message,
            new_address: true,
            pauses: Pauses::eager(7),
        };
        let scripts = Scripts::load(None).unwrap();
        insta::assert_snapshot!(scripts.wait(Ipxe, &script).unwrap());
        insta::assert_snapshot!("a_waiting_machine_by_grub", scripts.wait(Grub, &script).unwrap());
        insta::assert_snapshot!(
            "a_waiting_machine_by_pxelinux",
            scripts.wait(Pxelinux, &script).unwrap()
        );
        insta::assert_snapshot!(
            "a_card_that_is_left_by_pxelinux",
            scripts.leave(Pxelinux, hwaddr, &message, "ttyS0,115200").unwrap()
        );
        insta::assert_snapshot!(
            "a_card_that_is_left_by_grub",
            scripts.leave(Grub, hwaddr, &message, "").unwrap()
        );
    }
}

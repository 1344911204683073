//! `[profile.NAME]`: settings that many nodes share.

use super::{
    Profile, bmc, dhcp_options,
    diagnostic::{Report, quote},
    disk,
    kernel_args::{self, words},
    layouts::{self, Known},
    section::Section,
    vars,
};
use rackstrap_wire::{Check, ImageRef, MOST_LAYOUTS};
use toml::{Spanned, de::DeValue};

const MOST_TEMPLATES: usize = 32;
const MOST_KEYS: usize = 256;
const MOST_CHECKS: usize = 32;
const MOST_CONSOLES: usize = 4;

type Problem = (String, String);

/// A setting of profiles and of single nodes: its key, and how it is read, checked and shown. All code that handles every
/// setting uses [`SETTINGS`], so that a key in this table can be set on a node without another line. For a node with several
/// profiles, the last profile that has the setting wins; the node's own value wins over all of them.
pub struct Descriptor {
    /// Key in the site file.
    pub key: &'static str,
    /// The form of its value.
    pub form: Form,
    read: fn(&mut Reader<'_, '_>, &'static str),
    /// The value in a profile, as text; none if the profile has no value.
    pub shown: fn(&Profile) -> Option<String>,
    /// Puts the second profile's value after the first one's, without repeating parts; none if the setting has one value only.
    pub add: Option<fn(&mut Profile, &Profile)>,
}

/// The form of a setting's value in the site file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A string.
    Text,
    /// A string, or a list of strings.
    TextOrList,
    /// A string, or a table.
    TextOrTable,
    /// A list of strings.
    List,
    /// True or false.
    Flag,
    /// A whole number.
    Number,
}

/// All settings, in the order of the documentation.
pub static SETTINGS: [Descriptor; 18] = [
    Descriptor {
        key: "image",
        form: Form::Text,
        read: |reader, key| reader.profile.image = reader.text(key, "\"debian\"", &read_image),
        shown: |profile| profile.image.clone(),
        add: None,
    },
    Descriptor {
        key: "layout",
        form: Form::TextOrList,
        read: |reader, key| reader.profile.layout = reader.layout(key),
        shown: |profile| profile.layout.clone(),
        add: None,
    },
    Descriptor {
        key: "disk",
        form: Form::TextOrTable,
        read: |reader, key| reader.profile.disk = disk::read(reader.report, reader.section, key),
        shown: |profile| profile.disk.clone(),
        add: None,
    },
    Descriptor {
        key: "firmware",
        form: Form::Text,
        read: |reader, key| reader.profile.firmware = reader.text(key, "\"network-first\"", &read_firmware),
        shown: |profile| profile.firmware.clone(),
        add: None,
    },
    Descriptor {
        key: "boot",
        form: Form::Text,
        read: |reader, key| reader.profile.boot = reader.text(key, "\"network\"", &read_boot),
        shown: |profile| profile.boot.clone(),
        add: None,
    },
    Descriptor {
        key: "kernel-args",
        form: Form::Text,
        read: |reader, key| reader.profile.kernel_args = reader.kernel_args(key),
        shown: |profile| profile.kernel_args.clone(),
        add: Some(|to, from| add_words(&mut to.kernel_args, &from.kernel_args)),
    },
    Descriptor {
        key: "templates",
        form: Form::List,
        read: |reader, key| {
            reader.profile.templates = reader.names(key, "[\"site\"]", MOST_TEMPLATES, read_template);
        },
        shown: |profile| list(&profile.templates),
        add: Some(|to, from| add(&mut to.templates, &from.templates)),
    },
    Descriptor {
        key: "authorized-keys",
        form: Form::List,
        read: |reader, key| {
            let example = "[\"ssh-ed25519 AAAA… admin@example\"]";
            reader.profile.authorized_keys = reader.names(key, example, MOST_KEYS, read_key);
        },
        shown: |profile| {
            let keys = profile.authorized_keys.as_ref()?;
            Some(format!("{} keys", keys.len()))
        },
        add: Some(|to, from| add(&mut to.authorized_keys, &from.authorized_keys)),
    },
    Descriptor {
        key: "console",
        form: Form::TextOrList,
        read: |reader, key| reader.profile.console = reader.consoles(key),
        shown: |profile| profile.console.clone(),
        add: None,
    },
    Descriptor {
        key: "init",
        form: Form::Text,
        read: |reader, key| reader.profile.init = reader.text(key, "\"/sbin/init\"", &read_init),
        shown: |profile| profile.init.clone(),
        add: None,
    },
    Descriptor {
        key: "ram-size",
        form: Form::Text,
        read: |reader, key| reader.profile.ram_size = reader.text(key, "\"50%\"", &read_ram_size),
        shown: |profile| profile.ram_size.clone(),
        add: None,
    },
    Descriptor {
        key: dhcp_options::MTU_KEY,
        form: Form::Number,
        read: |reader, _| reader.profile.mtu = dhcp_options::read_mtu(reader.report, reader.section),
        shown: |profile| profile.mtu.map(|mtu| mtu.to_string()),
        add: None,
    },
    Descriptor {
        key: dhcp_options::KEY,
        form: Form::List,
        read: |reader, _| reader.profile.dhcp_options = dhcp_options::read(reader.report, reader.section),
        shown: |profile| {
            let options = profile.dhcp_options.as_ref()?;
            Some(options.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        },
        add: Some(|to, from| dhcp_options::add(&mut to.dhcp_options, &from.dhcp_options)),
    },
    Descriptor {
        key: "checks",
        form: Form::List,
        read: |reader, key| {
            let example = "[\"unit sshd.service\", \"mount /scratch\"]";
            reader.profile.checks = reader.names(key, example, MOST_CHECKS, read_check);
        },
        shown: |profile| list(&profile.checks),
        add: Some(|to, from| add(&mut to.checks, &from.checks)),
    },
    Descriptor {
        key: "check-login",
        form: Form::Flag,
        read: |reader, key| {
            let wanted = reader.section.boolean(reader.report, key);
            reader.profile.check_login = wanted.map(Spanned::into_inner);
        },
        shown: |profile| profile.check_login.map(|wanted| wanted.to_string()),
        add: None,
    },
    Descriptor {
        key: bmc::ADDRESS,
        form: Form::Text,
        read: |reader, key| reader.profile.bmc_address = reader.text(key, "\"10.6.200.3\"", &bmc::read_address),
        shown: |profile| profile.bmc_address.clone(),
        add: None,
    },
    Descriptor {
        key: bmc::USER,
        form: Form::Text,
        read: |reader, key| reader.profile.bmc_user = reader.text(key, "\"admin\"", &bmc::read_user),
        shown: |profile| profile.bmc_user.clone(),
        add: None,
    },
    Descriptor {
        key: bmc::PASSWORD_FILE,
        form: Form::Text,
        read: |reader, key| {
            reader.profile.bmc_password_file = reader.text(key, "\"/etc/rackstrap/bmc.password\"", &bmc::read_file);
        },
        shown: |profile| profile.bmc_password_file.clone(),
        add: None,
    },
];

/// The keys of [`SETTINGS`].
pub(super) const KEYS: [&str; SETTINGS.len()] = {
    let mut keys = [""; SETTINGS.len()];
    let mut at = 0;
    while at < keys.len() {
        keys[at] = SETTINGS[at].key;
        at += 1;
    }
    keys
};

/// All keys of a profile: those of [`SETTINGS`], and its variables.
pub(super) const SECTION: [&str; SETTINGS.len() + 2] = {
    let mut keys = [vars::VARS; SETTINGS.len() + 2];
    let mut at = 0;
    while at < SETTINGS.len() {
        keys[at] = SETTINGS[at].key;
        at += 1;
    }
    keys[at] = vars::SECRETS;
    keys
};

/// The setting with that key.
pub(super) fn setting(key: &str) -> Option<&'static Descriptor> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

fn list(items: &Option<Vec<String>>) -> Option<String> {
    items.as_ref().map(|items| items.join(", "))
}

fn add(to: &mut Option<Vec<String>>, from: &Option<Vec<String>>) {
    let to = to.get_or_insert_default();
    for item in from.iter().flatten() {
        if !to.contains(item) {
            to.push(item.clone());
        }
    }
}

fn add_words(to: &mut Option<String>, from: &Option<String>) {
    add_texts(to.get_or_insert_default(), from.as_deref().unwrap_or_default());
}

/// Appends the words of `more` that `to` does not have.
pub(super) fn add_texts(to: &mut String, more: &str) {
    for word in words(more) {
        if !words(to).contains(&word) {
            to.push_str(if to.is_empty() { "" } else { " " });
            to.push_str(word);
        }
    }
}

/// Reads the section of one profile.
struct Reader<'a, 'r> {
    report: &'a mut Report<'r>,
    section: &'a Section<'a>,
    /// The layouts that exist; none if they are unknown, so that any name is accepted.
    layouts: Option<&'a Known<'a>>,
    profile: Profile,
}

pub(super) fn read(
    report: &mut Report<'_>,
    name: &Spanned<String>,
    section: &Section<'_>,
    layouts: &Known<'_>,
) -> Profile {
    if !ImageRef::valid_name(name.get_ref()) {
        let message = format!("{} is not a profile name", quote(name.get_ref()));
        let help = "write a-z, 0-9, dots, - and _, a letter or digit first, such as [profile.gpu]";
        report.error(name.span(), message, help);
    }
    Profile {
        vars: vars::read(report, section),
        ..values(report, section, Some(layouts))
    }
}

/// The values of all settings in `section`. `layouts` are the layouts that exist; none if they are unknown.
pub(super) fn values(report: &mut Report<'_>, section: &Section<'_>, layouts: Option<&Known<'_>>) -> Profile {
    let mut reader = Reader {
        report,
        section,
        layouts,
        profile: Profile::default(),
    };
    for setting in &SETTINGS {
        (setting.read)(&mut reader, setting.key);
    }
    reader.profile
}

impl Reader<'_, '_> {
    fn text(&mut self, key: &str, example: &str, read: &dyn Fn(&str) -> Result<String, Problem>) -> Option<String> {
        let found = self.section.parsed(self.report, key, example, read);
        found.map(Spanned::into_inner)
    }

    /// One serial console or a list of them, with spaces between them.
    fn consoles(&mut self, key: &str) -> Option<String> {
        let value = self.section.get(key).map(Spanned::get_ref);
        if !matches!(value, Some(DeValue::Array(_))) {
            return self.text(key, "\"ttyS0,115200\"", &read_console);
        }
        let all = self.names(key, "[\"ttyS1,115200\", \"ttyS0,115200\"]", MOST_CONSOLES, read_console)?;
        Some(all.join(" ").trim().to_owned())
    }

    /// One layout or a list of them, with spaces between them.
    fn layout(&mut self, key: &str) -> Option<String> {
        let layouts = self.layouts;
        let read = |text: &str| layouts::read_name(text, layouts);
        let value = self.section.get(key).map(Spanned::get_ref);
        if !matches!(value, Some(DeValue::Array(_))) {
            return self.text(key, "\"scratch\"", &read);
        }
        let all = self.names(key, "[\"scratch\", \"data\"]", MOST_LAYOUTS, read)?;
        if let Err((message, help)) = layouts::check(&all, layouts) {
            self.report.error(self.section.key_at(key), message, help);
            return None;
        }
        Some(all.join(" "))
    }

    fn kernel_args(&mut self, key: &str) -> Option<String> {
        let args = self.section.parsed(self.report, key, "\"quiet\"", kernel_args::read)?;
        for arg in words(args.get_ref()) {
            let help = match arg.split_once('=').map_or(arg, |(key, _)| key) {
                "root" | "nfsroot" | "rootflags" | "rootfstype" => "remove it: rackstrap's agent mounts the root",
                "init" => "write init = \"…\" in the profile",
                "panic" => "remove it: rackstrap sets it so that a kernel panic restarts the node",
                "ip" => "remove it: rackstrap's agent configures the network",
                _ => continue,
            };
            let message = format!("the kernel argument '{arg}' should not be used here");
            self.report.warn(args.span(), message, help);
        }
        Some(args.into_inner())
    }

    /// A list without duplicates.
    fn names(
        &mut self,
        key: &str,
        example: &str,
        most: usize,
        read: impl Fn(&str) -> Result<String, Problem>,
    ) -> Option<Vec<String>> {
        let all = self.section.list(self.report, key, example, read)?;
        if all.len() > most {
            let message = format!("there are {} entries in '{key}', at most {most}", all.len());
            self.report.error(self.section.key_at(key), message, "leave some out");
        }
        for (i, one) in all.iter().enumerate().take(most) {
            if all[..i].iter().any(|other| other.get_ref() == one.get_ref()) {
                let message = format!("this is in '{key}' twice");
                self.report.error(one.span(), message, "remove one of the two");
            }
        }
        Some(all.into_iter().map(Spanned::into_inner).collect())
    }
}

fn read_image(text: &str) -> Result<String, Problem> {
    if ImageRef::valid_name(text) || text.parse::<ImageRef>().is_ok() {
        return Ok(text.to_owned());
    }
    let help = match ImageRef::valid_name(&text.to_lowercase()) {
        true => format!("write image = \"{}\"", text.to_lowercase()),
        false => "write a name of a-z, 0-9, dots, - and _, such as image = \"debian\" for its current version, \
                  or \"debian@3\" for that one"
            .to_owned(),
    };
    Err((format!("{} is not an image", quote(text)), help))
}

/// The value of `firmware` with which the agent puts the network first in the boot order of UEFI firmware.
pub const NETWORK_FIRST: &str = "network-first";

/// An empty text means that the boot order stays as it is, for a profile that overrides the default one.
fn read_firmware(text: &str) -> Result<String, Problem> {
    match text {
        "" | NETWORK_FIRST => Ok(text.to_owned()),
        other => Err((
            format!("{} is nothing that rackstrap does to firmware", quote(other)),
            "write firmware = \"network-first\" to put the network first in the boot order of UEFI firmware, or \"\" to leave it".to_owned(),
        )),
    }
}

/// The value of `boot` with which the node's loader starts the system on the node's own disk.
pub const BOOT_LOCAL: &str = "local";

fn read_boot(text: &str) -> Result<String, Problem> {
    match text {
        "network" | BOOT_LOCAL => Ok(text.to_owned()),
        other => Err((
            format!("{} is not where a node boots from", quote(other)),
            "write boot = \"network\" for an image, or boot = \"local\" for the system on the node's own disk"
                .to_owned(),
        )),
    }
}

fn read_template(text: &str) -> Result<String, Problem> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    match first && text.len() <= 64 && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err((
            format!("{} is not the name of a template tree", quote(text)),
            "write the name of one directory below templates-dir, without /, such as \"site\"".to_owned(),
        )),
    }
}

fn read_check(text: &str) -> Result<String, Problem> {
    match text.parse::<Check>() {
        Ok(check) => Ok(check.to_string()),
        Err(error) => Err((error.message, error.help)),
    }
}

fn read_key(text: &str) -> Result<String, Problem> {
    let wrong = |message: &str, help: &str| Err((message.to_owned(), help.to_owned()));
    let line = text.trim();
    if line.contains("PRIVATE KEY") {
        return wrong(
            "this is a private key",
            "write the public key, the line in the .pub file, and make a new pair: this private key is exposed",
        );
    }
    if line.chars().any(char::is_control) {
        return wrong("a key is one line", "write each key as a separate text in the list");
    }
    if line.ends_with(".pub") && !line.contains(' ') {
        return wrong(
            "this is the name of a file, not a key",
            "write the line that the file holds",
        );
    }
    match (line.len() <= 16384).then(|| line.parse::<ssh_key::authorized_keys::Entry>()) {
        Some(Ok(_)) => Ok(line.to_owned()),
        _ => Err((
            format!("{} is not an SSH public key", quote(text)),
            "write the whole line of a .pub file, such as \"ssh-ed25519 AAAA… admin@example\"".to_owned(),
        )),
    }
}

fn read_console(text: &str) -> Result<String, Problem> {
    // Documentation/admin-guide/serial-console.rst: DEVICE,BBBBPNF: speed, parity, bits, flow control.
    let (device, options) = text.split_once(',').unwrap_or((text, "0"));
    let named = device.starts_with(|c: char| c.is_ascii_alphabetic())
        && device.len() <= 15
        && device.bytes().all(|b| b.is_ascii_alphanumeric());
    let digits = options.bytes().take_while(u8::is_ascii_digit).count();
    let tail = &options.as_bytes()[digits..];
    let tail = tail.strip_suffix(b"r").unwrap_or(tail);
    let framed = matches!(tail, [] | [b'n' | b'o' | b'e'] | [b'n' | b'o' | b'e', b'5'..=b'8']);
    if text.is_empty() || named && (1..=7).contains(&digits) && framed {
        return Ok(text.to_owned());
    }
    let help = match text.strip_prefix("/dev/") {
        Some(name) => format!("write console = {}", quote(name).replace('\'', "\"")),
        None => "write console = \"ttyS0,115200\", or \"\" for none".to_owned(),
    };
    Err((format!("{} is not a serial console", quote(text)), help))
}

fn read_init(text: &str) -> Result<String, Problem> {
    let plain = text.chars().all(|c| c.is_ascii_graphic() && !"\"'`\\$".contains(c));
    let parts_fine = text.split('/').skip(1).all(|p| !matches!(p, "" | "." | ".."));
    match text.starts_with('/') && plain && parts_fine && text.len() <= 255 {
        true => Ok(text.to_owned()),
        false => Err((
            format!("{} is not the path of a program in the image", quote(text)),
            "write it from the image's root, without arguments, such as init = \"/sbin/init\"".to_owned(),
        )),
    }
}

/// A size as tmpfs accepts it: `50%`, `2g`.
fn read_ram_size(text: &str) -> Result<String, Problem> {
    let example = "write a share of the memory or a size as tmpfs takes it, such as ram-size = \"50%\" or \"2g\"";
    let wrong = |message: &str, help: String| Err((format!("{} {message}", quote(text)), help));
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let Ok(number) = number.parse::<u64>() else {
        return wrong("is not a size", example.to_owned());
    };
    let shift = match unit {
        "%" if (1..=100).contains(&number) => return Ok(text.to_owned()),
        "%" => return wrong("is not a share of the memory", "write 1% to 100%".to_owned()),
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "MiB" | "MB" | "GiB" | "GB" | "Gi" | "Mi" | "mb" | "gb" => {
            return wrong(
                "is not a size for tmpfs",
                format!("write ram-size = \"{number}{}\"", unit[..1].to_lowercase()),
            );
        }
        _ => return wrong("is not a size", example.to_owned()),
    };
    match number.checked_mul(1 << shift) {
        Some(bytes) if bytes >= 16 << 20 => Ok(text.to_owned()),
        Some(_) => wrong(
            "is too small",
            "write at least 16m: logs and configuration of a running node are stored there".to_owned(),
        ),
        None => wrong("is too large", example.to_owned()),
    }
}

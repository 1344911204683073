//! The image's configuration of modules, as it is in the initramfs (pure). The import has resolved directories and commands.

use crate::modalias::fnmatch;
use rackstrap_modindex::name_of;

/// Options, blacklists and aliases.
#[derive(Debug, Default)]
pub struct Config {
    /// Pattern and module.
    aliases: Vec<(String, String)>,
    blacklist: Vec<String>,
    blocked: Vec<String>,
    options: Vec<(String, String)>,
}

impl Config {
    /// Reads the lines of modprobe.d(5). `cmdline` has the words of the kernel's command line, which come last and so take precedence
    /// (`modprobe.blacklist=`, `MODULE.PARAMETER=`).
    pub fn new(text: &str, cmdline: &[String]) -> Self {
        let mut config = Config::default();
        for line in text.lines() {
            let mut words = line.splitn(3, ' ');
            let (Some(keyword), Some(name)) = (words.next(), words.next()) else {
                continue;
            };
            let rest = words.next().unwrap_or_default();
            match keyword {
                "alias" => config.aliases.push((name.to_owned(), name_of(rest))),
                "blacklist" => config.blacklist.push(name_of(name)),
                "install" => config.blocked.push(name_of(name)),
                "options" => config.options.push((name_of(name), rest.to_owned())),
                _ => {}
            }
        }
        for word in cmdline {
            if let Some(list) = word.strip_prefix("modprobe.blacklist=") {
                config.blacklist.extend(list.split(',').map(name_of));
            } else if let Some((name, parameter)) = word.split_once('.')
                && !parameter.is_empty()
            {
                let parameter = match parameter.split_once('=') {
                    Some((key, value)) if value.contains(' ') => format!("{key}=\"{value}\""),
                    _ => parameter.to_owned(),
                };
                config.options.push((name_of(name), parameter));
            }
        }
        config
    }

    /// The modules of a matching alias in the configuration; none if no alias matches. They replace those of the index.
    pub fn aliased(&self, wanted: &str) -> Vec<String> {
        let matching = self.aliases.iter();
        let matching = matching.filter(|(pattern, _)| fnmatch(pattern.as_bytes(), wanted.as_bytes()));
        matching.map(|(_, module)| module.clone()).collect()
    }

    /// True if the module must not be loaded for a device.
    pub fn is_blacklisted(&self, module: &str) -> bool {
        self.blacklist.iter().any(|name| name == module)
    }

    /// True if the module must not be loaded at all, not even as a dependency.
    pub fn is_blocked(&self, module: &str) -> bool {
        self.blocked.iter().any(|name| name == module)
    }

    /// The parameters of a module, separated by spaces.
    pub fn parameters(&self, module: &str) -> String {
        let of_module = self.options.iter().filter(|(name, _)| name == module);
        let of_module: Vec<&str> = of_module.map(|(_, text)| text.as_str()).collect();
        of_module.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn parameters_are_those_of_the_module() {
        let cmdline = words(&[
            "quiet",
            "nfs.a=1",
            "virtio-net.napi_tx=0",
            "virtio_net.x",
            "virtio_net.y=a b",
        ]);
        let config = Config::new(
            "options virtio_net napi_weight=32 csum=0\noptions virtio-net gso=0\n",
            &cmdline,
        );
        assert_eq!(
            config.parameters("virtio_net"),
            "napi_weight=32 csum=0 gso=0 napi_tx=0 x y=\"a b\"",
            "the command line comes last, as the kernel takes the last one"
        );
        assert_eq!(config.parameters("e1000"), "");
    }

    #[test]
    fn blacklists_and_aliases_are_read() {
        let text = "alias net-pf-10 off\nalias pci:v00008086d*sv* my-driver\nblacklist be2net\ninstall usb-storage /bin/false\n";
        let config = Config::new(text, &words(&["modprobe.blacklist=a-b,c"]));
        assert!(["be2net", "a_b", "c"].iter().all(|name| config.is_blacklisted(name)));
        assert!(!config.is_blacklisted("usb_storage") && config.is_blocked("usb_storage"));
        assert_eq!(config.aliased("net-pf-10"), ["off"]);
        assert_eq!(config.aliased("pci:v00008086d00001521sv1"), ["my_driver"]);
        assert!(config.aliased("pci:v00008087d1").is_empty());
    }

    proptest! {
        #[test]
        fn any_configuration_is_read(text in "((alias|options|install|blacklist) )?\\PC{0,40}", word in "\\PC{0,20}") {
            let config = Config::new(&text, std::slice::from_ref(&word));
            config.aliased(&word);
            config.parameters(&word);
        }
    }
}

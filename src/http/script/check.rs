//! Whether the site's own boot scripts can be rendered for each node (pure).

use super::{NodeScript, Scripts};
use rackstrap_base::{bootname::ScriptLanguage, pauses::Pauses};
use rackstrap_hostlist::NodeSet;
use rackstrap_model::inventory::{Inventory, Node, Settings};
use rackstrap_registries::boots::Turn;
use rackstrap_site::{Diagnostic, Site, one_line};
use rackstrap_wire::Plan;
use std::{collections::BTreeMap, path::Path};

const LANGUAGES: [ScriptLanguage; 4] = [
    ScriptLanguage::Ipxe,
    ScriptLanguage::Grub,
    ScriptLanguage::Pxelinux,
    ScriptLanguage::RaspberryPi,
];

impl Scripts {
    /// The problems of the scripts of nodes in `dir`, each with its file, its line and the nodes that it concerns. Without nodes,
    /// the variables of `[cluster]` and `[profile.default]` are tried, and scripts that read attributes are not.
    pub fn problems(&self, site: &Site, inventory: &Inventory, dir: &Path) -> Vec<Diagnostic> {
        let mut found: BTreeMap<(String, String), NodeSet> = BTreeMap::new();
        for language in LANGUAGES {
            let file = dir.join(format!("node.{}.j2", language.suffix()));
            let Ok(text) = std::fs::read_to_string(&file) else {
                continue;
            };
            let mut try_one = |settings: &Settings<'_>, attributes: &BTreeMap<String, String>, node: &str| {
                if let Err(problem) = self.tried(language, settings, attributes, node) {
                    let nodes = found.entry((file.display().to_string(), problem)).or_default();
                    nodes.insert(node);
                }
            };
            for node in inventory.iter() {
                let node: &Node = node;
                try_one(&Settings::of_node(site, node, |_| ()), &node.attributes, &node.name);
            }
            if inventory.is_empty() && !text.contains("attributes") {
                try_one(
                    &Settings::of(site, &[], |_| ()),
                    &BTreeMap::new(),
                    &site.cluster.naming.example(),
                );
            }
        }
        let all = found.into_iter().map(|((file, problem), nodes)| Diagnostic {
            file,
            line: 0,
            column: 0,
            message: one_line(&format!("{problem}, for {nodes}")),
            help: "define the variable in [cluster.vars], or write {% if NAME is defined %}".to_owned(),
            excerpt: None,
        });
        all.collect()
    }

    /// Renders a node's script with a boot that does not exist.
    fn tried(
        &self,
        language: ScriptLanguage,
        settings: &Settings<'_>,
        attributes: &BTreeMap<String, String>,
        node: &str,
    ) -> Result<(), String> {
        let plan = Plan::example(node);
        let vars = settings.plain_vars();
        let script = NodeScript {
            plan: &plan,
            token: "00000000000000000000000000000000",
            base: "http://10.5.0.1:80",
            agent_base: "http://10.5.0.1:80",
            console: settings.text(|p| &p.console).unwrap_or_default(),
            attributes,
            vars: &vars,
            kernel_args: "",
            device_trees: false,
            is_board: false,
            pauses: Pauses::spread(1),
            turn: Turn::default(),
            limited: true,
            file: None,
        };
        self.node(language, &script).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_model::testing;

    #[test]
    fn an_undefined_variable_of_a_boot_script_is_named_with_its_line_and_its_nodes() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(dir.path().join("node.ipxe.j2"), text).unwrap();
        let site = testing::cluster("[profile.gpu]\nvars = { pdu = \"pdu1\" }\n");
        let with = |name: &str, profile: &str| Node {
            profiles: vec![profile.to_owned()],
            ..testing::node(name)
        };
        let nodes = Inventory::new([
            with("r01n01", "gpu"),
            with("r01n02", "default"),
            with("r01n03", "default"),
        ]);
        let said = |inventory: &Inventory| -> Vec<String> {
            let scripts = Scripts::load(Some(dir.path())).unwrap();
            let all = scripts.problems(&site, inventory, dir.path()).into_iter();
            all.map(|problem| problem.message).collect()
        };
        write("#!ipxe\necho {{ vars.pdu }}\n");
        let found = said(&nodes);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].contains("undefined value") && found[0].contains("node.ipxe.j2:2"),
            "{found:?}"
        );
        assert!(found[0].ends_with(", for r01n[02-03]"), "{found:?}");
        assert_eq!(said(&Inventory::default()).len(), 1);
        write("#!ipxe\necho {{ vars.pdu | default('none') }} {{ attributes.x | default('') }}\n");
        assert_eq!(said(&nodes), [""; 0]);
        write("#!ipxe\necho {{ vars }}\n");
        assert!(said(&nodes)[0].contains("this is a table, and a text is wanted here"));
    }
}

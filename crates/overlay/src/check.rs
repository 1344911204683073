//! Renders every template before a node needs it.

use super::{facts, mounts, render::render, tree::Templates};
use rackstrap_catalog::{Catalog, ImageVersion};
use rackstrap_image::RootDir;
use rackstrap_model::inventory::{Inventory, Node, Settings};
use rackstrap_site::{Diagnostic, Site, value::Value};
use rackstrap_wire::ImageRef;
use std::{collections::BTreeMap, sync::Arc};

/// Problems of the trees: each profile's trees in their order, and then the trees that no profile names, are rendered for an
/// example node of the site, with the attributes that all nodes of the profile have. An error in a branch that does not apply
/// to that node is not found.
pub fn check(site: &Site, inventory: &Inventory, templates: &Templates) -> Vec<Diagnostic> {
    let mut problems: Vec<Diagnostic> = Vec::new();
    let mut named: Vec<String> = Vec::new();
    let mut tried = |profile: &str, tree: &str| {
        let profiles = [profile.to_owned()];
        let (mounts, _) = mounts::of_node(site, &profiles, &Settings::of(site, &profiles, |_| ()));
        let facts = facts::example(
            site,
            profile,
            mounts,
            expected_attributes(site, inventory, tree, templates),
            expected_vars(site, inventory, tree, profile),
        );
        if let Err(mut problem) = render(templates, &[tree.to_owned()], &facts, Vec::new())
            && !problems.iter().any(|known| is_same(known, &problem))
        {
            if problem.line == 0 {
                problem.message = match names(site, profile, tree) {
                    true => format!("{}; [profile.{profile}] names it", problem.message),
                    false => format!("{}; a node names it by its own setting", problem.message),
                };
            }
            problems.push(*problem);
        }
    };
    for profile in site.profiles.keys() {
        // Each tree by itself, so that the problems of all trees are found.
        for tree in Settings::of(site, std::slice::from_ref(profile), |_| ()).templates() {
            tried(profile, &tree);
            named.push(tree);
        }
    }
    // Trees that only nodes themselves name.
    for node in inventory.iter().filter(|node| !node.settings.is_empty()) {
        for tree in Settings::of_node(site, node, |_| ()).templates() {
            if !named.contains(&tree) {
                tried("default", &tree);
                named.push(tree);
            }
        }
    }
    for tree in templates
        .names()
        .filter(|name| !named.iter().any(|known| known == name))
    {
        tried("default", tree);
    }
    problems
}

/// Whether both are the same problem; the help of one profile may name other variables than that of another.
fn is_same(known: &Diagnostic, problem: &Diagnostic) -> bool {
    let place = |one: &Diagnostic| (one.file.clone(), one.line, one.column);
    place(known) == place(problem) && known.message.starts_with(&problem.message)
}

/// Whether nodes with that profile get that tree.
fn names(site: &Site, profile: &str, tree: &str) -> bool {
    let settings = Settings::of(site, std::slice::from_ref(&profile.to_owned()), |_| ());
    settings.templates().iter().any(|name| name == tree)
}

/// The attributes that all nodes with `tree` have, with the values of the first node. If no node gets the tree yet, the
/// attributes that templates name, because those of its later nodes are unknown.
fn expected_attributes(
    site: &Site,
    inventory: &Inventory,
    tree: &str,
    templates: &Templates,
) -> BTreeMap<String, String> {
    let gets = |node: &&Arc<Node>| {
        let named = Settings::of_node(site, node, |_| ()).templates();
        named.iter().any(|name| name == tree)
    };
    let mut nodes = inventory.iter().filter(gets);
    let Some(first) = nodes.next() else {
        return templates
            .attributes()
            .map(|name| (name.to_owned(), "example".to_owned()))
            .collect();
    };
    let mut shared = first.attributes.clone();
    for node in nodes {
        shared.retain(|name, _| node.attributes.contains_key(name));
    }
    shared
}

/// The variables that all nodes with `tree` and that profile have, with the values of the first node. If there are no such nodes, those
/// that the profile has: a variable that only nodes define needs a value in `[cluster.vars]`.
fn expected_vars(site: &Site, inventory: &Inventory, tree: &str, profile: &str) -> BTreeMap<String, Value> {
    const SECRET: Option<&str> = Some("secret");
    let gets = |node: &&Arc<Node>| {
        (profile == "default" || node.profiles.iter().any(|name| name == profile))
            && Settings::of_node(site, node, |_| ())
                .templates()
                .iter()
                .any(|name| name == tree)
    };
    let mut nodes = inventory.iter().filter(gets);
    let Some(first) = nodes.next() else {
        return Settings::of(site, std::slice::from_ref(&profile.to_owned()), |_| ()).vars(SECRET);
    };
    let mut shared = Settings::of_node(site, first, |_| ()).vars(SECRET);
    for node in nodes {
        let vars = Settings::of_node(site, node, |_| ()).vars(SECRET);
        shared.retain(|name, _| vars.contains_key(name));
    }
    shared
}

/// The images that profiles boot (their newest versions, unless pinned) and that enforce SELinux, which nodes cannot do.
pub fn enforcing_selinux(site: &Site, images: &Catalog) -> Vec<ImageRef> {
    let profiles = site.profiles.keys();
    let versions = profiles.filter_map(|profile| image_of(site, images, std::slice::from_ref(profile)));
    let mut found: Vec<ImageRef> = versions
        .filter(|version| version.enforces_selinux)
        .map(|version| version.manifest.image.clone())
        .collect();
    found.sort();
    found.dedup();
    found
}

fn image_of<'a>(site: &Site, images: &'a Catalog, profiles: &[String]) -> Option<&'a Arc<ImageVersion>> {
    let settings = Settings::of(site, profiles, |_| ());
    let named = settings.text(|p| &p.image).unwrap_or_default();
    match named.parse() {
        Ok(pinned) => images.get(&pinned),
        Err(_) => images.newest(named),
    }
}

/// What images lack for the mounts of the profiles that boot them.
pub fn lacking(site: &Site, images: &Catalog) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for profile in site.profiles.keys() {
        let profiles = std::slice::from_ref(profile);
        let Some(image) = image_of(site, images, profiles) else {
            continue;
        };
        let (mounts, _) = mounts::of_node(site, profiles, &Settings::of(site, profiles, |_| ()));
        for variant in image.variants() {
            let Ok(root) = RootDir::open(&variant.dir.join("root")) else {
                continue;
            };
            for lack in mounts::lacking(&mounts, &variant.export_name(), |path| root.exists(path)) {
                if !all.contains(&lack) {
                    all.push(lack);
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_site::parse;
    use std::{fs, path::Path};

    #[test]
    fn an_attribute_that_a_node_of_the_profile_lacks_is_named_with_file_and_line() {
        let text = "[cluster]\nnode-name = \"r{rack:02}n{slot:02}\"\nnode-address = \"10.5.{rack}.{slot}\"\n\
                    [[subnet]]\nnetwork = \"10.5.0.0/16\"\nrelayed = true\nserver = \"10.5.0.1\"\n\
                    [profile.gpu]\ntemplates = [\"t\"]\n";
        let (site, _) = parse(text, Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}"));
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("t/etc")).unwrap();
        fs::write(dir.path().join("t/etc/x.j2"), "fine\n{{ node.attributes.location }}\n").unwrap();
        let templates = Templates::load(Some(dir.path())).unwrap();
        let node = |slot: u8, profile: &str, attributes: &[(&str, &str)]| Node {
            name: format!("r01n{slot:02}"),
            hwaddrs: Vec::new(),
            ipaddr: [10, 5, 1, slot].into(),
            profiles: vec![profile.to_owned()],
            groups: Default::default(),
            attributes: (attributes.iter())
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            settings: Default::default(),
        };
        let problems = |nodes: Vec<Node>| -> Vec<String> {
            let found = check(&site, &Inventory::new(nodes), &templates);
            found.iter().map(|problem| problem.to_string()).collect()
        };
        let has = [("location", "row 3")];
        assert_eq!(problems(vec![node(1, "gpu", &has), node(2, "other", &[])]), [""; 0]);
        assert_eq!(
            problems(vec![node(1, "other", &has)]),
            [""; 0],
            "no node has the profile yet"
        );
        let lacks = problems(vec![node(1, "gpu", &has), node(2, "gpu", &[("rack", "1")])]);
        assert!(
            lacks.len() == 1
                && lacks[0].contains("t/etc/x.j2:2:")
                && lacks[0].contains("'node.attributes.location' is not defined"),
            "{lacks:?}"
        );
    }

    #[test]
    fn a_variable_that_a_node_lacks_is_named_also_before_there_are_nodes() {
        let text = "[cluster]\nnode-name = \"r{rack:02}n{slot:02}\"\nnode-address = \"10.5.{rack}.{slot}\"\n\
                    [[subnet]]\nnetwork = \"10.5.0.0/16\"\nrelayed = true\nserver = \"10.5.0.1\"\n\
                    [profile.default]\ntemplates = [\"t\"]\n[profile.gpu]\nvars = { pdu = \"1\" }\n";
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("t/etc")).unwrap();
        fs::write(
            dir.path().join("t/etc/x.j2"),
            "{% if 'gpu' in node.profiles %}{{ vars.pdu }}{% endif %}\n{{ vars.row }}\n",
        )
        .unwrap();
        let templates = Templates::load(Some(dir.path())).unwrap();
        let problems = |text: &str, nodes: &[(&str, &str, serde_json::Value)]| -> Vec<String> {
            let (site, _) = parse(text, Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}"));
            let nodes = nodes.iter().map(|(name, profile, settings)| Node {
                profiles: vec![(*profile).to_owned()],
                settings: serde_json::from_value(settings.clone()).unwrap(),
                ..rackstrap_model::testing::node(name)
            });
            let found = check(&site, &Inventory::new(nodes), &templates);
            found.iter().map(|problem| problem.brief()).collect()
        };
        let row = || serde_json::json!({ "vars.row": 7 });
        let secret = serde_json::json!({ "vars-secret.row": "7" });
        let lacks = problems(text, &[]);
        assert!(
            lacks.len() == 1 && lacks[0].contains("t/etc/x.j2:2:4: 'vars.row' is not defined"),
            "{lacks:?}"
        );
        assert_eq!(
            problems(text, &[("r01n01", "gpu", row()), ("r01n02", "default", secret)]),
            [""; 0]
        );
        assert_eq!(
            problems(
                text,
                &[("r01n01", "gpu", row()), ("r01n02", "default", serde_json::json!({}))]
            )
            .len(),
            1
        );
        assert_eq!(
            problems(&text.replace("[[subnet]]", "[cluster.vars]\nrow = 1\n[[subnet]]"), &[]),
            [""; 0]
        );
    }
}

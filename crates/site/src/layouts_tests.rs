use std::path::Path;

const SCRATCH: &str = "
[layout.scratch]
version = 1
[[layout.scratch.partition]]
name = \"tmp\"
size = \"rest\"
fs = \"ext4\"
mount = \"/tmp\"
";
const DATA: &str = "
[layout.data]
version = 3
disk = { transport = \"sata\", pick = \"largest\" }
[[layout.data.partition]]
name = \"data\"
size = \"rest\"
fs = \"xfs\"
mount = \"/data\"
";

/// The example's site with these layouts, which the default profile names as `layout`.
fn text(layouts: &str, layout: &str) -> String {
    let example = include_str!("../../../rackstrap.example.toml");
    let (before, _) = example.split_once("# A layout of disks.").unwrap();
    let before = before.replace("layout = \"scratch\"", &format!("layout = {layout}"));
    format!("{before}\n{layouts}")
}

fn read(layouts: &str, layout: &str) -> Result<crate::Site, String> {
    let read = crate::parse(&text(layouts, layout), Path::new("/site.toml"));
    read.map(|(site, _)| site).map_err(|error| error.to_string())
}

#[test]
fn a_node_has_several_layouts_in_order_each_with_its_rule() {
    let site = read(&format!("{SCRATCH}{DATA}"), "[\"scratch\", \"data\"]").unwrap();
    let names = site.profiles["default"].layout.clone().unwrap();
    assert_eq!(names, "scratch data");
    let found: Vec<_> = site
        .layouts_of(&names)
        .map(|policy| (policy.layout.version, policy.disk.as_deref()))
        .collect();
    assert_eq!(found, [(1, None), (3, Some("transport=sata, pick=largest"))]);
    assert_eq!(site.layouts_of("").count(), 0);
    // One name in a list is the same as the name alone.
    let one = read(SCRATCH, "[\"scratch\"]").unwrap();
    assert_eq!(one.profiles["default"].layout.as_deref(), Some("scratch"));
    assert_eq!(one.layouts, read(SCRATCH, "\"scratch\"").unwrap().layouts);
}

#[test]
fn the_digest_does_not_depend_on_the_rule() {
    let auto = DATA.replace("{ transport = \"sata\", pick = \"largest\" }", "\"sdb\"");
    let digest = |data: &str| {
        let site = read(&format!("{SCRATCH}{data}"), "[\"scratch\", \"data\"]").unwrap();
        site.layouts["data"].digest.clone()
    };
    assert_eq!(digest(DATA), digest(&auto));
}

#[test]
fn layouts_that_do_not_go_together_are_refused_with_what_to_write() {
    let both = "[\"scratch\", \"data\"]";
    let rule = "disk = { transport = \"sata\", pick = \"largest\" }\n";
    let named = "disk = { serial = \"A\" }\n";
    for (layouts, layout, said) in [
        (
            format!("{SCRATCH}{}", DATA.replace(rule, "")),
            both,
            "the layout 'data' is not the first one, and does not say which disk it is for",
        ),
        (
            format!("{SCRATCH}{}", DATA.replace(rule, "disk = \"auto\"\n")),
            both,
            "does not say which disk it is for",
        ),
        (
            format!("{SCRATCH}{}", DATA.replace("\"/data\"", "\"/tmp\"")),
            both,
            "the layouts 'scratch' and 'data' are both mounted on /tmp",
        ),
        (
            format!("{SCRATCH}{}", DATA.replace("name = \"data\"", "name = \"tmp\"")),
            both,
            "the layouts 'scratch' and 'data' both have a partition 'tmp'",
        ),
        (
            format!(
                "{}{}",
                SCRATCH.replace("version = 1\n", &format!("version = 1\n{named}")),
                DATA.replace(rule, named)
            ),
            both,
            "the layouts 'scratch' and 'data' are both for the disk serial=A",
        ),
        (
            format!("{SCRATCH}{}", DATA.replace(rule, &format!("{rule}esp = \"16MiB\"\n"))),
            both,
            "the layout 'data' has an EFI system partition, and is not the first one",
        ),
        (
            format!("{SCRATCH}{DATA}"),
            "[\"scratch\", \"scratch\"]",
            "this is in 'layout' twice",
        ),
        (
            format!("{SCRATCH}{DATA}"),
            "[\"scratch\", \"date\"]",
            "layout 'date' does not exist",
        ),
        (
            format!("{SCRATCH}{DATA}"),
            "[\"scratch\", \"\"]",
            "is no layout in a list of several",
        ),
        (
            format!("{SCRATCH}{DATA}"),
            "\"scratch data\"",
            "layout 'scratch data' does not exist",
        ),
        (
            format!("{SCRATCH}{DATA}"),
            "[\"a\", \"b\", \"c\", \"d\", \"e\"]",
            "layout 'a' does not exist",
        ),
    ] {
        let error = read(&layouts, layout).unwrap_err();
        assert!(error.contains(said), "{layout}: {error}");
    }
}

#[test]
fn a_profiles_disk_that_is_also_that_of_a_further_layout_is_refused() {
    let data = DATA.replace("{ transport = \"sata\", pick = \"largest\" }", "\"nvme0n1\"");
    let profile = "\n[profile.big]\ndisk = \"nvme0n1\"\n";
    let error = read(&format!("{SCRATCH}{data}{profile}"), "[\"scratch\", \"data\"]").unwrap_err();
    assert!(
        error.contains("the layouts 'scratch' and 'data' of the profile 'big' are both for the disk nvme0n1"),
        "{error}"
    );
    // Two rules that are equal can choose two disks.
    let rule = profile.replace("\"nvme0n1\"", "{ transport = \"sata\", pick = \"largest\" }");
    read(&format!("{SCRATCH}{DATA}{rule}"), "[\"scratch\", \"data\"]").unwrap();
}

#[test]
fn a_mount_over_a_further_layout_is_refused() {
    let mount = "[[mount]]\nwhat = \"10.5.0.9:/x\"\nwhere = \"/data\"\ntype = \"nfs\"\n";
    let error = read(&format!("{SCRATCH}{DATA}{mount}"), "[\"scratch\", \"data\"]").unwrap_err();
    assert!(
        error.contains("be mounted over /data") && error.contains("layout 'data'"),
        "{error}"
    );
}

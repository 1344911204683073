//! Diagnostics of `[[mount]]` and `[users]`.

use super::*;

#[test]
fn says_what_is_wrong_with_mounts_and_users() {
    let mount = |rest: &str| format!("[[mount]]\n{rest}");
    let home = "what = \"10.5.0.2:/home\"\nwhere = \"/home\"\ntype = \"nfs\"\n";
    let profiles = "[profile.compute]\n[profile.gpu]\n";
    let local = "[layout.s]\nversion = 1\n[[layout.s.partition]]\nname = \"a\"\nsize = \"rest\"\nfs = \"ext4\"\n\
                 mount = \"/scratch/local\"\n[profile.default]\n[profile.gpu]\nlayout = \"s\"\n";
    let texts = [
        "[mount]\nwhat = \"x\"\n".to_owned(),
        "mount = 3\n".to_owned(),
        mount("device = \"x\"\n"),
        mount(
            &home
                .replace("10.5.0.2:/home", "/home")
                .replace("\"/home\"\ntype", "\"home\"\ntype"),
        ),
        mount(
            &home
                .replace("where = \"/home\"", "where = \"/etc/x\"")
                .replace("nfs", "NFS"),
        ),
        mount(&home.replace("where = \"/home\"", "where = \"/\"")),
        mount(
            &home
                .replace("where = \"/home\"", "where = \"/root\"")
                .replace("\"nfs\"", "\"swap\""),
        ),
        mount(&home.replace("where = \"/home\"", "where = \"/srv/../x/\"")),
        mount(&home.replace("10.5.0.2", "10.5.0.1")),
        mount(&format!(
            "{home}options = \"rw, hard\"\nprofiles = [\"comput\", \"x\"]\nrequired = \"yes\"\n{profiles}"
        )),
        mount(&format!("{home}options = \"nofail\"\nrequired = true\nprofiles = []\n")),
        mount(&format!("{home}{}", mount(home))),
        mount(&format!(
            "{home}profiles = [\"gpu\"]\n{}profiles = [\"compute\"]\n{profiles}",
            mount(home)
        )),
        mount(&format!(
            "{home}profiles = [\"gpu\"]\n{}profiles = [\"default\"]\n{profiles}",
            mount(home)
        )),
        mount(&format!(
            "{}{local}",
            home.replace("\"/home\"\ntype", "\"/scratch\"\ntype")
        )),
        mount(&format!(
            "{}{local}",
            home.replace("\"/home\"\ntype", "\"/scratch/local/x\"\ntype")
        )),
        mount(&format!(
            "{}{local}",
            home.replace("\"/home\"\ntype", "\"/scratch\"\nprofiles = [\"gpu\"]\ntype")
        )),
        mount("what = \"//s/our share\"\nwhere = \"/mnt/s\"\ntype = \"cifs\"\noptions = \"password=x\"\n"),
        mount("what = \"sda1\"\nwhere = \"/mnt/s\"\ntype = \"xfs\"\n"),
        "[users]\nshadow = \"no\"\n".to_owned(),
        "[users]\nuid = \"0-99\"\ngid = \"2000-1000\"\nexclude = [\"a:b\"]\nfrom = \"~/x\"\n".to_owned(),
        "[users]\nuid = 1000\n".to_owned(),
        "[users]\nuid = \"100-4294967295\"\n".to_owned(),
        "[users]\nuid = \"100-200\"\ngid = \"1000\"\n".to_owned(),
    ];
    let cases: Vec<(&str, &str)> = texts.iter().map(|t| ("", t.as_str())).collect();
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(messages(&cases)) });
}

#[test]
fn mounts_and_users_are_read() {
    let text = format!(
        "{SMALL}\n[profile.gpu]\n[[mount]]\nwhat = \"LABEL=a b\"\nwhere = \"/srv/x\"\ntype = \"ext4\"\nprofiles = [\"gpu\"]\n\
         [users]\nuid = \"1000-2000\"\nfrom = \"accounts\"\n"
    );
    let site = site(&text);
    let mount = &site.mounts[0];
    assert_eq!(
        (mount.what.as_str(), mount.place.as_str(), mount.required),
        ("LABEL=a b", "/srv/x", false)
    );
    let applies = |names: &[&str]| mount.applies_to(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
    assert!(applies(&["cpu", "gpu"]) && !applies(&["cpu"]) && !applies(&[]));
    let users = site.users.unwrap();
    assert_eq!((users.uid.clone(), users.shadow), (1000..=2000, false));
    assert_eq!(
        (users.gid, users.from.as_path()),
        (users.uid, Path::new("/etc/rackstrap/accounts"))
    );
}

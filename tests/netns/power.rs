//! Power by IPMI: OpenIPMI's simulator is the BMCs, and ipmitool a second client of them.

use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use testbed::{
    Binaries, Cluster, Namespace, Result, Site,
    image::fake,
    netns::BRIDGE,
    process::{Running, output},
    timeline::poll,
};

const PATIENCE: Duration = Duration::from_secs(60);
/// The password of the site file. No log, argument or listing may have it.
const PASSWORD: &str = "geheim-77";

/// A BMC: a simulator whose machine is on while a file exists.
struct Bmc {
    address: String,
    on: PathBuf,
    _simulator: Running,
}

impl Bmc {
    /// Starts it on `machine`. `password` is that of its user `admin`. The simulator grants any privilege, whatever the limit of the user or channel is.
    fn start(machine: &Namespace, dir: &Path, address: &str, password: &str) -> Result<Bmc> {
        fs::create_dir_all(dir.join("state"))?;
        machine.ip(&["address", "add", &format!("{address}/16"), "dev", "eth0"])?;
        let (on, script) = (dir.join("on"), dir.join("chassis"));
        // ipmi_sim(8): `get power ...` prints a line for each word, and `set WORD VALUE` changes one.
        let text = format!(
            "#!/bin/sh\nop=$1; shift\ncase $op in\nget) for word in \"$@\"; do case $word in\n\
             power) [ -e {on} ] && echo power:1 || echo power:0;;\n\
             boot) echo boot:$(cat {on}.boot || echo none);;\n*) echo $word:0;; esac; done;;\n\
             set) while [ $# -gt 1 ]; do case $1:$2 in\npower:1) touch {on};;\npower:0|shutdown:1) rm -f {on};;\nboot:*) echo $2 > {on}.boot;;\nesac; shift 2; done;;\n\
             esac\n",
            on = on.display()
        );
        fs::write(&script, text)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let any = "none md2 md5 straight";
        let conf = format!(
            "name \"bmc\"\nset_working_mc 0x20\n  startlan 1\n    addr {address} 623\n    priv_limit admin\n\
             \x20   allowed_auths_callback {any}\n    allowed_auths_user {any}\n    allowed_auths_operator {any}\n    allowed_auths_admin {any}\n\
             \x20   guid a123456789abcdefa123456789abcdef\n  endlan\n  chassis_control \"{}\"\n\
             \x20 user 1 true \"\" \"\" user 10 {any}\n  user 2 true \"admin\" \"{password}\" admin 10 {any}\n",
            script.display()
        );
        fs::write(dir.join("lan.conf"), conf)?;
        let commands = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02\nsel_enable 0x20 1000 0x0a\nmc_enable 0x20\n";
        fs::write(dir.join("emu"), commands)?;
        let mut simulator = machine.command("ipmi_sim");
        simulator.arg("-n").arg("-c").arg(dir.join("lan.conf"));
        simulator
            .arg("-f")
            .arg(dir.join("emu"))
            .arg("-s")
            .arg(dir.join("state"));
        let quiet = simulator
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(Bmc {
            address: address.to_owned(),
            on,
            _simulator: Running::start("ipmi_sim", quiet)?,
        })
    }

    /// What ipmitool says of the power.
    fn says(&self, machine: &Namespace) -> Result<String> {
        let mut ipmitool = machine.command("ipmitool");
        ipmitool.args([
            "-I",
            "lanplus",
            "-C",
            "3",
            "-U",
            "admin",
            "-P",
            PASSWORD,
            "-H",
            &self.address,
        ]);
        Ok(output(ipmitool.args(["chassis", "power", "status"]))?.trim().to_owned())
    }
}

/// A cluster with the BMCs 10.7.RACK.SLOT, which are on a machine of their own.
fn cluster() -> Result<(Cluster, Namespace)> {
    let mut site = Site::demo();
    site.more =
        "[bmc]\naddress = \"10.7.{rack}.{slot}\"\nuser = \"admin\"\npassword-file = \"bmc.password\"\n".to_owned();
    let cluster = Cluster::with_images(&Binaries::get()?, &site, Vec::new())?;
    fake(&cluster.daemon.state_dir().join("images"), "debian@1", 0)?;
    let file = cluster.daemon.state_dir().join("bmc.password");
    fs::write(&file, format!("{PASSWORD}\n"))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    cluster
        .namespace
        .ip(&["address", "add", "10.7.0.1/16", "dev", BRIDGE])?;
    cluster.start_daemon()?;
    let machine = cluster.namespace.client("52:54:00:00:77:77")?;
    for number in 1..=9 {
        let (name, hwaddr) = (format!("r01n{number:02}"), format!("52:54:00:00:01:{number:02}"));
        cluster.daemon.cli(&["node", "add", &name, "--hwaddr", &hwaddr])?;
    }
    Ok((cluster, machine))
}

/// The row of the only node.
fn row(answer: &Value) -> Value {
    answer["nodes"][0].clone()
}

#[test]
fn power_commands_switch_the_machine_of_the_nodes_bmc_and_each_is_on_its_timeline() -> Result {
    let (cluster, machine) = cluster()?;
    let dir = cluster.dir().to_owned();
    let bmc = Bmc::start(&machine, &dir.join("bmc1"), "10.7.1.1", PASSWORD)?;
    let other = Bmc::start(&machine, &dir.join("bmc2"), "10.7.1.2", PASSWORD)?;
    // The simulator takes a moment until it listens.
    let up = poll(PATIENCE, || {
        Ok([&bmc, &other]
            .iter()
            .all(|bmc| bmc.says(&machine).is_ok())
            .then_some(()))
    })?;
    assert_eq!(up, Some(()), "ipmi_sim does not answer ipmitool");
    let power = |verb: &str| cluster.daemon.json(&["power", verb, "r01n01"]);

    let status = row(&power("status")?);
    assert_eq!(
        (&status["before"], &status["bmc"]),
        (&Value::Bool(false), &Value::from("10.7.1.1"))
    );
    let on = row(&power("on")?);
    assert_eq!(
        (&on["before"], &on["after"], &on["level"]),
        (&false.into(), &true.into(), &"ok".into())
    );
    assert!(bmc.on.exists());
    assert_eq!(bmc.says(&machine)?, "Chassis Power is on");
    assert_eq!(row(&power("on")?)["detail"], "already on");
    power("reset")?;
    power("identify")?;
    cluster.daemon.cli(&["power", "boot", "r01n01", "--from", "network"])?;
    assert_eq!(fs::read_to_string(bmc.on.with_extension("boot"))?.trim(), "pxe");
    power("cycle")?;
    assert_eq!(bmc.says(&machine)?, "Chassis Power is on");
    let soft = row(&power("soft")?);
    assert_eq!((&soft["before"], &soft["after"]), (&true.into(), &false.into()));
    assert_eq!(bmc.says(&machine)?, "Chassis Power is off");
    // The power is off: a cycle would do nothing.
    let refused = power("cycle").unwrap_err().to_string();
    assert!(
        refused.contains("the power is off") && refused.contains("rackstrap power on"),
        "{refused}"
    );
    // The other machine was switched by none of this.
    assert!(!other.on.exists());

    let timeline = cluster.daemon.json(&["timeline", "r01n01"])?;
    let events = timeline["events"].as_array().cloned().unwrap_or_default();
    let lines: Vec<String> = events
        .iter()
        .filter(|event| event["step"].as_str().is_some_and(|step| step.starts_with("power")))
        .filter_map(|event| Some(event["detail"].as_str()?.to_owned()))
        .collect();
    assert_eq!(lines.len(), 8, "{lines:?}");
    assert!(
        lines[0].starts_with("on by root") && lines[0].ends_with(": off -> on"),
        "{lines:?}"
    );
    assert!(
        lines[6].starts_with("soft by root") && lines[6].ends_with(": on -> off"),
        "{lines:?}"
    );

    // It is off because somebody wanted it.
    let off = cluster.daemon.cli(&["node", "list", "@state:off", "--names"])?;
    assert_eq!(off.trim(), "r01n01");

    // Who shows the BMC, and who shows its password.
    let shown = cluster.daemon.cli(&["node", "show", "r01n01"])?;
    assert!(shown.contains("10.7.1.1 (ipmi, user admin)"), "{shown}");
    assert!(cluster.daemon.cli(&["export", "hosts"])?.contains("10.7.1.1"));
    let texts = [
        shown,
        cluster.daemon.log(),
        timeline.to_string(),
        cluster.daemon.cli(&["explain", "r01n01"])?,
    ];
    assert!(texts.iter().all(|text| !text.contains(PASSWORD)));
    Ok(())
}

#[test]
fn bmcs_that_refuse_or_never_answer_are_named_with_the_reason_and_delay_no_other() -> Result {
    let (cluster, machine) = cluster()?;
    let dir = cluster.dir().to_owned();
    let good = Bmc::start(&machine, &dir.join("bmc1"), "10.7.1.1", PASSWORD)?;
    let _other_password = Bmc::start(&machine, &dir.join("bmc2"), "10.7.1.2", "another")?;
    // A machine without a BMC's program, and an address that no machine has.
    machine.ip(&["address", "add", "10.7.1.4/16", "dev", "eth0"])?;
    cluster.daemon.cli(&["node", "set", "r01n06", "bmc-address="])?;
    cluster.daemon.cli(&["node", "set", "r01n07", "bmc-address=10.7.1.8"])?;
    let up = poll(PATIENCE, || Ok(good.says(&machine).is_ok().then_some(())))?;
    assert_eq!(up, Some(()), "ipmi_sim does not answer ipmitool");

    let text = cluster
        .daemon
        .cli(&["power", "on", "r01n[01-02,04-08]", "--within", "4s"])
        .unwrap_err()
        .to_string();
    let line = |node: &str| {
        text.lines()
            .find(|line| line.starts_with(node))
            .unwrap_or_default()
            .to_owned()
    };
    for (node, says) in [
        ("r01n01", "done"),
        ("r01n02", "another password"),
        ("r01n04", "no login within 4 s"),
        ("r01n05", "no login within 4 s"),
        ("r01n06", "the node has no BMC"),
        ("r01n07", "and so has the BMC of r01n08"),
        ("r01n08", "and so has the BMC of r01n07"),
    ] {
        assert!(line(node).contains(says), "{node}: {says}\n{text}");
    }
    assert!(good.on.exists());
    assert!(text.contains("help: r01n[04-05]: check the BMC's address"), "{text}");
    // Nine nodes are too many without a question, which needs a terminal.
    let asked = cluster
        .daemon
        .cli(&["power", "off", "r01n[01-09]"])
        .unwrap_err()
        .to_string();
    assert!(asked.contains("--yes"), "{asked}");
    assert!(good.on.exists());
    let nobody = cluster.daemon.cli(&["power", "off"]).unwrap_err().to_string();
    assert!(nobody.contains("NODES"), "{nobody}");
    // `check` and `status` name the two that have one address.
    let status = cluster.daemon.cli(&["status"])?;
    assert!(status.contains("r01n07: its BMC has the address 10.7.1.8"), "{status}");
    assert!(!cluster.daemon.log().contains(PASSWORD));
    Ok(())
}

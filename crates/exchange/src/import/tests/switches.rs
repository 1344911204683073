//! Tests of MAC tables as terminals of several manufacturers show them, and of port maps.

use super::*;

fn table(map: &str, text: &str) -> Result<Import, ImportError> {
    let naming = naming();
    let options = Options {
        format: None,
        naming: &naming,
        domain: "",
        ports: Some(Ports {
            file: "ports",
            text: map,
        }),
    };
    read("paste", text, &options)
}

fn rows(map: &str, text: &str) -> Vec<String> {
    listed(&table(map, text).unwrap_or_else(|error| panic!("{error}")))
}

fn refused(map: &str, text: &str) -> Vec<String> {
    told(&table(map, text).unwrap_err().problems)
}

const IOS: &str = "sw3#show mac address-table
          Mac Address Table
-------------------------------------------

Vlan    Mac Address       Type        Ports
----    -----------       --------    -----
 All    0100.0ccc.cccc    STATIC      CPU
 All    ffff.ffff.ffff    STATIC      CPU
   1    0011.2233.4455    STATIC      CPU
   1    5254.0003.0101    DYNAMIC     Gi1/0/1
  20    5254.0003.0101    DYNAMIC     Gi1/0/1
 --More-- \u{8}\u{8}\u{8}\u{8}         \u{8}\u{8}   1    5254.0003.0102    DYNAMIC     Gi1/0/2
   1    5254.0009.0001    DYNAMIC     Gi1/0/48
   1    5254.0009.0002    DYNAMIC     Gi1/0/48
   1    5254.0009.0003    DYNAMIC     Po1
Total Mac Addresses for this criterion: 8
sw3#";

#[test]
fn cisco_ios() {
    let read =
        table("GigabitEthernet1/0/[1-3] = r03n[01-03]  # rack 3\n", IOS).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        listed(&read),
        ["10 r03n01 52:54:00:03:01:01", "12 r03n02 52:54:00:03:01:02"]
    );
    assert_eq!((read.unmapped_hwaddrs, read.unmapped_ports), (3, 2));
    assert_eq!(read.format, Format::Switch);
    assert_eq!(
        told(&read.warnings),
        [
            "9: left out: a line has a hardware address and no port, here first -> most of them are the switch's own; \
             if one is a node's, write its port after it",
            "0: no hardware address on 1 port of the map: GigabitEthernet1/0/3 (r03n03) -> switch those machines on, \
             and take the table again within its aging time",
            "0: left out: 3 hardware addresses on 2 ports that lead to no node: Gi1/0/48 (2), Po1 (1) -> if one of \
             them leads to a node, add it to the port map",
        ]
    );
}

#[test]
fn other_manufacturers() {
    let nxos = "Legend:\n   VLAN     MAC Address      Type      age     Secure NTFY Ports\n---------+-----\n\
                *   10     5254.0003.0101   dynamic  0         F      F    Eth1/1\n\
                G    -     0022.bdf8.19ff   static   -         F      F    sup-eth1(R)\n";
    assert_eq!(
        rows("Ethernet1/{slot} = r03n{slot:02}", nxos),
        ["4 r03n01 52:54:00:03:01:01"]
    );
    let arista = "Vlan    Mac Address       Type        Ports      Moves   Last Move\n\
     ----    -----------       ----        -----      -----   ---------\n\
                  \x20  1    5254.0003.0107    DYNAMIC     Et7        1       0:01:23 ago\n\
                  \x20  1    5254.0003.0108    DYNAMIC     Et8/1      12      1 day, 0:01:23 ago\n";
    assert_eq!(
        rows("Et{slot} = r03n{slot:02}\nEthernet8/1 = r03n08", arista),
        ["3 r03n07 52:54:00:03:01:07", "4 r03n08 52:54:00:03:01:08"]
    );
    let junos = "Ethernet switching table : 2 entries, 2 learned\nRouting instance : default-switch\n\
     \x20  Vlan      MAC                 MAC      Age    Logical             NH        RTR\n\
     \x20  name      address             flags           interface           Index     ID\n\
                 \x20  vlan10    52:54:00:03:01:01   D          -   ge-0/0/0.0          0         0\n\
                 \x20  vlan10    52:54:00:03:01:02   D          -   ge-0/0/1.0          0         0\n";
    assert_eq!(
        rows("ge-0/0/[0-1] = r03n[01-02]", junos),
        ["5 r03n01 52:54:00:03:01:01", "6 r03n02 52:54:00:03:01:02"]
    );
    let old_junos = "  VLAN              MAC address       Type         Age Interfaces\n\
     \x20 default           *                 Flood          - All-members\n\
     \x20 default           52:54:00:03:01:01 Learn          0 ge-0/0/0.0\n";
    assert_eq!(rows("ge-0/0/0.0 = r03n01", old_junos), ["3 r03n01 52:54:00:03:01:01"]);
    let procurve = "\u{1b}[24;1H Status and Counters - Port Address Table\n\n  MAC Address   Port  VLAN\n\
     \x20 ------------- ----- ----\n  525400-030101 1     10  \n  525400-030102 A2    10\n\
     \x20 525400-030199 Trk1  10\n";
    assert_eq!(
        rows("1 = r03n01\nA{slot} = r03n{slot:02}", procurve),
        ["5 r03n01 52:54:00:03:01:01", "6 r03n02 52:54:00:03:01:02"]
    );
    let vlan_first = "  MAC Address   VLAN  Port\n  525400-030101 10    1\n";
    assert_eq!(rows("{n} = r03n{n:02}", vlan_first), ["2 r03n01 52:54:00:03:01:01"]);
    let aos_cx = "MAC age-time            : 300 seconds\n\
     MAC Address          VLAN     Type                      Port\n\
     --------------------------------------------------------------\n\
     52:54:00:03:01:01    1        dynamic                   1/1/1\n";
    assert_eq!(
        rows("1/1/{slot} = r03n{slot:02}", aos_cx),
        ["4 r03n01 52:54:00:03:01:01"]
    );
    let comware = "MAC Address      VLAN ID    State            Port/Nickname            Aging\n\
     5254-0003-0101   1          Learned          GE1/0/1                  Y\n\
     5254-0003-0102   1          Learned          XGE1/0/2                 Y\n";
    assert_eq!(
        rows("GigabitEthernet1/0/1=r03n01\nTen-GigabitEthernet1/0/2=r03n02", comware),
        ["2 r03n01 52:54:00:03:01:01", "3 r03n02 52:54:00:03:01:02"]
    );
    let bridge = "01:00:5e:00:00:01 dev eth0 self permanent\n\
     52:54:00:03:01:01 dev swp1 vlan 10 master br0 extern_learn\n52:54:00:03:01:01 dev swp1 master br0\n\
     7e:00:00:00:00:01 dev swp1 vlan 10 master br0 permanent\n52:54:00:03:01:02 dev enp1s0f1 master br0\n";
    assert_eq!(
        rows("swp{slot} = r03n{slot:02}\nenp1s0f1 = r03n02", bridge),
        ["2 r03n01 52:54:00:03:01:01", "5 r03n02 52:54:00:03:01:02"]
    );
    let spaced = "1    52:54:00:03:01:01    Dynamic    Te 0/1\n";
    assert_eq!(rows("te0/1 = r03n01", spaced), ["1 r03n01 52:54:00:03:01:01"]);
}

#[test]
fn a_port_is_one_machine() {
    let map = "Gi1/0/{slot} = r03n{slot:02}\nGi1/0/48 = -\n";
    let mut text = IOS.to_owned();
    assert_eq!(rows(map, &text).len(), 2);
    text.push_str("\n 1 5254.0003.0177 DYNAMIC Gi1/0/2\n");
    assert_eq!(
        refused(map, &text),
        [
            "18: port Gi1/0/2 (r03n02) has 2 hardware addresses, 52:54:00:03:01:02 on line 12 and \
             52:54:00:03:01:77 here -> \
          if it leads to another switch, leave it out: Gi1/0/2 = -; if the second address is the machine's management \
          controller, delete that line"
        ]
    );
    text.push_str(" 1 5254.0003.0178 DYNAMIC Gi1/0/2\n");
    assert!(
        refused(map, &text)[0].contains("has 3 hardware addresses") && refused(map, &text)[0].contains("an uplink?")
    );
    let moved = "1 5254.0003.0101 DYNAMIC Gi1/0/1\n1 5254.0003.0101 DYNAMIC Gi1/0/2\n";
    assert_eq!(
        refused(map, moved),
        [
            "2: hwaddr 52:54:00:03:01:01 is on line 1 already, as r03n01's -> a card is in one machine: check \
             which of the \
          two has it"
        ]
    );
    assert_eq!(
        refused(
            map,
            "1 5254.0003.0101 5254.0003.0102 DYNAMIC Gi1/0/1\n1 5254.0003.0103 DYNAMIC Gi1/0/3 Gi1/0/4\n"
        ),
        [
            "1: two hardware addresses in one line, 52:54:00:03:01:01 and 52:54:00:03:01:02 -> put each on its own \
             line, with its port",
            "2: two ports in one line, Gi1/0/3 and Gi1/0/4 -> keep only the port that the machine is on",
        ]
    );
    assert!(refused(map, "nothing at all\n")[0].starts_with("0: it contains no nodes, read as switch"));
}

#[test]
fn port_maps() {
    let row = "1 52:54:00:03:01:01 dynamic";
    let node = |map: &str, port: &str| rows(map, &format!("{row} {port}\n"))[0].clone();
    let ok = |node: &str| format!("1 {node} 52:54:00:03:01:01");
    assert_eq!(node("Gi[1-2]/0/[1-16] = r[03-04]n[01-16]", "Gi2/0/16"), ok("r04n16"));
    assert_eq!(node("Gi1/0/[1-31/2,40] = r03n[01-16,20]", "Gi1/0/31"), ok("r03n16"));
    assert_eq!(node("Gi1/0/[1-31/2,40] = r03n[01-16,20]", "Gi1/0/40"), ok("r03n20"));
    assert_eq!(
        node("Gi{rack}/0/{slot} = r{rack:02}n{slot:02}", "GigabitEthernet3/0/7"),
        ok("r03n07")
    );
    assert_eq!(node("port{n} = r03n{n:02}", "port12"), ok("r03n12"));
    assert_eq!(
        node("Gi1/0/{n} = r03n{n:02}\nGi1/0/7 = r09n01", "Gi1/0/7"),
        ok("r09n01")
    );
    assert_eq!(node("uplink-a = r03n01", "uplink-A"), ok("r03n01"));
}

#[test]
fn bad_port_maps() {
    let all = refused(
        "Gi1/0/1 r03n01\nGi1/0/2 = r03n02\nGigabitEthernet1/0/2 = r03n03\nGi1/0/4 = r03n02\n\
         Gi1/0/[5-7] = r03n[05-06]\nGi1/0/[8 = r03n08\nGi1/0/[9-8] = r03n[08-09]\n\
         Gi1/0/{a}{b} = r{a}n{b}\nGi1/0/{a} = r03n01\nGi1/0/{slot} = r{rack}n{slot}\nGi1/0/{a:2} = r{a}\n\
         Gi1/0/{A} = r{A}\nGi1/0/{a = r\n= r03n01\nGi[1-65536]/[1-65536] = r\n{a}1={a}\nGi{a}/{a}=r{a}\n\
         Gi[1-2]/{a}=r{a}\n",
        "1 52:54:00:03:01:01 dynamic Gi1/0/2\n",
    );
    let starts = [
        "1: no '=' between a port and a node -> write PORT = NAME",
        "3: port GigabitEthernet1/0/2 is on line 2 already, as Gi1/0/2",
        "4: r03n02 is on port Gi1/0/2 already, on line 2",
        "5: 3 ports for 2 nodes",
        "6: an unmatched bracket in 'Gi1/0/[8'",
        "7: '[9-8]' is not a range",
        "8: nothing says where '{a}' ends",
        "9: '{a}' is not on the node's side",
        "10: '{rack}' is not on the port's side",
        "11: '{a:2}' has no width such as :02",
        "12: ",
        "13: an unmatched brace in",
        "14: one side of the '=' is empty",
        "15: 'Gi[1-65536]/[1-65536]' stands for more than 65536 names",
        "16: nothing says where '{a}' ends",
        "17: '{a}' occurs twice on one side",
        "18: a range and a variable in one line",
    ];
    assert_eq!(all.len(), starts.len(), "{all:#?}");
    for (said, start) in all.iter().zip(starts) {
        assert!(said.starts_with(start), "{said}\n{start}");
    }
    assert!(refused("# nothing\n", "1 52:54:00:03:01:01 dynamic Gi1/0/2\n")[0].starts_with("0: no port in the map"));
}

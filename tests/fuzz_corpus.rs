//! Runs the fuzz targets over their corpora, so that every test run repeats what fuzzing once found.

#[path = "../fuzz/bodies/backup.rs"]
mod backup;
#[path = "../fuzz/bodies/console.rs"]
mod console;
#[path = "../fuzz/bodies/dhcp.rs"]
mod dhcp;
#[path = "../fuzz/bodies/disk.rs"]
mod disk;
#[path = "../fuzz/bodies/disk_health.rs"]
mod disk_health;
#[cfg(feature = "dns")]
#[path = "../fuzz/bodies/dns.rs"]
mod dns;
#[path = "../fuzz/bodies/image.rs"]
mod image;
#[path = "../fuzz/bodies/image_list.rs"]
mod image_list;
#[path = "../fuzz/bodies/import.rs"]
mod import;
#[path = "../fuzz/bodies/ipmi.rs"]
mod ipmi;
#[path = "../fuzz/bodies/kernel.rs"]
mod kernel;
#[path = "../fuzz/bodies/modules.rs"]
mod modules;
#[path = "../fuzz/bodies/ndp.rs"]
mod ndp;
#[path = "../fuzz/bodies/nfs.rs"]
pub mod nfs;
#[path = "../fuzz/bodies/oci.rs"]
mod oci;
#[path = "../fuzz/bodies/rival.rs"]
mod rival;
#[path = "../fuzz/bodies/site.rs"]
mod site;
#[path = "../fuzz/bodies/tftp.rs"]
mod tftp;
#[path = "../fuzz/bodies/wire.rs"]
mod wire;

/// Runs `body` over every file of `fuzz/corpus/TARGET`. At least `good` of them must be valid inputs; a corpus of invalid
/// ones would test little.
fn replay(target: &str, good: usize, body: fn(&[u8]) -> bool) {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut understood = 0;
    for file in files {
        // A failing run prints the name last.
        println!("{}", file.display());
        let good = body(&std::fs::read(&file).unwrap());
        println!("    {}", if good { "understood" } else { "refused" });
        understood += usize::from(good);
    }
    assert!(understood >= good, "{}: {understood} of {good}", directory.display());
}

#[test]
fn backup_corpus() {
    replay("backup", 1, backup::run);
}

#[test]
fn console_corpus() {
    replay("console", 4, console::run);
}

#[test]
fn dhcp_corpus() {
    replay("dhcp", 20, dhcp::run);
}

#[test]
fn disk_corpus() {
    replay("disk", 6, disk::run);
}

#[test]
fn disk_health_corpus() {
    replay("disk_health", 4, disk_health::run);
}

#[cfg(feature = "dns")]
#[test]
fn dns_corpus() {
    replay("dns", 10, dns::run);
}

#[test]
fn image_corpus() {
    replay("image", 4, image::run);
}

#[test]
fn image_list_corpus() {
    replay("image_list", 3, image_list::run);
}

#[test]
fn import_corpus() {
    replay("import", 6, import::run);
}

#[test]
fn ipmi_corpus() {
    replay("ipmi", 2, ipmi::run);
}

#[test]
fn kernel_corpus() {
    replay("kernel", 7, kernel::run);
}

#[test]
fn modules_corpus() {
    replay("modules", 5, modules::run);
}

#[test]
fn ndp_corpus() {
    replay("ndp", 2, ndp::run);
}

#[test]
fn nfs_corpus() {
    replay("nfs", 10, nfs::run);
}

#[test]
fn oci_corpus() {
    replay("oci", 5, oci::run);
}

#[test]
fn rival_corpus() {
    replay("rival", 4, rival::run);
}

#[test]
fn site_corpus() {
    replay("site", 5, site::run);
}

#[test]
fn tftp_corpus() {
    replay("tftp", 6, tftp::run);
}

#[test]
fn wire_corpus() {
    replay("wire", 6, wire::run);
}

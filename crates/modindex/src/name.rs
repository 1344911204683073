//! Names of kernel modules. Imports write indexes with these names, and the agent reads them.

/// A module's path without the suffix of its compression: `kernel/fs/nfs/nfs.ko.xz` -> `kernel/fs/nfs/nfs.ko`.
pub fn plain_path(path: &str) -> &str {
    [".xz", ".zst", ".gz"]
        .iter()
        .find_map(|ending| path.strip_suffix(ending))
        .unwrap_or(path)
}

/// The kernel's name of a module: `kernel/net/mac-x/foo-bar.ko.zst` -> `foo_bar`.
pub fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = plain_path(file).trim_end_matches(".ko");
    stem.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_names_have_no_suffix_and_no_dashes() {
        assert_eq!(plain_path("kernel/fs/nfs/nfs.ko.xz"), "kernel/fs/nfs/nfs.ko");
        assert_eq!(plain_path("kernel/fs/nfs/nfs.ko"), "kernel/fs/nfs/nfs.ko");
        assert_eq!(name_of("kernel/drivers/net/phy/mdio-i2c.ko.zst"), "mdio_i2c");
        // Only the end of a path counts as a suffix.
        assert_eq!(plain_path("extra/x.kolor/y.ko.gz"), "extra/x.kolor/y.ko");
        assert_eq!(name_of("extra/x.kolor/y.kolor-z.ko"), "y.kolor_z");
        assert_eq!(name_of("virtio-net"), "virtio_net");
    }
}

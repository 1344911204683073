//! What the making of a version tells whoever watches it.

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Building a tree from a recipe; lines of the program that does it say how far it is.
    Bootstrap,
    /// Counting files and bytes of the source.
    Count,
    /// Fetching layers of a container image and extracting them; their stored bytes are counted.
    Layers,
    /// Copying or extracting the tree.
    Copy,
    /// Collecting modules and compressing the initramfs.
    Initramfs,
    /// Hashing the tree.
    Digest,
    /// Waiting until everything is on disk.
    Sync,
    /// Comparing two trees.
    Compare,
    /// Removing a tree.
    Remove,
}

impl Step {
    /// What people see.
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Bootstrap => "bootstrapping",
            Step::Count => "counting",
            Step::Layers => "extracting layers",
            Step::Copy => "copying",
            Step::Initramfs => "building initramfs",
            Step::Digest => "hashing",
            Step::Sync => "writing to disk",
            Step::Compare => "comparing",
            Step::Remove => "removing",
        }
    }
}

/// Watches the making of a version.
pub trait Progress {
    /// A step begins. `bytes` is how many bytes [`Progress::advance`] will add up to, if known.
    fn begin(&mut self, step: Step, bytes: Option<u64>);
    /// So many files and bytes of the step are done in addition.
    fn advance(&mut self, files: u64, bytes: u64);
    /// What the step is doing just now, a line of the program that does it.
    fn doing(&mut self, _line: &str) {}
    /// Something that a person should know and that does not stop it.
    fn note(&mut self, text: &str);
    /// Files and directories are different from before: what would be found if it all ended here.
    fn reached(&mut self, _point: &'static str) {}
}

/// Tells nobody.
#[cfg(test)]
#[derive(Debug, Default)]
pub struct Quiet;

#[cfg(test)]
impl Progress for Quiet {
    fn begin(&mut self, _step: Step, _bytes: Option<u64>) {}
    fn advance(&mut self, _files: u64, _bytes: u64) {}
    fn note(&mut self, _text: &str) {}
}

//! What an import tells whoever watches it.

/// What an import is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Building a tree from a recipe; mmdebstrap's own lines say how far it is.
    Bootstrap,
    /// Counting files and bytes of the source.
    Count,
    /// Fetching layers of a container image and extracting them; their stored bytes are counted.
    Layers,
    /// Copying or extracting the tree.
    Copy,
    /// Collecting modules and compressing the initramfs.
    Initramfs,
    /// Waiting until everything is on disk.
    Sync,
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
            Step::Sync => "writing to disk",
        }
    }
}

/// Watches an import.
pub trait Progress {
    /// A step begins. `bytes` is how many bytes [`Progress::advance`] will add up to, if known.
    fn begin(&mut self, step: Step, bytes: Option<u64>);
    /// So many files and bytes of the step are done in addition.
    fn advance(&mut self, files: u64, bytes: u64);
    /// What the step is doing just now, a line of the program that does it.
    fn doing(&mut self, _line: &str) {}
    /// Something that a person should know and that does not stop the import.
    fn note(&mut self, text: &str);
}

/// Tells nobody.
#[derive(Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn begin(&mut self, _step: Step, _bytes: Option<u64>) {}
    fn advance(&mut self, _files: u64, _bytes: u64) {}
    fn note(&mut self, _text: &str) {}
}

//! The progress of making a version.

/// A step of making a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Building a tree from a recipe; the lines of the program show its progress.
    Bootstrap,
    /// Counting files and bytes of the source.
    Count,
    /// Fetching layers of a container image and extracting them; progress counts their stored bytes.
    Layers,
    /// Copying or extracting the tree.
    Copy,
    /// Collecting modules and compressing the initramfs.
    Initramfs,
    /// Hashing the tree.
    Digest,
    /// Waiting until all data is on disk.
    Sync,
    /// Comparing two trees.
    Compare,
    /// Removing a tree.
    Remove,
}

impl Step {
    /// The name for people.
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

/// Receives the progress of making a version.
pub trait Progress {
    /// A step begins. `bytes` is the total of all calls of [`Progress::advance`], if known.
    fn begin(&mut self, step: Step, bytes: Option<u64>);
    /// Further files and bytes of the step are complete.
    fn advance(&mut self, files: u64, bytes: u64);
    /// A line of output of the program that runs in this step.
    fn doing(&mut self, _line: &str) {}
    /// A remark for a person; the work continues.
    fn remark(&mut self, text: &str);
    /// The files on disk have changed. An interruption here would leave this state. Tests use it.
    fn reached(&mut self, _point: &'static str) {}
}

/// Ignores all progress.
#[cfg(test)]
#[derive(Debug, Default)]
pub struct Quiet;

#[cfg(test)]
impl Progress for Quiet {
    fn begin(&mut self, _step: Step, _bytes: Option<u64>) {}
    fn advance(&mut self, _files: u64, _bytes: u64) {}
    fn remark(&mut self, _text: &str) {}
}

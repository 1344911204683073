//! Verifies that a version has not changed since it was sealed.

use super::{
    ImageVersion,
    digest::{digest_file, digest_tree},
    error::{Doing, ImportError, Result},
    locks::{Locked, held, open_dir, try_lock},
    progress::Progress,
    tree::Copied,
};
use rackstrap_catalog::System;
use std::os::fd::AsFd;

/// Prevents the deletion of `version` until the result is dropped.
///
/// # Errors
/// It is being deleted, or no longer exists.
pub fn keep_version(version: &ImageVersion) -> Result<Locked> {
    let dir = open_dir(&version.dir).doing(|| format!("opening {}", version.dir.display()))?;
    try_lock(dir, true, &version.dir)?
        .map_err(|pids| held(&format!("{} is being deleted", version.manifest.image), &pids))
}

/// Compares the tree of one variant and the files that nodes boot with their digests. Returns one line for each difference.
///
/// # Errors
/// The version has no digests, or cannot be read.
pub fn verify(version: &ImageVersion, progress: &mut dyn Progress) -> Result<Vec<String>> {
    let m = &version.manifest;
    if m.digest.is_empty() {
        return Err(ImportError::Request(format!(
            "{} has no digest: a rackstrap without digests sealed it; `rackstrap image clone {}` and `image seal` \
             make a version that has one",
            m.image, m.image
        )));
    }
    let _kept = keep_version(version)?;
    let root_path = version.dir.join("root");
    let root = open_dir(&root_path).doing(|| format!("opening {}", root_path.display()))?;
    let sealed = Copied {
        files: m.files,
        bytes: m.bytes,
    };
    let now = digest_tree(root.as_fd(), Some(sealed.bytes), progress)?;
    let mut wrong = Vec::new();
    if now.digest != m.digest {
        let what = match (now.files == m.files, now.bytes == m.bytes) {
            (true, true) => "as many files and bytes as it was sealed with".to_owned(),
            _ => format!(
                "{} files and {} bytes, sealed with {} and {}",
                now.files, now.bytes, m.files, m.bytes
            ),
        };
        wrong.push(format!("root: digest {}, sealed with {}; {what}", now.digest, m.digest));
    }
    let files: Vec<(&str, &String)> = match m.system {
        System::Linux => vec![("kernel", &m.kernel_digest), ("initramfs", &m.initramfs_digest)],
        System::FreeBsd => m.loaders.iter().map(|(name, digest)| (name.as_str(), digest)).collect(),
    };
    for (file, sealed) in files {
        let now = digest_file(&version.dir.join(file))?;
        if now != *sealed {
            wrong.push(format!("{file}: digest {now}, sealed with {sealed}"));
        }
    }
    Ok(wrong)
}

//! `rackstrap overlay render --output DIR`: writes the files, one directory for each node.

use crate::output;
use anyhow::{Context, Result};
use rackstrap_control::api::Preview;
use rackstrap_wire::OverlayContent;
use std::{
    fs::{DirBuilder, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink},
    path::Path,
};

/// Writes each node's files below `dir/NODE`, which must not exist. The files belong to the user who runs this; `NODE.owners`
/// lists their owners on the node.
pub(super) fn save(dir: &Path, previews: &[Preview]) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    for preview in previews {
        let place = dir.join(&preview.node);
        // The files may include host keys.
        let made = DirBuilder::new().mode(0o700).create(&place);
        made.with_context(|| {
            format!(
                "making {}; remove it, or name another directory with --output",
                place.display()
            )
        })?;
        save_node(&place, preview)?;
    }
    let count = output::count(previews.len(), "node");
    output::print(&format!("the files of {count} are below {}", dir.display()))
}

fn save_node(place: &Path, preview: &Preview) -> Result<()> {
    let mut owners = String::new();
    let mut links = Vec::new();
    for placed in &preview.files {
        let file = &placed.file;
        let path = place.join(file.path.trim_start_matches('/'));
        let doing = || format!("writing {}", path.display());
        let parent = path.parent().unwrap_or(place);
        std::fs::create_dir_all(parent).with_context(doing)?;
        owners.push_str(&format!("{}:{} {:04o} {}\n", file.uid, file.gid, file.mode, file.path));
        match &file.content {
            OverlayContent::Text(text) => {
                let mut options = OpenOptions::new();
                options.write(true).create_new(true).mode(0o600);
                let mut made = options.open(&path).with_context(doing)?;
                made.write_all(text.as_bytes()).with_context(doing)?;
                // Without suid and similar bits, because the owner differs from the one on the node.
                made.set_permissions(Permissions::from_mode(file.mode & 0o777))
                    .with_context(doing)?;
            }
            OverlayContent::Directory => std::fs::create_dir_all(&path).with_context(doing)?,
            // Links are made last, so that no file is written through one of them.
            OverlayContent::Symlink(target) => links.push((target, path)),
        }
    }
    for (target, path) in links {
        symlink(target, &path).with_context(|| format!("linking {}", path.display()))?;
    }
    let list = place.with_file_name(format!("{}.owners", preview.node));
    std::fs::write(&list, owners).with_context(|| format!("writing {}", list.display()))
}

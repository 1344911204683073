//! The files that are served, and the calls on them.

use super::{
    rpc::{self, Ask},
    servers::Server,
};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Number of small files, as many as a booting Debian reads.
const FILES: usize = 1000;
/// Bytes of the large file: it fits into the page cache, and not into the processor's cache.
const DATA: u64 = 64 << 20;

/// A row of the table.
pub struct Figure {
    pub name: &'static str,
    pub unit: &'static str,
    /// The amount of one call in that unit.
    pub per_call: f64,
}

/// The figures, in the order of [`Tree::asks`].
pub const FIGURES: [Figure; 4] = [
    Figure {
        name: "GETATTR",
        unit: "calls/s",
        per_call: 1.0,
    },
    Figure {
        name: "LOOKUP",
        unit: "calls/s",
        per_call: 1.0,
    },
    Figure {
        name: "READ 128 KiB",
        unit: "MiB/s",
        per_call: 0.125,
    },
    Figure {
        name: "READ 1 MiB",
        unit: "MiB/s",
        per_call: 1.0,
    },
];

/// A directory of small files, and a large one.
pub struct Tree {
    path: PathBuf,
}

impl Tree {
    /// Makes the missing parts of the tree at `path`.
    pub fn make(path: &Path) -> Result<Self> {
        let made = || -> std::io::Result<()> {
            let small = path.join("small");
            fs::create_dir_all(&small)?;
            for i in 0..FILES {
                let file = small.join(name(i));
                if !file.exists() {
                    fs::write(file, [b'x'; 4096])?;
                }
            }
            let data = path.join("data");
            if fs::metadata(&data).map_or(0, |meta| meta.len()) != DATA {
                let bytes: Vec<u8> = (0..DATA / 4).flat_map(|i| (i as u32).to_le_bytes()).collect();
                fs::write(data, bytes)?;
            }
            Ok(())
        };
        made().with_context(|| format!("making the tree to serve in {}", path.display()))?;
        Ok(Tree { path: path.to_owned() })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The repeated calls of each figure.
    pub fn asks(&self, server: &Server) -> Result<[Vec<Ask>; 4]> {
        let root = rpc::mount(server.mount_port, &self.path.to_string_lossy())
            .with_context(|| format!("mounting from {}", server.name))?;
        let mut stream = rpc::connect(server.port)?;
        let small = rpc::lookup(&mut stream, &root, "small")?;
        let data = rpc::lookup(&mut stream, &root, "data")?;
        let (mut getattr, mut lookup) = (Vec::new(), Vec::new());
        for i in 0..FILES {
            getattr.push(Ask::Getattr(rpc::lookup(&mut stream, &small, &name(i))?));
            lookup.push(Ask::Lookup(small.clone(), name(i)));
        }
        let reads = |count: u32| {
            let offsets = (0..DATA).step_by(count as usize);
            offsets.map(|offset| Ask::Read(data.clone(), offset, count)).collect()
        };
        Ok([getattr, lookup, reads(128 << 10), reads(1 << 20)])
    }
}

fn name(i: usize) -> String {
    format!("libfile-{i:04}.so.1")
}

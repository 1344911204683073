//! The node's disk: choose it, find out what it holds, keep or prepare it, mount its file systems.

pub mod boot_key;
pub mod bootcode;
pub mod candidate;
pub mod choose;
pub mod device;
pub mod esp;
pub mod foreign_esp;
pub mod geometry;
pub mod gptread;
pub mod image_modules;
pub mod inspect;
pub mod machine;
pub mod mapper;
pub mod marker;
#[cfg(test)]
mod model;
pub mod netloader;
pub mod options;
pub mod own;
pub mod phase;
pub mod prepare;
pub mod refresh;
pub mod remake;
pub mod seed;
pub mod several;
pub mod signature;
pub mod table;
pub mod trim;
pub mod wiped;

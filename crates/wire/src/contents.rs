//! What partitions hold besides what [`Partition`](crate::Partition) says.
//!
//! Agents refuse a [`Layout`] with fields or file systems that they do not know. So a plan's layout has a raw partition for each content that
//! older agents do not know, and [`DiskPlan::contents`] says what it is: older agents place all partitions alike, and leave this one as it is.

use crate::{DiskPlan, FileSystem, Layout, Partition, text};
use serde::{Deserialize, Serialize};

/// What one partition holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentOf {
    /// Name of the partition.
    pub partition: String,
    /// The file system of a partition that is raw in the plan's layout; none for that of the layout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs: Option<FileSystem>,
    /// Label of the file system; none for the name of the partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// How it is encrypted; none if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypt: Option<Encryption>,
}

/// How a partition is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encryption {
    /// With a random key of each boot, which only the kernel's memory holds. The file system is made at each boot.
    BootKey,
}

impl Encryption {
    /// As in the site file.
    pub fn as_str(self) -> &'static str {
        match self {
            Encryption::BootKey => "boot-key",
        }
    }
}

impl ContentOf {
    /// A partition of this name without anything special.
    pub fn new(partition: &str) -> Self {
        ContentOf {
            partition: partition.to_owned(),
            fs: None,
            label: None,
            encrypt: None,
        }
    }
}

/// The content of a partition in `contents`; none if it has nothing special.
pub fn content_of<'a>(contents: &'a [ContentOf], partition: &str) -> Option<&'a ContentOf> {
    contents.iter().find(|content| content.partition == partition)
}

/// The label of a partition's file system.
pub fn label_of(contents: &[ContentOf], partition: &Partition) -> String {
    match content_of(contents, &partition.name).and_then(|content| content.label.as_ref()) {
        Some(label) => label.clone(),
        // mkfs.fat(8): at most 11 characters, and small letters do not work on all systems.
        None if partition.fs == FileSystem::Vfat => text::cut(&partition.name, 11).to_ascii_uppercase(),
        None => partition.name.clone(),
    }
}

/// Splits a layout for a plan: into one that all agents can read, and the contents that newer agents know. `contents` has labels and
/// encryption.
pub fn for_agents(layout: &Layout, contents: &[ContentOf]) -> (Layout, Vec<ContentOf>) {
    let mut readable = layout.clone();
    let mut all = Vec::new();
    for partition in &mut readable.partitions {
        let mut content = content_of(contents, &partition.name).cloned();
        let is_encrypted = content.as_ref().is_some_and(|content| content.encrypt.is_some());
        if is_encrypted || matches!(partition.fs, FileSystem::Btrfs | FileSystem::Vfat) {
            content.get_or_insert_with(|| ContentOf::new(&partition.name)).fs = Some(partition.fs);
            partition.fs = FileSystem::Raw;
        }
        all.extend(content);
    }
    (readable, all)
}

impl DiskPlan {
    /// What is special about the content of a partition; none if nothing is.
    pub fn content(&self, partition: &str) -> Option<&ContentOf> {
        content_of(&self.contents, partition)
    }

    /// What the site file says about the content of partitions: the argument of [`for_agents`] with which this plan was made.
    pub fn site_contents(&self) -> Vec<ContentOf> {
        let said = self.contents.iter().map(|content| ContentOf {
            fs: None,
            ..content.clone()
        });
        said.filter(|content| *content != ContentOf::new(&content.partition))
            .collect()
    }

    /// The layout with all file systems: also those that a node has at each boot only.
    pub fn whole_layout(&self) -> Layout {
        self.layout_with(|_| true)
    }

    /// The layout with the file systems that are made when the disk is prepared. Encrypted partitions are raw in it.
    pub fn kept_layout(&self) -> Layout {
        self.layout_with(|content| content.encrypt.is_none())
    }

    fn layout_with(&self, wanted: impl Fn(&ContentOf) -> bool) -> Layout {
        let mut layout = self.layout.clone();
        for partition in &mut layout.partitions {
            let content = self.content(&partition.name).filter(|content| wanted(content));
            if let Some(fs) = content.and_then(|content| content.fs) {
                partition.fs = fs;
            }
        }
        layout
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Size, testing};

    fn layout() -> Layout {
        let partition = |name: &str, fs| Partition {
            name: name.to_owned(),
            size: Size::Bytes(1 << 30),
            fs,
            mount: Some(format!("/{name}")),
            options: String::new(),
        };
        Layout {
            partitions: vec![
                partition("var", FileSystem::Ext4),
                partition("data", FileSystem::Btrfs),
                partition("tmp", FileSystem::Xfs),
            ],
            ..testing::disk().layout
        }
    }

    #[test]
    fn older_agents_read_a_raw_partition_and_newer_ones_what_it_is() {
        let contents = [
            ContentOf {
                label: Some("logs".to_owned()),
                ..ContentOf::new("var")
            },
            ContentOf {
                encrypt: Some(Encryption::BootKey),
                ..ContentOf::new("tmp")
            },
        ];
        let said = contents;
        let (readable, contents) = for_agents(&layout(), &said);
        let kinds = |layout: &Layout| layout.partitions.iter().map(|p| p.fs.as_str()).collect::<Vec<_>>();
        // These are all that agents before this field know.
        assert_eq!(kinds(&readable), ["ext4", "raw", "raw"]);
        let plan = DiskPlan {
            layout: readable,
            contents,
            ..testing::disk()
        };
        let text = serde_json::to_string(&plan).unwrap();
        assert!(
            text.ends_with(
                r#""contents":[{"partition":"var","label":"logs"},{"partition":"data","fs":"btrfs"},{"partition":"tmp","fs":"xfs","encrypt":"boot-key"}]}"#
            ),
            "{text}"
        );
        let read: DiskPlan = serde_json::from_str(&text).unwrap();
        assert_eq!((read.whole_layout(), read.site_contents()), (layout(), said.to_vec()));
        assert_eq!(kinds(&read.kept_layout()), ["ext4", "btrfs", "raw"]);
        assert_eq!(read.content("tmp").unwrap().encrypt, Some(Encryption::BootKey));
    }

    #[test]
    fn a_layout_that_older_agents_know_is_sent_as_before() {
        let mut plain = layout();
        plain.partitions.remove(1);
        assert_eq!(for_agents(&plain, &[]), (plain.clone(), Vec::new()));
        let plan = DiskPlan {
            layout: plain.clone(),
            ..testing::disk()
        };
        assert!(!serde_json::to_string(&plan).unwrap().contains("contents"));
        assert_eq!((plan.whole_layout(), plan.kept_layout()), (plain.clone(), plain));
    }
}

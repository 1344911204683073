//! An image's list of files, as the agent reads it from the initramfs and from the disk of a node.

use rackstrap_wire::image_list::{self, ImageList};

/// One run; true if it is lists.
pub fn run(input: &[u8]) -> bool {
    let lists = match ImageList::parse_all(input) {
        Ok(lists) => lists,
        Err(error) => {
            assert!(error.to_string().starts_with("record "));
            return false;
        }
    };
    for list in &lists {
        // No path leads out of the root, and what is read is what would be written.
        let mut text = Vec::new();
        image_list::begin(&mut text);
        for path in &list.owned {
            image_list::add_owned(&mut text, path);
        }
        for (path, value) in &list.capabilities {
            image_list::add_capability(&mut text, path, value);
        }
        for entry in &list.entries {
            assert_eq!(list.entry(entry.path), Some(entry));
            image_list::add_entry(&mut text, entry);
        }
        assert_eq!(ImageList::parse(&text).as_ref(), Ok(list));
        let entries = list.entries.iter().map(|entry| entry.path);
        let capable = list.capabilities.iter().map(|(path, _)| *path);
        for path in list.owned.iter().copied().chain(capable).chain(entries) {
            let parts = path.split(|byte| *byte == b'/');
            assert!(
                parts.into_iter().all(|part| !matches!(part, b"" | b"." | b"..")),
                "{path:?}"
            );
        }
    }
    !lists.is_empty()
}

//! Answers about the store.

use crate::api::SetAsideRow;
use rackstrap_store::SetAside;

impl From<SetAside> for SetAsideRow {
    fn from(aside: SetAside) -> Self {
        SetAsideRow {
            at: aside.at,
            row: aside.row,
            stored: aside.stored,
        }
    }
}

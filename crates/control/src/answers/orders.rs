//! Answers about orders for one boot.

use crate::api::BootOrderRow;
use rackstrap_model::orders::BootOrder;

impl From<BootOrder> for BootOrderRow {
    fn from(order: BootOrder) -> Self {
        BootOrderRow {
            once: order.what.to_string(),
            by: order.by,
            at: order.at,
            used: order.used,
        }
    }
}

impl BootOrderRow {
    /// The order in a few words: `rescue at its next boot`.
    pub fn describe(&self) -> String {
        match self.used {
            None => format!("{} at its next boot", self.once),
            Some(_) => format!("{} in this boot", self.once),
        }
    }
}

//! Requests and answers about orders for one boot.

use rackstrap_base::clock::Timestamp;
use serde::{Deserialize, Serialize};

/// The order for one boot of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootOrderRow {
    /// What the boot does, as `--once` names it: `rescue`, `image=debian@2`.
    pub once: String,
    /// The user who gave the order.
    pub by: String,
    /// When it was given.
    pub at: Timestamp,
    /// When the first boot script with the order was sent; none while the order waits for the node's next boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Timestamp>,
}

/// The order of one node, in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeOrder {
    /// The name of the node.
    pub node: String,
    /// Its order.
    #[serde(flatten)]
    pub order: BootOrderRow,
}

/// `rackstrap node boot --list`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrdersAnswer {
    /// The daemon's present time.
    pub now: Timestamp,
    /// All orders that wait or are in use, by node.
    pub orders: Vec<NodeOrder>,
}

/// `rackstrap node boot`. The request has no author, because the daemon knows the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiveOrders {
    /// The names of the nodes.
    pub nodes: Vec<String>,
    /// What their next boots do; none takes their orders back.
    pub once: Option<String>,
}

/// The result of [`GiveOrders`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrdersGiven {
    /// Nodes that have the order now.
    pub ordered: Vec<String>,
    /// Those of `ordered` that are up: the order waits until they restart.
    pub running: Vec<String>,
    /// Nodes whose earlier order was replaced or taken back before a boot used it.
    pub withdrawn: Vec<String>,
    /// Nodes whose earlier order is in use by the boot that they are in, so that it is carried out.
    pub late: Vec<String>,
    /// Nodes that had no order to take back.
    pub none: Vec<String>,
    /// Remarks about what the order cannot do on some of the nodes, one line for each.
    pub remarks: Vec<String>,
}

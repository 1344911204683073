//! A number of nodes, or a share of them.

use rackstrap_base::text::cut;
use rackstrap_base::words::count;
use std::{fmt, str::FromStr};

/// A number of nodes, or a share of all nodes of the image: `8`, `10%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// This many nodes.
    Nodes(u32),
    /// This percentage of all nodes, from 1 to 100.
    Percent(u32),
}

impl Share {
    /// The number of nodes out of `all`: at least one, and otherwise not more than the share.
    pub fn of(self, all: usize) -> usize {
        let nodes = match self {
            Share::Nodes(nodes) => nodes as usize,
            Share::Percent(percent) => all.saturating_mul(percent as usize) / 100,
        };
        nodes.max(1)
    }

    /// For people: `8`, or `10% (1 of 14 nodes)`.
    pub fn describe(self, all: usize) -> String {
        match self {
            Share::Nodes(_) => self.to_string(),
            Share::Percent(_) => format!("{self} ({} of {})", self.of(all), count(all, "node")),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Share::Nodes(nodes) => write!(f, "{nodes}"),
            Share::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let text = cut(text, 40);
            format!("'{text}' is not a number of nodes; write 8 for eight nodes, or 10% for a tenth of them")
        };
        let share = match text.strip_suffix('%') {
            Some(percent) => Share::Percent(percent.trim_end().parse().map_err(|_| wrong())?),
            None => Share::Nodes(text.parse().map_err(|_| wrong())?),
        };
        match share {
            Share::Nodes(1..) | Share::Percent(1..=100) => Ok(share),
            _ => Err(wrong()),
        }
    }
}

rackstrap_wire::serde_as_text!(Share);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_number_or_a_percentage_of_at_least_one_node() {
        let of = |text: &str, all| text.parse::<Share>().map(|share| share.of(all));
        assert_eq!((of("8", 3), of("10%", 1000), of("10%", 4)), (Ok(8), Ok(100), Ok(1)));
        assert_eq!((of("1%", 199), of("100%", 7), of("10%", 14)), (Ok(1), Ok(7), Ok(1)));
        assert_eq!(Share::Percent(10).describe(14), "10% (1 of 14 nodes)");
        assert_eq!(Share::Nodes(3).describe(14), "3");
        for wrong in ["", "0", "0%", "101%", "-1", "ten", "1e9", "99999999999"] {
            assert!(of(wrong, 1).is_err(), "{wrong}");
        }
    }
}

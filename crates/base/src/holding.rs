//! Whether a request comes from the machine that it names.

/// What the address of a request says of the card that the request names. A program on any machine can name any card in a
/// request by HTTP or TFTP, but it sends from its own machine's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// The card has a lease of the address: the machine itself asks.
    Own,
    /// No machine has a lease of the address. The request proves nothing.
    Free,
    /// Another machine has the address.
    Taken,
}

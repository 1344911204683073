//! dhcp.

//! Virtual clusters.

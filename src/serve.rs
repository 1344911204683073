//! Binds everything, runs everything; the first fatal error stops all.

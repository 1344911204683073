//! Tests of the registry of boots.

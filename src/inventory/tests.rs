//! Tests of inventory changes.

//! Tests of timelines.

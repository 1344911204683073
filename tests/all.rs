//! One integration binary.

mod netns;

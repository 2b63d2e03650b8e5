//! Frazil binary.
fn main() {}

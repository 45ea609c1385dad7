//! The `plib` command.

fn main() {}

//! The `plib` command as its users see it: every command, good and bad input, words and JSON.

mod bad_input;
mod demo;
mod doctor;
mod dump;
mod heaps;
mod items;
mod place;
mod stats;
mod sweep;

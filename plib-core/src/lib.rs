//! The shared heap, its index and its protocols.
#![no_std]

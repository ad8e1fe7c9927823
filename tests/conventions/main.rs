//! Rules that the source files and the packages follow.
#![allow(
    unreachable_pub,
    reason = "helpers are public to the modules of this binary"
)]

mod language;
mod layers;
mod lexer;
mod packaging;
mod release;
mod scripts;

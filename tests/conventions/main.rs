//! Rules that the source files and the packages follow.

mod language;
mod layers;
mod lexer;
mod packaging;

//! Rules that the source files and the packages follow.

mod layers;
mod packaging;

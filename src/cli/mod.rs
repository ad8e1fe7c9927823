//! The commands of the program, one module each, and what they share.

pub mod exit;
pub mod listen;
pub mod publish;
pub mod text;

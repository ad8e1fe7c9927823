//! Buffers that belong to the reactor, not to a connection.

/// What reading and TLS need while they work, shared by all connections. Nothing of one
/// connection stays here when the next is served.
pub struct Scratch {
    /// Plaintext that has just been read; [`Fill::bytes`](super::Fill::bytes) says how much.
    pub input: Box<[u8]>,
    /// Ciphertext while it is decrypted in place (input) or on its way out (output).
    pub cipher_in: Vec<u8>,
    /// See `cipher_in`.
    pub cipher_out: Vec<u8>,
}

impl Scratch {
    /// Buffers that read at most `read_size` bytes at once.
    pub fn new(read_size: usize) -> Self {
        Scratch {
            input: vec![0; read_size].into_boxed_slice(),
            cipher_in: Vec::new(),
            cipher_out: Vec::new(),
        }
    }
}

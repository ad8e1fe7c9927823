//! Outgoing messages that many connections share.

use std::rc::Rc;

use crate::ws;

/// One message as it goes over the wire, header included. It is encoded once and written to
/// every receiver from the same bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    bytes: Box<[u8]>,
}

impl Frame {
    /// A text message of one frame.
    pub fn text(text: &str) -> Rc<Frame> {
        Frame::message(ws::OpCode::Text, text.as_bytes())
    }

    /// A binary message of one frame.
    pub fn binary(payload: &[u8]) -> Rc<Frame> {
        Frame::message(ws::OpCode::Binary, payload)
    }

    fn message(opcode: ws::OpCode, payload: &[u8]) -> Rc<Frame> {
        let mut bytes = Vec::with_capacity(ws::MAX_SERVER_HEADER + payload.len());
        ws::encode_frame(opcode, payload, &mut bytes);
        Rc::new(Frame {
            bytes: bytes.into_boxed_slice(),
        })
    }

    /// The bytes of the frame.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// An event on its way to many connections.
#[derive(Debug, Default)]
pub struct Delivery {
    /// The variants of the message.
    pub frames: Vec<Rc<Frame>>,
    /// Who gets which variant, by its index in `frames`. The engine sorts them; a connection
    /// that is named twice gets it twice.
    pub to: Vec<(super::ConnKey, u8)>,
}

//! The texts of errors, for the logs of embedders.

use h_realtime_engine::http::{ChunkedError, HeadError, Malformed, Refused, Status};
use h_realtime_engine::ws::{CloseCode, ProtocolError};

#[test]
fn errors_name_the_faulty_part_of_the_input() {
    let protocol = ProtocolError {
        code: CloseCode::TOO_BIG,
        reason: "message too large",
    };
    for (error, text) in [
        (
            &Malformed("no port") as &dyn std::fmt::Display,
            "invalid PROXY protocol header: no port",
        ),
        (&Refused("no key"), "invalid WebSocket handshake: no key"),
        (&protocol, "1009 message too large"),
        (&HeadError::Malformed, "malformed request head"),
        (&HeadError::TooLarge, "request head too large"),
        (&HeadError::TargetTooLong, "request target too long"),
        (&HeadError::Ambiguous, "ambiguous request framing"),
        (&HeadError::UnsupportedCoding, "unsupported transfer coding"),
        (&ChunkedError::Malformed, "malformed chunk"),
        (&ChunkedError::BodyTooLarge, "chunked body too large"),
        (
            &ChunkedError::ExtensionsTooLarge,
            "chunk extensions too large",
        ),
        (&ChunkedError::TrailersTooLarge, "trailer section too large"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn every_status_has_a_reason_phrase() {
    assert_eq!(Status(414).reason(), "URI Too Long");
    assert_eq!(Status(599).reason(), "Unknown");
}

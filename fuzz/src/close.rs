//! Payloads of close frames, compared with RFC 6455 §5.5.1 and §7.4.

use h_realtime_engine::ws::{
    CloseCode, CloseFrame, Decoder, Event, Limits, OpCode, encode_client_frame, encode_close,
};

/// Input: a payload.
pub fn close_payload(input: &[u8]) {
    let payload = &input[..input.len().min(125)];
    let mut frame = Vec::new();
    encode_client_frame(true, OpCode::Close, [1, 2, 3, 4], payload, &mut frame);
    let limits = Limits {
        max_message: 1000,
        max_fragments: 10,
        deflate: false,
    };
    let mut decoder = Decoder::default();
    let got = match decoder.next(&mut frame, &limits) {
        Ok((_, Some(Event::Close(close)))) => Ok(close),
        Err(error) => Err(error.code),
        Ok(other) => panic!("expected a close frame: {other:?}"),
    };
    assert_eq!(got, expected(payload), "{payload:x?}");
    if let Ok(close) = got {
        check_answer(close, payload);
    }
    check_long_reason(input);
}

fn expected(payload: &[u8]) -> Result<Option<CloseFrame<'_>>, CloseCode> {
    if payload.is_empty() {
        return Ok(None);
    }
    let (Some(code), Some(reason)) = (payload.first_chunk(), payload.get(2..)) else {
        return Err(CloseCode::PROTOCOL_ERROR);
    };
    let code = u16::from_be_bytes(*code);
    let defined = [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014,
    ];
    if !defined.contains(&code) && !(3000..5000).contains(&code) {
        return Err(CloseCode::PROTOCOL_ERROR);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| CloseCode::INVALID_DATA)?;
    let code = CloseCode(code);
    Ok(Some(CloseFrame { code, reason }))
}

/// A parsed close frame is encoded to the same bytes.
fn check_answer(close: Option<CloseFrame<'_>>, payload: &[u8]) {
    let mut answer = Vec::new();
    encode_close(close, &mut answer);
    assert_eq!(answer[..2], [0x88, payload.len() as u8]);
    assert_eq!(answer[2..], *payload);
}

/// A reason of any length is truncated to the longest prefix that fits and is valid UTF-8.
fn check_long_reason(input: &[u8]) {
    let reason = String::from_utf8_lossy(input);
    let code = CloseCode::POLICY;
    let mut frame = Vec::new();
    let close = CloseFrame {
        code,
        reason: &reason,
    };
    encode_close(Some(close), &mut frame);
    assert_eq!(usize::from(frame[1]), frame.len() - 2);
    assert!(frame.len() <= 2 + 125);
    let written = std::str::from_utf8(&frame[4..]).expect("text");
    let rest = reason.strip_prefix(written).expect("a prefix");
    let next = rest.chars().next().map_or(0, char::len_utf8);
    assert!(
        next == 0 || frame.len() + next > 2 + 125,
        "truncated too early"
    );
}

//! The positions of the parts of a parsed request head.
//!
//! Owns: restoring a request from its bytes, so that a head is not parsed again when the body has
//! been read.

use std::str;

use super::request::MAX_HEADERS;
use super::{Framing, Request};

/// A parsed head without its bytes.
#[derive(Clone, Debug)]
pub(crate) struct HeadLayout {
    method: Part,
    authority: Option<Part>,
    /// `None` for the path of an absolute target without one.
    path: Option<Part>,
    query: Option<Part>,
    minor_version: u8,
    length: usize,
    framing: Framing,
    fields: Box<[Field]>,
}

/// The start and end of a part of the head.
type Part = (u32, u32);

#[derive(Clone, Copy, Debug)]
struct Field {
    name: Part,
    value: Part,
}

impl HeadLayout {
    /// Records the positions of the parts of a request that was parsed from the start of `bytes`.
    /// Returns `None` if it was parsed from other bytes.
    pub(crate) fn of(request: &Request<'_>, bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..request.length)?;
        let text = |text: &str| part(head, text.as_bytes());
        let fields = request.headers.iter().map(|header| {
            Some(Field {
                name: text(header.name)?,
                // An empty value may be no part of the head.
                value: part(head, header.value).unwrap_or_default(),
            })
        });
        Some(HeadLayout {
            method: text(request.method)?,
            authority: request.authority.and_then(text),
            path: text(request.path),
            query: request.query.and_then(text),
            minor_version: request.minor_version,
            length: request.length,
            framing: request.framing,
            fields: fields.collect::<Option<_>>()?,
        })
    }

    /// Returns the length of the head in bytes.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Returns the memory used, in bytes.
    pub(crate) fn memory(&self) -> usize {
        size_of_val(&*self.fields)
    }

    /// Passes the request at the start of `bytes` to `visit`. Returns `None` if these are not the
    /// bytes that it was parsed from.
    pub(crate) fn visit<T>(
        &self,
        bytes: &[u8],
        visit: impl FnOnce(&Request<'_>) -> T,
    ) -> Option<T> {
        let text = |part| str::from_utf8(get(bytes, part)?).ok();
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        for (header, field) in headers.iter_mut().zip(&self.fields) {
            header.name = text(field.name)?;
            header.value = get(bytes, field.value)?;
        }
        let request = Request {
            method: text(self.method)?,
            authority: self.authority.and_then(text),
            path: self.path.map_or(Some("/"), text)?,
            query: self.query.and_then(text),
            minor_version: self.minor_version,
            length: self.length,
            body: None,
            framing: self.framing,
            headers: headers.get(..self.fields.len())?,
        };
        Some(visit(&request))
    }
}

/// Returns the position of `part` within `head`, if it is a part of it.
fn part(head: &[u8], part: &[u8]) -> Option<Part> {
    let start = part.as_ptr().addr().checked_sub(head.as_ptr().addr())?;
    let end = start.checked_add(part.len())?;
    let position = (u32::try_from(start).ok()?, u32::try_from(end).ok()?);
    (end <= head.len()).then_some(position)
}

fn get(bytes: &[u8], (start, end): Part) -> Option<&[u8]> {
    bytes.get(start as usize..end as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Head, parse_head};

    /// Everything in a request.
    fn describe(request: &Request<'_>) -> String {
        let fields = request
            .headers
            .iter()
            .map(|header| (header.name, header.value));
        format!(
            "{} {:?} {} {:?} {} {} {:?} {:?}",
            request.method,
            request.authority,
            request.path,
            request.query,
            request.minor_version,
            request.length,
            request.framing,
            fields.collect::<Vec<_>>(),
        )
    }

    #[test]
    fn restored_request_equals_the_parsed_one() {
        let many: String = (1..MAX_HEADERS)
            .map(|n| format!("X-{n}: {n}\r\n"))
            .collect();
        for head in [
            "POST /events?a=b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n".to_owned(),
            "POST http://a.example HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_owned(),
            "POST http://a.example?q HTTP/1.1\r\nHost: other\r\nContent-Length: 0\r\n\r\n"
                .to_owned(),
            "PUT /? HTTP/1.0\r\nEmpty:\r\nBlank:   \r\nContent-Length: 1\r\n\r\n".to_owned(),
            "POST / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            format!("POST / HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
        ] {
            let bytes = format!("{head}abc").into_bytes();
            let parsed = parse_head(&bytes, 8192, |request| {
                let layout = HeadLayout::of(request, &bytes).unwrap();
                (describe(request), layout)
            });
            let Ok(Head::Complete((parsed, layout))) = parsed else {
                panic!("{head}");
            };
            assert_eq!(layout.length(), head.len());
            // The bytes may have been moved meanwhile.
            let moved = bytes.clone();
            assert_eq!(layout.visit(&moved, describe), Some(parsed));
            assert_eq!(layout.visit(b"POST", describe), None);
        }
    }

    #[test]
    fn request_of_other_bytes_has_no_layout() {
        let bytes = b"POST / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
        let other = bytes.clone();
        let parsed = parse_head(&bytes, 8192, |request| {
            HeadLayout::of(request, &other).is_none()
        });
        assert!(matches!(parsed, Ok(Head::Complete(true))));
    }

    #[test]
    fn memory_is_that_of_the_fields() {
        let bytes = b"POST / HTTP/1.1\r\nHost: a\r\nAccept: b\r\n\r\n";
        let parsed = parse_head(bytes, 8192, |request| {
            HeadLayout::of(request, bytes).map(|layout| layout.memory())
        });
        assert!(
            matches!(parsed, Ok(Head::Complete(Some(memory))) if memory == 2 * size_of::<Field>())
        );
    }
}

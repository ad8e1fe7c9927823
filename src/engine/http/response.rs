//! Encoding of responses.

use std::borrow::Cow;

use super::http_date;

/// A status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    /// Returns the reason phrase (RFC 9110 §15).
    pub fn reason(self) -> &'static str {
        match self.0 {
            200 => "OK",
            202 => "Accepted",
            304 => "Not Modified",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            411 => "Length Required",
            412 => "Precondition Failed",
            413 => "Content Too Large",
            414 => "URI Too Long",
            426 => "Upgrade Required",
            // RFC 6585.
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            500 => "Internal Server Error",
            501 => "Not Implemented",
            503 => "Service Unavailable",
            // RFC 4918.
            507 => "Insufficient Storage",
            _ => "Unknown",
        }
    }
}

/// A response with a body of known length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: Status,
    /// The value of `Content-Type`.
    pub content_type: &'static str,
    /// Additional header fields. Values must not contain control characters.
    pub fields: Vec<(&'static str, Cow<'static, str>)>,
    /// The body.
    pub body: Cow<'static, [u8]>,
    /// Whether to close the connection after this response, even if the request allows keep-alive.
    pub close: bool,
}

impl Response {
    /// Creates a response with any content type.
    pub fn new(
        status: u16,
        content_type: &'static str,
        body: impl Into<Cow<'static, [u8]>>,
    ) -> Self {
        Response {
            status: Status(status),
            content_type,
            fields: Vec::new(),
            body: body.into(),
            close: false,
        }
    }

    /// Creates a JSON response from serialized JSON.
    pub fn json(status: u16, body: impl Into<Cow<'static, str>>) -> Self {
        let body = match body.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Response::new(status, "application/json", body)
    }

    /// Adds a header field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// Closes the connection after this response.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// Encodes the response. `now` is the current time in milliseconds since the Unix epoch,
    /// `keep_alive` is the number of seconds for which the connection stays open for another
    /// request, and `head_only` omits the body in response to `HEAD`.
    pub fn encode(&self, now: u64, keep_alive: Option<u64>, head_only: bool, out: &mut Vec<u8>) {
        let Status(code) = self.status;
        // RFC 9110 §6.6.1: "An origin server with a clock … MUST generate a Date header field in
        // all 2xx (Successful), 3xx (Redirection), and 4xx (Client Error) responses".
        let mut head = format!(
            "HTTP/1.1 {code} {}\r\nDate: {}\r\n",
            self.status.reason(),
            http_date(now),
        );
        // RFC 9110 §15.4.5: "a sender SHOULD NOT generate representation metadata other than the
        // above listed fields" in a 304 response.
        if code != NOT_MODIFIED {
            head.push_str(&format!("Content-Type: {}\r\n", self.content_type));
        }
        head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        for (name, value) in &self.fields {
            debug_assert!(!value.contains(|c: char| c.is_control()));
            head.push_str(name);
            head.push_str(": ");
            head.extend(value.chars().filter(|c| !c.is_control()));
            head.push_str("\r\n");
        }
        match keep_alive.filter(|_| !self.close) {
            // RFC 9110 §7.6.1: "When a field aside from Connection is used to supply control
            // information for or about the current connection, the sender MUST list the
            // corresponding field name within the Connection header field."
            Some(seconds) => head.push_str(&format!(
                "Connection: keep-alive\r\nKeep-Alive: timeout={seconds}\r\n"
            )),
            None => head.push_str("Connection: close\r\n"),
        }
        head.push_str("\r\n");
        out.extend_from_slice(head.as_bytes());
        // RFC 9110 §15.4.5: "A 304 response is terminated by the end of the header section". Its length
        // is that of the 200 response.
        if !head_only && code != NOT_MODIFIED {
            out.extend_from_slice(&self.body);
        }
    }
}

const NOT_MODIFIED: u16 = 304;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_status_codes_have_reason_phrases() {
        for code in [
            200, 202, 304, 400, 401, 403, 404, 405, 408, 411, 412, 413, 414, 426, 429, 431, 500,
            501, 503, 507,
        ] {
            assert_ne!(Status(code).reason(), "Unknown", "{code}");
        }
    }

    fn text(response: &Response, keep_alive: Option<u64>, head_only: bool) -> String {
        let mut out = Vec::new();
        response.encode(784_111_777_000, keep_alive, head_only, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn responses_carry_length_and_connection_fields() {
        let response = Response::json(503, "{}").with("Retry-After", "5");
        assert_eq!(
            text(&response, Some(10), false),
            "HTTP/1.1 503 Service Unavailable\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\nRetry-After: 5\r\n\
             Connection: keep-alive\r\nKeep-Alive: timeout=10\r\n\r\n{}"
        );
        let unchanged = Response::json(304, "{}");
        let head = text(&unchanged, None, false);
        assert!(head.contains("Content-Length: 2\r\n") && head.ends_with("\r\n\r\n"));
        assert!(!head.contains("Content-Type"), "{head}");
        for closed in [
            text(&response, None, true),
            text(&response.closing(), Some(10), true),
        ] {
            assert!(closed.ends_with("Connection: close\r\n\r\n"), "{closed}");
            assert!(!closed.contains("eep-"), "{closed}");
        }
    }
}

//! Connection errors of other servers as text that names the remedy.

use std::error::Error;

use crate::trust;

/// Describes why the server configured by `setting` cannot be reached. `text` is the error message
/// of the client library. The caller's message contains the address.
pub(crate) fn connect_error(error: &(dyn Error + 'static), text: String, setting: &str) -> String {
    if let Some(failure) = trust::tls_failure_within(error) {
        return failure.reason;
    }
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    // The standard library has no `ErrorKind` for failed name resolution.
    let is_resolution = |text: &str| text.contains("failed to lookup address information");
    if is_resolution(&text) || causes.any(|cause| is_resolution(&cause.to_string())) {
        return format!(
            "{text}; check the name of the host in {setting}, and this machine's name resolution"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn failed_name_resolution_names_the_setting() {
        let error = io::Error::other("failed to lookup address information: Name unknown");
        let text = connect_error(&error, error.to_string(), "amqp.url");
        assert!(
            text.ends_with("in amqp.url, and this machine's name resolution"),
            "{text}"
        );
        let error = io::Error::other("refused");
        assert_eq!(
            connect_error(&error, "refused".to_owned(), "amqp.url"),
            "refused"
        );
    }
}

//! File system errors as text that names the file and the remedy.

use std::io::{Error, ErrorKind};
use std::path::Path;

/// Formats the path, the error, and the remedy if there is one.
pub(crate) fn about(path: &Path, error: &Error) -> String {
    let path = path.display();
    match advice(error.kind()) {
        Some(advice) => format!("{path}: {error}; {advice}"),
        None => format!("{path}: {error}"),
    }
}

/// Returns advice for an operator on an error of this kind.
pub(crate) fn advice(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::PermissionDenied => Some(
            "run this as root or as the user that owns the data directory, or correct the owner \
             and mode of the file (ls -l)",
        ),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Some("free some space on that file system (df), or raise the quota")
        }
        ErrorKind::FileTooLarge => {
            Some("raise the limit on the size of files (ulimit -f, LimitFSIZE=)")
        }
        ErrorKind::ReadOnlyFilesystem => Some(
            "make the file system writable, or the directory (ReadWritePaths= or StateDirectory= \
             in a systemd unit)",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_the_path_and_the_remedy() {
        let text = |kind: ErrorKind| about(Path::new("/data/file"), &kind.into());
        for (kind, remedy) in [
            (ErrorKind::PermissionDenied, "as root"),
            (ErrorKind::StorageFull, "free some space"),
            (ErrorKind::FileTooLarge, "ulimit -f"),
            (ErrorKind::ReadOnlyFilesystem, "writable"),
        ] {
            let text = text(kind);
            assert!(text.starts_with("/data/file: "), "{text}");
            assert!(text.contains(remedy), "{text}");
        }
        assert!(!text(ErrorKind::NotFound).contains(';'));
    }
}

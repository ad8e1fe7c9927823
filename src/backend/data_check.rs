//! Checks whether a data directory is usable without changing anything, for `config check`.
//!
//! Every directory that is refused here is also refused when the server opens it. The reverse does
//! not hold: only opening the database shows whether that is possible.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statfs};

use super::{DataDir, DataDirError};

/// Checks the directory, or the parent in which it would be created, and the publish key if there
/// is one.
///
/// # Errors
/// The reason why the directory cannot be used.
pub fn check_data_dir(path: &Path) -> Result<(), DataDirError> {
    if path.is_dir() {
        // Opening an existing directory does not change it.
        let data = DataDir::open(path)?;
        // A link to a missing file is a problem, too.
        if data.publish_key_file().symlink_metadata().is_ok() {
            data.publish_key()?;
        }
        return can_be_written(path);
    }
    if path.symlink_metadata().is_ok() {
        return Err(DataDirError::NotADirectory(path.to_owned()));
    }
    let parent = nearest_ancestor(path);
    match parent.is_dir() {
        true => can_be_written(&parent),
        false => Err(DataDirError::NotADirectory(parent)),
    }
}

/// Returns the nearest existing ancestor. A relative path starts in the working directory.
fn nearest_ancestor(path: &Path) -> PathBuf {
    let above = path.ancestors().skip(1);
    let mut above = above.map(|path| match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    });
    let there = above.find(|path| path.symlink_metadata().is_ok());
    there.unwrap_or(Path::new(".")).to_owned()
}

fn can_be_written(directory: &Path) -> Result<(), DataDirError> {
    let refused = |error: io::Error| DataDirError::Io(directory.to_owned(), error);
    access(directory, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| refused(error.into()))?;
    // In these file systems, root passes every permission check, but creating a file fails.
    let holds_no_files = statfs(directory).is_ok_and(|system| {
        let kind = u64::try_from(system.f_type).unwrap_or_default();
        NO_FILES.contains(&kind)
    });
    match holds_no_files {
        true => {
            let text = "this file system does not support creating files";
            Err(refused(io::Error::new(io::ErrorKind::Unsupported, text)))
        }
        false => Ok(()),
    }
}

/// statfs(2): `PROC_SUPER_MAGIC` and `SYSFS_MAGIC`.
const NO_FILES: [u64; 2] = [0x9fa0, 0x6265_6572];

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn creatable_directories_are_accepted_and_not_created() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        check_data_dir(&path).unwrap();
        check_data_dir(Path::new("some-name/below")).unwrap();
        assert!(!temp.path().join("a").exists());
        DataDir::open(&path).unwrap().publish_key().unwrap();
        check_data_dir(&path).unwrap();
    }

    #[test]
    fn uncreatable_directories_are_refused_as_by_the_server() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        fs::write(&file, "").unwrap();
        let dangling = temp.path().join("link");
        std::os::unix::fs::symlink("/nowhere/at/all", &dangling).unwrap();
        for path in [
            &file,
            &file.join("below"),
            &dangling,
            Path::new("/dev/null/data"),
            Path::new("/proc/data"),
            Path::new("/sys/data"),
        ] {
            let checked = check_data_dir(path).map(|()| "accepted");
            assert!(checked.is_err(), "{}", path.display());
            let opened = DataDir::open(path).and_then(|data| data.publish_key());
            assert!(opened.is_err(), "{}", path.display());
        }
    }

    #[test]
    fn unusable_publish_key_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("publish.key"), "short").unwrap();
        let checked = check_data_dir(temp.path());
        assert!(matches!(checked, Err(DataDirError::BadKey(_))));
    }

    #[test]
    fn publish_key_that_is_a_link_to_a_missing_file_is_refused_and_named() {
        let temp = tempfile::tempdir().unwrap();
        let key = temp.path().join("publish.key");
        std::os::unix::fs::symlink("/nowhere/at/all", &key).unwrap();
        let start = DataDir::open(temp.path()).unwrap().publish_key();
        for error in [check_data_dir(temp.path()).unwrap_err(), start.unwrap_err()] {
            let message = error.to_string();
            let part = format!("{}: a symbolic link to a file", key.display());
            assert!(message.contains(&part), "{message}");
        }
        assert!(key.is_symlink());
    }
}

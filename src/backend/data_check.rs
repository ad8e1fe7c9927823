//! Whether a data directory can be used, without changing anything: for `config check`.
//!
//! What this refuses, opening the directory refuses as well. It cannot see everything: whether the
//! database can be opened is only known when it is.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statfs};

use super::{DataDir, DataDirError};

/// Judges the directory, or the one that it would be made in, and the publish key if there is one.
///
/// # Errors
/// Why the directory cannot be used.
pub fn check_data_dir(path: &Path) -> Result<(), DataDirError> {
    if path.is_dir() {
        // One that is there is not changed by this.
        let data = DataDir::open(path)?;
        if data.publish_key_file().exists() {
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

/// The nearest directory above that is there. A relative path begins in the working directory.
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
    // There the permissions say yes to root, and every new file is refused.
    let holds_no_files = statfs(directory).is_ok_and(|system| {
        let kind = u64::try_from(system.f_type).unwrap_or_default();
        NO_FILES.contains(&kind)
    });
    match holds_no_files {
        true => {
            let text = "no files can be made in this file system";
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
    fn directories_that_can_be_made_are_accepted_and_not_made() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        check_data_dir(&path).unwrap();
        check_data_dir(Path::new("some-name/below")).unwrap();
        assert!(!temp.path().join("a").exists());
        DataDir::open(&path).unwrap().publish_key().unwrap();
        check_data_dir(&path).unwrap();
    }

    #[test]
    fn paths_where_none_can_be_are_refused_as_by_the_server() {
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
    fn publish_key_of_no_use_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("publish.key"), "short").unwrap();
        let checked = check_data_dir(temp.path());
        assert!(matches!(checked, Err(DataDirError::BadKey(_))));
    }
}

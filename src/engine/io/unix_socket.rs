//! The file of a listening Unix socket: its permissions, owner, and removal.
//!
//! Clients need write permission on the file to connect. The file never has more permissions than
//! requested: it is created with its final mode, then its owner is changed, and only then does the
//! socket listen. Until then, every connect fails.
//!
//! Another user may own the directory, and may replace the file at any time. So the file is opened
//! once, without following a symbolic link, and is checked and changed through that descriptor.

use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use mio::net::UnixStream;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, chmod, chownat, fstat, open};
use rustix::process::{geteuid, umask};
use socket2::{Domain, SockAddr, Socket, Type};

/// Permissions and owner of a Unix socket's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketFile {
    /// The permission bits, as for `chmod`; the umask is not applied.
    pub mode: u32,
    /// The owning user; `None` is the user of the process.
    pub user: Option<u32>,
    /// The owning group; `None` is the group of the process or the directory.
    pub group: Option<u32>,
}

impl Default for SocketFile {
    /// Any local user who can search the directory may connect.
    fn default() -> Self {
        SocketFile {
            mode: 0o666,
            user: None,
            group: None,
        }
    }
}

/// The file of an open socket. It is removed on drop, if it is still at its path.
#[derive(Debug)]
pub(crate) struct OwnFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Opens a listening socket at a path.
///
/// # Errors
/// Errors of binding and listening, and of changing the owner.
pub(crate) fn listen(
    path: &Path,
    file: SocketFile,
    backlog: i32,
) -> io::Result<(UnixListener, OwnFile)> {
    remove_stale(path)?;
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    bind(&socket, &address, file.mode)?;
    let (fd, own) = OwnFile::open(path)?;
    prepare(&fd, file)?;
    socket.listen(backlog)?;
    Ok((socket.into(), own))
}

/// Creates the file with the given mode. The umask is process-wide, so it is changed for only one
/// system call.
fn bind(socket: &Socket, address: &SockAddr, mode: u32) -> io::Result<()> {
    let _guard = UMASK.lock().unwrap_or_else(PoisonError::into_inner);
    let before = umask(Mode::from_raw_mode(!mode & PERMISSIONS));
    let bound = socket.bind(address);
    umask(before);
    bound
}

impl OwnFile {
    /// Opens the file that this process has just created, without access to its content.
    ///
    /// Nothing tells which file a socket is bound to. But only this process and root can create a
    /// socket of this user, and a hard link to an older one would show in the number of links.
    fn open(path: &Path) -> io::Result<(OwnedFd, Self)> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = open(path, flags, Mode::empty())?;
        let stat = fstat(&fd)?;
        let is_own = FileType::from_raw_mode(stat.st_mode) == FileType::Socket
            && stat.st_uid == geteuid().as_raw()
            && stat.st_nlink == 1;
        if !is_own {
            let text = "another process has replaced the socket's file; no other user may own, or \
                        write to, the directory";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let own = OwnFile {
            path: path.to_owned(),
            device: stat.st_dev,
            inode: stat.st_ino,
        };
        Ok((fd, own))
    }

    fn is_same_file(&self, metadata: &Metadata) -> bool {
        (metadata.dev(), metadata.ino()) == (self.device, self.inode)
    }
}

/// Sets the owner and the mode of an open file.
fn prepare(fd: &OwnedFd, file: SocketFile) -> io::Result<()> {
    if file.user.is_some() || file.group.is_some() {
        let (user, group) = (file.user.map(Uid::from_raw), file.group.map(Gid::from_raw));
        chownat(fd, "", user, group, AtFlags::EMPTY_PATH)
            .map_err(|error| refused(&error.into(), "its owner cannot be changed"))?;
    }
    // A default ACL of the directory replaces the umask.
    if permissions(&fstat(fd)?) != file.mode {
        // fchmod(2) refuses a descriptor without access to the content; this link in `/proc` leads
        // to the open file itself, whatever is at its path.
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        chmod(link, Mode::from_raw_mode(file.mode))
            .map_err(|error| refused(&error.into(), "its mode cannot be changed"))?;
    }
    Ok(())
}

fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & PERMISSIONS
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        // Another process may have removed the file, and may be listening at the same path.
        let found = fs::symlink_metadata(&self.path);
        if !found.is_ok_and(|metadata| self.is_same_file(&metadata)) {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            log::debug!("{}: {error}", self.path.display());
        }
    }
}

/// Removes the socket file of a process that has ended. Only a refused connection proves that: any
/// other error may come from a socket that another process listens on.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Ok(()),
    }
}

/// Converts an error of changing the file. In a user namespace, an unmapped owner is reported as an
/// invalid argument.
fn refused(error: &io::Error, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("{what}: {error}"))
}

/// Ledger while the umask is changed, so that concurrent threads restore the original one.
static UMASK: Mutex<()> = Mutex::new(());
/// The permission bits of a mode.
const PERMISSIONS: u32 = 0o777;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn with_mode(mode: u32) -> SocketFile {
        SocketFile {
            mode,
            ..SocketFile::default()
        }
    }

    // D6
    #[test]
    fn the_mode_does_not_depend_on_the_umask() {
        let temp = tempfile::tempdir().unwrap();
        for wanted in [0o600, 0o660, 0o666, 0o777, 0o620] {
            let path = temp.path().join(format!("{wanted:o}"));
            let _socket = listen(&path, with_mode(wanted), 1).unwrap();
            assert_eq!(mode(&path), wanted);
        }
        let path = temp.path().join("file");
        fs::write(&path, "").unwrap();
        assert_eq!(mode(&path) & 0o600, 0o600, "the umask is as it was");
    }

    // D6
    #[test]
    fn no_client_can_connect_before_the_owner_is_set() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s");
        let address = SockAddr::unix(&path).unwrap();
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        bind(&socket, &address, 0o620).unwrap();
        // The mode is correct from the start, and the owner is changed before `listen`.
        assert_eq!(mode(&path), 0o620);
        let error = UnixStream::connect(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn an_owner_that_cannot_be_set_leaves_no_socket() {
        if rustix::process::geteuid().is_root() {
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s");
        let root = SocketFile {
            user: Some(0),
            ..with_mode(0o600)
        };
        let error = listen(&path, root, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("owner"), "{error}");
        assert!(!path.exists());
    }

    // D6
    #[test]
    fn the_owner_and_the_group_are_set_independently() {
        use std::os::unix::fs::MetadataExt;

        if !rustix::process::geteuid().is_root() {
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        for (user, group) in [(Some(1), None), (None, Some(1)), (Some(1), Some(2))] {
            let path = temp.path().join("s");
            let file = SocketFile {
                user,
                group,
                ..with_mode(0o600)
            };
            let _socket = listen(&path, file, 1).unwrap();
            let metadata = fs::metadata(&path).unwrap();
            let expected = (user.unwrap_or(0), group.unwrap_or(0));
            assert_eq!((metadata.uid(), metadata.gid()), expected);
        }
    }

    // D6
    #[test]
    fn only_a_socket_that_refuses_connections_is_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s");
        // A full backlog does not refuse connections.
        let (first, own) = listen(&path, with_mode(0o600), 0).unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path) {
            waiting.push(stream);
        }
        let error = listen(&path, with_mode(0o600), 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
        // A killed process leaves its file.
        std::mem::forget(own);
        drop((first, waiting));
        listen(&path, with_mode(0o600), 1).unwrap();
        fs::write(&path, "a file").unwrap();
        let error = listen(&path, with_mode(0o600), 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    // D6
    #[test]
    fn the_file_of_another_socket_at_the_path_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s");
        let (_first, own) = listen(&path, with_mode(0o600), 1).unwrap();
        fs::rename(&path, temp.path().join("away")).unwrap();
        let (_next, next_own) = listen(&path, with_mode(0o600), 1).unwrap();
        drop(own);
        assert!(path.exists());
        drop(next_own);
        assert!(!path.exists());
    }

    #[test]
    fn a_replaced_file_is_refused_and_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let target = temp.path().join("target");
        fs::write(&target, "").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
        let (_socket, own) = listen(&temp.path().join("other"), with_mode(0o600), 1).unwrap();
        for name in ["file", "to file", "to socket", "second link"] {
            let path = temp.path().join(name);
            match name {
                "file" => fs::copy(&target, &path).map(drop).unwrap(),
                "to file" => symlink(&target, &path).unwrap(),
                "to socket" => symlink(&own.path, &path).unwrap(),
                _ => fs::hard_link(&own.path, &path).unwrap(),
            }
            let error = OwnFile::open(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{name}");
            assert!(error.to_string().contains("replaced"), "{name}: {error}");
            assert!(path.symlink_metadata().is_ok(), "{name}");
            fs::remove_file(&path).unwrap();
        }
        assert_eq!((mode(&target), mode(&own.path)), (0o600, 0o600));
    }

    #[test]
    fn changes_apply_to_the_opened_file_and_not_to_a_link_at_its_path() {
        let temp = tempfile::tempdir().unwrap();
        let target = temp.path().join("target");
        fs::write(&target, "").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
        let (path, away) = (temp.path().join("s"), temp.path().join("away"));
        let (_socket, _own) = listen(&path, with_mode(0o600), 1).unwrap();
        let (fd, again) = OwnFile::open(&path).unwrap();
        fs::rename(&path, &away).unwrap();
        symlink(&target, &path).unwrap();
        let to_group = SocketFile {
            group: Some(rustix::process::getegid().as_raw()),
            ..with_mode(0o666)
        };
        prepare(&fd, to_group).unwrap();
        assert_eq!((mode(&away), mode(&target)), (0o666, 0o600));
        drop(again);
        assert!(path.is_symlink(), "the link is not this process's file");
    }
}

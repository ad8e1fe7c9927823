//! Listening sockets that the process inherits from systemd socket activation (sd_listen_fds(3)).
//!
//! Owns: the sockets until the server listens on them, and the meaning of their names. systemd
//! keeps its own copies open, so clients that connect between two servers wait in the accept queue
//! for the next server.

use std::env;
use std::io;
use std::process;

use listenfd::ListenFd;

use crate::config::{InheritedAddresses, Listen};
use crate::exit::Exit;
use crate::net::{Address, Listener};

/// The inherited sockets, each with its role.
#[derive(Default)]
pub(super) struct InheritedSockets(Vec<(Role, Address, Listener)>);

/// The role of a socket, derived from its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    WebSockets { tls: bool },
    Admin,
}

impl InheritedSockets {
    /// Takes the sockets that this process inherited. Call this before any other descriptor is
    /// opened.
    ///
    /// # Errors
    /// [`Exit`] if a socket has an unknown name or is not listening.
    pub(super) fn take() -> Result<Self, Exit> {
        // The variables are meant for another process and were left in the environment.
        if env::var("LISTEN_PID").ok() != Some(process::id().to_string()) {
            return Ok(InheritedSockets::default());
        }
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut descriptors = ListenFd::from_env();
        let mut sockets = Vec::new();
        for number in 0..descriptors.len() {
            let name = names.get(number).copied().unwrap_or_default();
            let role = role(name).ok_or_else(|| unknown(number, name))?;
            let listener = listener(&mut descriptors, number)
                .and_then(|listener| Ok((listener.address()?, listener)));
            let (address, listener) = listener.map_err(|error| broken(number, name, &error))?;
            sockets.push((role, address, listener));
        }
        let admins = sockets.iter().filter(|(role, ..)| *role == Role::Admin);
        if admins.count() > 1 {
            let message = "more than one inherited socket is named admin; use FileDescriptorName=admin in one \
                           socket unit only";
            return Err(Exit::new(Exit::CONFIG, message));
        }
        Ok(InheritedSockets(sockets))
    }

    /// Returns the addresses that the sockets listen on.
    pub(super) fn addresses(&self) -> InheritedAddresses {
        let mut addresses = InheritedAddresses::default();
        for (role, address, _) in &self.0 {
            let address = address.clone();
            match *role {
                Role::WebSockets { tls } => addresses.listen.push(Listen { address, tls }),
                Role::Admin => addresses.admin = Some(address),
            }
        }
        addresses
    }

    /// Removes and returns the socket that listens on `address`, if any.
    pub(super) fn take_listener(&mut self, address: &Address) -> Option<Listener> {
        let index = self.0.iter().position(|(_, there, _)| there == address)?;
        Some(self.0.swap_remove(index).2)
    }
}

/// Sockets that share a name share a role.
fn role(name: &str) -> Option<Role> {
    match name {
        "ws" => Some(Role::WebSockets { tls: false }),
        "wss" => Some(Role::WebSockets { tls: true }),
        "admin" => Some(Role::Admin),
        _ => None,
    }
}

fn listener(descriptors: &mut ListenFd, number: usize) -> io::Result<Listener> {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    // A descriptor that is not a TCP socket is left in place.
    match descriptors.take_tcp_listener(number) {
        Ok(socket) => Listener::from_tcp(socket.ok_or_else(gone)?, None),
        Err(_) => {
            let socket = descriptors.take_unix_listener(number)?;
            Listener::from_unix(socket.ok_or_else(gone)?, None)
        }
    }
}

fn unknown(number: usize, name: &str) -> Exit {
    let message = format!(
        "inherited socket {} has the unknown name {name:?}: name it ws, wss, or admin \
         (FileDescriptorName= in the socket unit)",
        number + 1
    );
    Exit::new(Exit::CONFIG, message)
}

fn broken(number: usize, name: &str, error: &io::Error) -> Exit {
    let message = format!(
        "inherited socket {} ({name}) must be a listening stream socket (Accept=no in the socket \
         unit): {error}",
        number + 1
    );
    Exit::new(Exit::CONFIG, message)
}

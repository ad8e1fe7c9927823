//! The server: an existing process, or a command that is started and terminated.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::cli::Common;
use crate::process::Process;
use crate::target::{START_TIMEOUT, Target};

/// The server of a run.
pub struct Server {
    pub process: Option<Process>,
    child: Option<Child>,
}

impl Server {
    /// Finds the process, or starts it and waits until it listens.
    ///
    /// # Errors
    ///
    /// Returns an error if it does not start.
    pub fn new(common: &Common, target: &Target) -> Result<Server> {
        let Some(command) = &common.server else {
            let process = common.pid.map(|pid| Process { pid });
            if let Some(process) = process {
                process.cpu()?;
            }
            return Ok(Server {
                process,
                child: None,
            });
        };
        let mut words = command.split_whitespace();
        let program = words.next().ok_or("--server names no program")?;
        let mut child = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        let process = Some(Process { pid: child.id() });
        let began = Instant::now();
        while TcpStream::connect(target.address).is_err() {
            if let Some(status) = child.try_wait()? {
                return Err(format!("the server ended: {status}").into());
            }
            if began.elapsed() > START_TIMEOUT {
                let _ = child.kill();
                return Err("the server does not listen".into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Server {
            process,
            child: Some(child),
        })
    }

    /// Returns its resident memory in bytes, if its process is known.
    ///
    /// # Errors
    ///
    /// Returns an error if it has ended.
    pub fn resident(&self) -> Result<Option<f64>> {
        self.process.map(Process::resident).transpose()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

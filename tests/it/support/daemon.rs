//! Programs of others as child processes, on ports of their own; ended by pid whatever becomes of the test.

use std::{
    collections::HashSet,
    fs::File,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use tokio::net::TcpStream;

use super::process::appears;

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command`, which says what it says to the file `log`.
    pub fn start(command: &mut Command, log: PathBuf) -> Self {
        let said = File::create(&log).expect("a file");
        let path = std::env::var("PATH").unwrap_or_default();
        let command = command.env("PATH", format!("{path}:/usr/sbin:/sbin")).stdin(Stdio::null());
        let command = command.stdout(said.try_clone().expect("a file")).stderr(said);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("{}: {error}; tests/run installs it", command.get_program().display())
        });
        Self { child, log }
    }

    /// Waits until something listens on `addr`; false if the program ended instead.
    pub async fn listens(&mut self, addr: SocketAddr) -> bool {
        appears(&format!("a listener on {addr}"), async || {
            let ended = self.child.try_wait().expect("our child").is_some();
            let open = TcpStream::connect(addr).await.is_ok();
            (open || ended).then_some(!ended)
        })
        .await
    }

    /// Sends the signal of this name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &kill]).status().expect("a shell");
        assert!(status.success(), "{kill}");
    }

    /// What it has said.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An address of this machine that is free, outside the range from which connections get theirs: it stays free until it is used.
pub fn free() -> SocketAddr {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_default();
    // Other test runs on this machine begin elsewhere.
    let begin = std::process::id().wrapping_mul(613) % PORTS;
    let found = (0..PORTS).find_map(|number| {
        let port = u16::try_from(FIRST + (begin + number) % PORTS).expect("a port");
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let is_free = !given.contains(&port) && TcpListener::bind(addr).is_ok();
        is_free.then_some(addr)
    });
    let found = found.expect("a free port");
    given.insert(found.port());
    found
}

const FIRST: u32 = 14_000;
const PORTS: u32 = 16_000;

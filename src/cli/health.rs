//! `labgate health`: asks the running instance whether it is ready, for images without a shell.
//!
//! It reads the configuration for the admin listener's address only. Whatever else is wrong there does not matter: the instance may well be
//! serving on with the configuration before a bad edit, and must not be restarted for it.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};

use super::Environment;
use crate::config;

/// How long each of connecting, asking and reading may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is read of the answer at most.
const ENOUGH: u64 = 16 * 1024;

/// Ends with 0 if `/readyz` is green, with 1 and the reason if not.
pub(super) fn run(path: Option<PathBuf>, env: &Environment) -> anyhow::Result<ExitCode> {
    let (_, config, _) = config::load(path, env);
    ask(reachable(config.unwrap_or_default().server.admin), PATIENCE)?;
    Ok(ExitCode::SUCCESS)
}

/// The address at which a listener on `address` is reached from the same machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn ask(address: SocketAddr, patience: Duration) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, patience)
        .with_context(|| format!("nothing answers at {address}"))?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let question = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).context("the question can't be sent")?;
    let mut answer = Vec::new();
    stream
        .take(ENOUGH)
        .read_to_end(&mut answer)
        .with_context(|| format!("no answer from {address} in time"))?;
    judge(&String::from_utf8_lossy(&answer))
}

fn judge(answer: &str) -> anyhow::Result<()> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let mut words = head.split_ascii_whitespace();
    let protocol = words.next().unwrap_or_default();
    match (protocol.starts_with("HTTP/1."), words.next()) {
        (true, Some("200")) => Ok(()),
        (true, Some(status)) => bail!("not ready ({status}): {}", body.trim()),
        _ => bail!("the answer is not HTTP"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// What `ask` makes of a listener that answers with `answer`.
    fn asked(answer: &'static str) -> (anyhow::Result<()>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = Vec::new();
            while !question.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                question.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(question).unwrap()
        });
        (ask(address, PATIENCE), server.join().unwrap())
    }

    #[test]
    fn green_is_healthy_and_all_else_is_not() {
        let (healthy, question) = asked("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        healthy.unwrap();
        assert!(question.starts_with("GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:"), "{question}");
        let (draining, _) = asked("HTTP/1.1 503 Service Unavailable\r\n\r\ndraining\n");
        assert_eq!(draining.unwrap_err().to_string(), "not ready (503): draining");
        for wrong in ["", "SSH-2.0-x\r\n", "HTTP/1.1 2000 x\r\n\r\n", "200"] {
            assert!(asked(wrong).0.is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_silent_or_absent_instance_is_not_healthy() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(ask(address, Duration::from_millis(50)).is_err());
        drop(listener);
        let error = ask(address, PATIENCE).unwrap_err().to_string();
        assert!(error.starts_with("nothing answers at 127.0.0.1:"), "{error}");
    }

    #[test]
    fn everywhere_is_reached_by_loopback() {
        for (listens, reached) in [
            ("0.0.0.0:4190", "127.0.0.1:4190"),
            ("[::]:4190", "[::1]:4190"),
            ("192.0.2.7:4190", "192.0.2.7:4190"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), reached);
        }
    }
}

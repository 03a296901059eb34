//! Listening sockets, and the loop that accepts from one.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Server, core::Arrival};

/// Connections that the kernel keeps until we accept them.
const BACKLOG: i32 = 1024;

/// Listens on `address`, without accepting yet.
///
/// # Errors
///
/// If the address is taken, not this machine's, or not allowed; the message names it.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait for the connections of the last run to time out.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    open().map_err(|error: io::Error| {
        let reason = match error.kind() {
            io::ErrorKind::AddrInUse => "another process listens there".to_owned(),
            io::ErrorKind::AddrNotAvailable => "it is no address of this machine".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "that port needs more rights than this process has".to_owned()
            },
            _ => error.to_string(),
        };
        io::Error::new(error.kind(), format!("can't listen on {address}: {reason}"))
    })
}

impl Server {
    /// Accepts from `listener` and hands every socket to the core with the fewest connections, until a drain begins or the future is dropped.
    ///
    /// # Errors
    ///
    /// If the runtime can't watch the listener; what goes wrong with a single socket ends nothing.
    pub async fn accept(&self, listener: TcpListener) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut pause = Pause::default();
        let mut drained = std::pin::pin!(self.live.drain.notified());
        drained.as_mut().enable();
        while !self.live.draining() {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut drained => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = Pause::default();
                    self.hand_over(stream, peer);
                },
                Err(error) if is_of_one_socket(&error) => {},
                Err(error) => {
                    self.live.counts.failed.fetch_add(1, Relaxed);
                    let wait = pause.next();
                    tracing::warn!(%error, pause_ms = wait.as_millis(), "no connection can be accepted");
                    tokio::time::sleep(wait).await;
                },
            }
        }
        Ok(())
    }

    fn hand_over(&self, stream: tokio::net::TcpStream, peer: SocketAddr) {
        // Beyond the limit the socket is closed: a client that is told goes elsewhere, one in the backlog waits.
        let Some(open) = self.live.admit(self.limit) else {
            return;
        };
        // Small answers must not wait for the peer's delayed acknowledgement.
        let ready = stream.set_nodelay(true).and_then(|()| stream.into_std());
        let (Ok(stream), Some(core)) = (ready, self.cores.get(open.core)) else {
            return;
        };
        core.send(Arrival { stream, peer, open });
    }
}

/// Errors that accept(2) passes on from the new socket, not from ours.
fn is_of_one_socket(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Growing pauses, such as while there are no file descriptors: trying at once would spin.
#[derive(Default)]
struct Pause(u32);

impl Pause {
    fn next(&mut self) -> Duration {
        let wait = Duration::from_millis(10 << self.0.min(6));
        self.0 += 1;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_less_than_a_second() {
        let mut pause = Pause::default();
        let waits: Vec<_> = (0..100).map(|_| pause.next().as_millis()).collect();
        assert_eq!(waits[..3], [10, 20, 40]);
        assert_eq!(waits[99], 640);
    }
}

//! `WebSocket` and other upgrades: who may ask, what the upstream's 101 must say, and the bytes that pass from then on.
//!
//! HTTP/2's extended CONNECT (RFC 8441) is not offered, so browsers open theirs over HTTP/1.1. An upgrade to HTTP/2 or TLS is dropped from the
//! request, which then goes on as plain HTTP (RFC 9110, 7.8).

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, Method, Request, Version, header};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    time::{sleep, timeout},
};

use super::tunnels::Place;
use crate::{body::Body, refusal::Refusal};

/// How long the second direction may go on when the first has ended.
const LINGER: Duration = Duration::from_secs(10);

/// How long a tunnel stays open without a byte either way; pings of applications come far more often.
const QUIET: Duration = Duration::from_hours(1);
const BUFFER: usize = 8 * 1024;

/// Passes bytes both ways until either side closes, neither says anything for long, or the tunnel must end.
pub(super) async fn tunnel(client: OnUpgrade, upstream: OnUpgrade, place: Place) {
    let work = async {
        let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else {
            return;
        };
        join(TokioIo::new(client), TokioIo::new(upstream), || place.moves()).await;
    };
    tokio::select! {
        () = work => {},
        () = place.ended() => {},
    }
}

/// Calls `tell` whenever something passes.
async fn join<C, U>(client: C, upstream: U, tell: impl Fn())
where
    C: AsyncRead + AsyncWrite,
    U: AsyncRead + AsyncWrite,
{
    let moved = AtomicBool::new(false);
    let note = || {
        moved.store(true, Relaxed);
        tell();
    };
    let (mut client_out, mut client_in) = split(client);
    let (mut upstream_out, mut upstream_in) = split(upstream);
    let mut up = std::pin::pin!(pass(&mut client_out, &mut upstream_in, &note));
    let mut down = std::pin::pin!(pass(&mut upstream_out, &mut client_in, &note));
    // A side that fails is gone; one that has only ended may still be read by the other for a while.
    tokio::select! {
        passed = &mut up => if passed.is_ok() { drop(timeout(LINGER, down).await) },
        passed = &mut down => if passed.is_ok() { drop(timeout(LINGER, up).await) },
        () = quiet(&moved) => {},
    }
}

/// Passes all that comes from one side to the other, and the end.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    tell: &impl Fn(),
) -> io::Result<()> {
    let mut bytes = BytesMut::with_capacity(BUFFER);
    while from.read_buf(&mut bytes).await? > 0 {
        tell();
        to.write_all_buf(&mut bytes).await?;
        // What encrypts may have kept something back.
        to.flush().await?;
        bytes.clear();
        bytes.reserve(BUFFER);
    }
    to.shutdown().await
}

/// Waits until nothing has moved for [`QUIET`], or up to twice as long.
async fn quiet(moved: &AtomicBool) {
    loop {
        sleep(QUIET).await;
        if !moved.swap(false, Relaxed) {
            return;
        }
    }
}

/// The protocol that `request` asks to change to, if it may ask.
pub(super) fn wish(request: &Request<Body>) -> Result<Option<HeaderValue>, Refusal> {
    let headers = request.headers();
    let Some(protocol) = headers.get(header::UPGRADE) else {
        return Ok(None);
    };
    let asked = request.version() == Version::HTTP_11
        && request.body().is_end_stream()
        && headers.get_all(header::UPGRADE).iter().nth(1).is_none()
        && connection_says_upgrade(headers);
    match asked && may_be_asked_for(protocol) {
        false => Ok(None),
        true if is(protocol, "websocket") => websocket(request)
            .map_or_else(|why| Err(Refusal::Malformed(why)), |()| Ok(Some(protocol.clone()))),
        true => Ok(Some(protocol.clone())),
    }
}

/// Whether a 101 with these fields changes to the protocol that was asked for.
pub(super) fn is_granted(wish: &HeaderValue, headers: &HeaderMap) -> bool {
    let mut granted = headers.get_all(header::UPGRADE).iter();
    let same = granted
        .next()
        .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(wish.as_bytes()));
    same && granted.next().is_none() && connection_says_upgrade(headers)
}

/// One protocol, and none that carries HTTP past the gate.
fn may_be_asked_for(protocol: &HeaderValue) -> bool {
    let token = |byte: &u8| byte.is_ascii_graphic() && *byte != b',';
    let name = protocol.as_bytes();
    let begins =
        |start: &[u8]| name.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start));
    !name.is_empty()
        && name.iter().all(token)
        && !begins(b"h2")
        && !begins(b"h3")
        && !begins(b"http")
        && !begins(b"tls")
}

/// RFC 6455, 4.2.1.
fn websocket(request: &Request<Body>) -> Result<(), &'static str> {
    let headers = request.headers();
    let one = |name| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none())
    };
    if request.method() != Method::GET {
        return Err("a WebSocket begins with GET");
    }
    if one(header::SEC_WEBSOCKET_KEY).is_none_or(|key| key.len() != 24) {
        return Err("a WebSocket needs one Sec-WebSocket-Key of 16 bytes");
    }
    match one(header::SEC_WEBSOCKET_VERSION) {
        Some(version) if version == "13" => Ok(()),
        _ => Err("a WebSocket needs Sec-WebSocket-Version 13"),
    }
}

fn connection_says_upgrade(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        value.to_str().is_ok_and(|text| {
            text.split(',').any(|option| option.trim().eq_ignore_ascii_case("upgrade"))
        })
    })
}

fn is(value: &HeaderValue, name: &str) -> bool {
    value.as_bytes().eq_ignore_ascii_case(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use tokio::{io::duplex, time::Instant};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_in_which_nothing_moves_is_closed() {
        let (mut client, client_end) = duplex(64);
        let (mut upstream, upstream_end) = duplex(64);
        let began = Instant::now();
        let tunnel = tokio::spawn(join(client_end, upstream_end, || {}));
        let mut byte = [0];
        for _ in 0..5 {
            sleep(QUIET.mul_f32(0.9)).await;
            client.write_all(b"a").await.unwrap();
            upstream.read_exact(&mut byte).await.unwrap();
            sleep(QUIET.mul_f32(0.9)).await;
            upstream.write_all(b"b").await.unwrap();
            client.read_exact(&mut byte).await.unwrap();
        }
        let closed = timeout(QUIET * 3, client.read(&mut byte)).await;
        assert_eq!(closed.expect("it is closed").unwrap(), 0);
        assert_eq!(upstream.read(&mut byte).await.unwrap(), 0);
        tunnel.await.unwrap();
        // The last byte came after nine hours.
        let open = began.elapsed();
        assert!(open >= QUIET * 10 && open <= QUIET * 11, "{open:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_has_ended_may_still_be_answered_for_a_while() {
        let (mut client, client_end) = duplex(64);
        let (mut upstream, upstream_end) = duplex(64);
        tokio::spawn(join(client_end, upstream_end, || {}));
        client.shutdown().await.unwrap();
        let mut bytes = [0; 4];
        assert_eq!(upstream.read(&mut bytes).await.unwrap(), 0);
        upstream.write_all(b"last").await.unwrap();
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"last");
        sleep(LINGER).await;
        assert_eq!(client.read(&mut bytes).await.unwrap(), 0);
    }
}

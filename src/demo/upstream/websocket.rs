//! An echo over WebSocket (RFC 6455), server side: the handshake, and frames with masking, fragments, ping and close.
//!
//! ```text
//!  FIN RSV1-3 opcode │ MASK length7 │ length16 or length64 │ masking key │ payload
//! ```
//!
//! Clients must mask, control frames are short and whole, text is UTF-8, messages have a limit; who breaks that gets the close code
//! of section 7.4.1. Extensions and subprotocols are left out.

use std::{io, time::Duration};

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufStream};

use crate::{
    body::Body,
    demo::{
        answer::{self, Answer},
        serve::Ending,
    },
};

/// Bytes of a message at most, all fragments together.
pub(super) const MESSAGE_BYTES: usize = 1024 * 1024;

/// How long a silent peer is kept.
const IDLE: Duration = Duration::from_mins(10);

/// `GET /ws`: switches protocols and echoes until either side closes, or the server ends.
pub(super) fn upgrade(mut request: Request<Incoming>, ending: Ending) -> Answer {
    let Some(accept) = accept(request.method(), request.headers()) else {
        let refused = answer::text(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket\n");
        let refused = answer::with(refused, header::UPGRADE, "websocket");
        let refused = answer::with(refused, header::CONNECTION, "upgrade");
        return answer::with(refused, header::SEC_WEBSOCKET_VERSION, "13");
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(ending.run_until_cancelled_owned(async move {
        if let Ok(upgraded) = upgraded.await {
            // A peer that goes away in the middle is nobody's fault.
            let _ended = echo(BufStream::new(TokioIo::new(upgraded))).await;
        }
    }));
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    answer::with(answer, header::SEC_WEBSOCKET_ACCEPT, &accept)
}

/// The value of `Sec-WebSocket-Accept`, if the request is a proper opening handshake (section 4.2.1).
fn accept(method: &Method, headers: &HeaderMap) -> Option<String> {
    let text = |name| answer::header_text(headers, name);
    let listed = |name, word: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    let key = text(header::SEC_WEBSOCKET_KEY)?;
    let proper = method == Method::GET
        && listed(header::UPGRADE, "websocket")
        && listed(header::CONNECTION, "upgrade")
        && text(header::SEC_WEBSOCKET_VERSION) == Some("13")
        && STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16);
    proper.then(|| accept_key(key))
}

fn accept_key(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// Why the server closes, by the code it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Protocol = 1002,
    NotUtf8 = 1007,
    TooBig = 1009,
}

/// A frame, unmasked.
struct Frame {
    fin: bool,
    opcode: u8,
    payload: Vec<u8>,
}

/// Echoes messages until the peer closes; answers pings; closes on what breaks the protocol.
pub(super) async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    let mut message: Option<(u8, Vec<u8>)> = None;
    loop {
        let collected = message.as_ref().map_or(0, |(_, payload)| payload.len());
        let read = tokio::time::timeout(IDLE, read_frame(&mut stream, collected)).await;
        let frame = match read.map_err(|_| io::ErrorKind::TimedOut)?? {
            Ok(frame) => frame,
            Err(fault) => return fail(&mut stream, fault).await,
        };
        match frame.opcode {
            PING => write_frame(&mut stream, PONG, &frame.payload).await?,
            PONG => {},
            CLOSE => {
                if !is_close(&frame.payload) {
                    return fail(&mut stream, Fault::Protocol).await;
                }
                write_frame(&mut stream, CLOSE, &frame.payload).await?;
                return stream.shutdown().await;
            },
            opcode => {
                let (kind, payload) = match (message.take(), opcode) {
                    (Some((kind, mut begun)), CONTINUATION) => {
                        begun.extend_from_slice(&frame.payload);
                        (kind, begun)
                    },
                    (None, TEXT | BINARY) => (opcode, frame.payload),
                    // A continuation of nothing, or a new message inside another.
                    _ => return fail(&mut stream, Fault::Protocol).await,
                };
                if !frame.fin {
                    message = Some((kind, payload));
                } else if kind == TEXT && std::str::from_utf8(&payload).is_err() {
                    return fail(&mut stream, Fault::NotUtf8).await;
                } else {
                    write_frame(&mut stream, kind, &payload).await?;
                }
            },
        }
    }
}

/// A close payload is empty, or a code that may be sent and a reason in UTF-8 (sections 5.5.1 and 7.4).
fn is_close(payload: &[u8]) -> bool {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return payload.is_empty();
    };
    let code = u16::from_be_bytes(*code);
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) && std::str::from_utf8(reason).is_ok()
}

async fn fail<S: AsyncWrite + Unpin>(stream: &mut S, fault: Fault) -> io::Result<()> {
    write_frame(stream, CLOSE, &(fault as u16).to_be_bytes()).await?;
    stream.shutdown().await
}

/// Reads one frame; `collected` bytes of its message are there already.
async fn read_frame<S: AsyncRead + Unpin>(
    stream: &mut S,
    collected: usize,
) -> io::Result<Result<Frame, Fault>> {
    let [first, second] = read_array(stream).await?;
    let (fin, reserved, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0F);
    let (masked, short) = (second & 0x80 != 0, second & 0x7F);
    let control = opcode & 0x8 != 0;
    let known = matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG);
    if reserved != 0 || !known || !masked || (control && (!fin || short > 125)) {
        return Ok(Err(Fault::Protocol));
    }
    let length = match short {
        126 => u64::from(u16::from_be_bytes(read_array(stream).await?)),
        127 => u64::from_be_bytes(read_array(stream).await?),
        short => u64::from(short),
    };
    // Looked at before anything of that size is allocated.
    let room = MESSAGE_BYTES.saturating_sub(if control { 0 } else { collected });
    let Some(length) = usize::try_from(length).ok().filter(|length| *length <= room) else {
        return Ok(Err(Fault::TooBig));
    };
    let key: [u8; 4] = read_array(stream).await?;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    for (byte, mask) in payload.iter_mut().zip(key.iter().cycle()) {
        *byte ^= mask;
    }
    Ok(Ok(Frame { fin, opcode, payload }))
}

async fn read_array<const N: usize, S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<[u8; N]> {
    let mut array = [0; N];
    stream.read_exact(&mut array).await?;
    Ok(array)
}

/// Writes one whole frame, unmasked as servers do.
async fn write_frame<S: AsyncWrite + Unpin>(
    stream: &mut S,
    opcode: u8,
    payload: &[u8],
) -> io::Result<()> {
    let mut head = vec![0x80 | opcode];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..=125), _) => head.push(length),
        (_, Ok(length)) => {
            head.push(126);
            head.extend(length.to_be_bytes());
        },
        _ => {
            head.push(127);
            head.extend((payload.len() as u64).to_be_bytes());
        },
    }
    stream.write_all(&head).await?;
    stream.write_all(payload).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let key = [1, 2, 3, 4];
        let mut frame = vec![first];
        if let Ok(length @ ..=125) = u8::try_from(payload.len()) {
            frame.push(0x80 | length);
        } else {
            frame.push(0xFF);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
        frame.extend(key);
        frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// Everything the echo answers to these bytes.
    async fn answers(sent: &[u8]) -> Vec<u8> {
        let (mut client, server): (DuplexStream, DuplexStream) = duplex(4 * MESSAGE_BYTES);
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let _eof = echo(server).await;
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        got
    }

    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn messages_come_back_whole_and_pings_between_their_fragments_too() {
        assert_eq!(answers(&frame(0x81, b"hi")).await, b"\x81\x02hi");
        let sent = [frame(0x01, b"a"), frame(0x89, b"p"), frame(0x80, b"b")].concat();
        assert_eq!(answers(&sent).await, b"\x8a\x01p\x81\x02ab");
        let big = vec![7; 70_000];
        let got = answers(&frame(0x82, &big)).await;
        assert_eq!(got[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
        assert_eq!(got[10..], big);
        assert_eq!(answers(&frame(0x88, &1000_u16.to_be_bytes())).await, b"\x88\x02\x03\xe8");
    }

    #[tokio::test]
    async fn breaches_are_closed_with_their_code() {
        let protocol = b"\x88\x02\x03\xea".to_vec();
        let unmasked = b"\x81\x02hi".to_vec();
        let nested = [frame(0x01, b"a"), frame(0x81, b"b")].concat();
        for (sent, expected) in [
            (unmasked, &protocol),
            (frame(0xC1, b"reserved bit"), &protocol),
            (frame(0x83, b"unknown opcode"), &protocol),
            (frame(0x09, b"fragmented ping"), &protocol),
            (frame(0x89, &[0; 200]), &protocol),
            (frame(0x80, b"continues nothing"), &protocol),
            (nested, &protocol),
            (frame(0x88, &1005_u16.to_be_bytes()), &protocol),
            (frame(0x81, &[0xFF]), &b"\x88\x02\x03\xef".to_vec()),
        ] {
            assert_eq!(answers(&sent).await, *expected, "{sent:?}");
        }
    }

    #[tokio::test]
    async fn messages_have_a_limit_whatever_they_are_cut_into() {
        let too_big = b"\x88\x02\x03\xf1";
        let mut head = vec![0x82, 0xFF];
        head.extend((u64::MAX >> 1).to_be_bytes());
        assert_eq!(answers(&head).await, too_big);
        let half = vec![0; MESSAGE_BYTES / 2 + 1];
        assert_eq!(answers(&[frame(0x02, &half), frame(0x80, &half)].concat()).await, too_big);
    }
}

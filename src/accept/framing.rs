//! Strict framing of HTTP/1 requests, checked on the raw bytes before hyper sees them (RFC 9112).
//!
//! ```text
//! Start ─▶ RequestLine ─▶ Fields ─▶ Start          no body
//!                                ├▶ Sized          Content-Length
//!                                ├▶ ChunkSize …    Transfer-Encoding: chunked
//!                                └▶ Held           Upgrade: the response decides what the next byte is
//! ```
//!
//! hyper repairs what two parsers may read in two ways: it drops Content-Length beside Transfer-Encoding, takes a list of codings that ends in
//! chunked, and chunked twice, for chunked, a bare LF for a line end, skips white space behind a chunk size, keeps several Hosts, ignores unknown
//! expectations, and cuts `#` off a target. Here each of them refuses the request. What hyper refuses by itself (folded lines, white space
//! before a colon, control bytes, bad versions, unequal lengths, Transfer-Encoding on HTTP/1.0) is left to it; `tests.rs` holds both to it.

use memchr::memchr;

/// Follows the requests of one connection, byte by byte but never storing more than the start of a line.
#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
    head: Head,
    /// Start of a line that came in several reads.
    carry: Vec<u8>,
    /// Last byte that was read of such a line.
    last: u8,
}

/// What may be done with the bytes that were inspected.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Hand them on.
    Pass,
    /// Hand so many on, and hold the rest until the response to them is known.
    Hold(usize),
    /// Hand so many on, then refuse the head.
    RefuseHead(usize),
    /// The body is not what its head announced.
    RefuseBody,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    RequestLine,
    Fields,
    Held,
    Sized(u64),
    ChunkSize(Option<u64>),
    ChunkExtension(u64),
    ChunkStart(u64),
    Chunk(u64),
    ChunkEnd {
        return_seen: bool,
    },
    Trailers,
}

/// What the fields of one head say about its framing.
#[derive(Debug, Default)]
struct Head {
    hosts: u8,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

/// Longer than any line whose value matters here; one that matters is refused if it is not shorter, since no more of it may have been kept.
const CARRY: usize = 128;

/// More digits would overflow; no body is that long.
const MAX_CHUNK: u64 = 1 << 48;

impl Framing {
    /// Whether a head has begun and not ended.
    pub(super) fn in_head(&self) -> bool {
        matches!(self.state, State::RequestLine | State::Fields)
    }

    /// Whether a body has begun and not ended.
    pub(super) fn in_body(&self) -> bool {
        !self.in_head() && !matches!(self.state, State::Start | State::Held)
    }

    /// Goes on after `Verdict::Hold`, when the response was not 101.
    pub(super) fn resume(&mut self) {
        self.state = State::Start;
    }

    /// Follows `bytes`, which must be all that came since the last call.
    pub(super) fn inspect(&mut self, bytes: &[u8]) -> Verdict {
        let mut rest = bytes;
        while !rest.is_empty() {
            let at = bytes.len() - rest.len();
            match self.state {
                State::Start | State::RequestLine | State::Fields => {
                    let (line, after) = split_line(rest);
                    if !self.line(line) {
                        return Verdict::RefuseHead(at);
                    }
                    rest = after;
                },
                State::Held => return Verdict::Hold(at),
                State::Trailers => {
                    let (line, after) = split_line(rest);
                    if !self.trailer(line) {
                        return Verdict::RefuseBody;
                    }
                    rest = after;
                },
                State::Sized(left) => (rest, self.state) = skip(rest, left, State::Sized),
                State::Chunk(left) => (rest, self.state) = skip(rest, left, State::Chunk),
                State::ChunkSize(_)
                | State::ChunkExtension(_)
                | State::ChunkStart(_)
                | State::ChunkEnd { .. } => {
                    let Some((byte, after)) = rest.split_first() else {
                        break;
                    };
                    let Some(next) = self.chunk(*byte) else {
                        return Verdict::RefuseBody;
                    };
                    self.state = next;
                    rest = after;
                },
            }
        }
        match self.state {
            State::Held => Verdict::Hold(bytes.len()),
            _ => Verdict::Pass,
        }
    }

    /// Takes a line of a head, or a piece of one; false refuses it.
    fn line(&mut self, piece: &[u8]) -> bool {
        // hyper would cut a fragment off: what is judged must be what was sent.
        if !matches!(self.state, State::Fields) && piece.contains(&b'#') {
            return false;
        }
        let Some(body) = piece.strip_suffix(b"\n") else {
            if self.state == State::Start {
                self.state = State::RequestLine;
            }
            self.keep(piece);
            return true;
        };
        if self.carry.is_empty() {
            let Some(line) = body.strip_suffix(b"\r") else {
                return false;
            };
            return self.whole_line(line);
        }
        self.keep(body);
        let mut line = std::mem::take(&mut self.carry);
        let ended = self.last == b'\r';
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let fine = ended && self.whole_line(&line);
        line.clear();
        self.carry = line;
        fine
    }

    fn keep(&mut self, piece: &[u8]) {
        let room = CARRY.saturating_sub(self.carry.len()).min(piece.len());
        self.carry.extend_from_slice(piece.get(..room).unwrap_or_default());
        self.last = piece.last().copied().unwrap_or(self.last);
    }

    fn whole_line(&mut self, line: &[u8]) -> bool {
        match self.state {
            // RFC 9112, 2.2: empty lines before a request are skipped.
            State::Start | State::RequestLine if line.is_empty() => {
                self.state = State::Start;
                true
            },
            State::Start | State::RequestLine => {
                self.head = Head::default();
                self.state = State::Fields;
                true
            },
            _ if line.is_empty() => {
                self.state = self.head.next();
                true
            },
            _ => self.head.field(line),
        }
    }

    fn trailer(&mut self, piece: &[u8]) -> bool {
        let Some(body) = piece.strip_suffix(b"\n") else {
            self.keep(piece);
            return true;
        };
        let first = self.carry.is_empty();
        let ended = match body.last() {
            Some(last) => *last == b'\r',
            None => !first && self.last == b'\r',
        };
        let length = self.carry.len() + body.len();
        self.carry.clear();
        if ended && length == 1 {
            self.state = State::Start;
        }
        ended
    }

    fn chunk(&self, byte: u8) -> Option<State> {
        match (self.state, byte) {
            (State::ChunkSize(size), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = u64::from(char::from(byte).to_digit(16)?);
                let size = size.unwrap_or(0).checked_mul(16)?.checked_add(digit)?;
                (size < MAX_CHUNK).then_some(State::ChunkSize(Some(size)))
            },
            (State::ChunkSize(Some(size)), b';') => Some(State::ChunkExtension(size)),
            (State::ChunkSize(Some(size)) | State::ChunkExtension(size), b'\r') => {
                Some(State::ChunkStart(size))
            },
            (State::ChunkExtension(_), b' '..=b'~' | b'\t' | 0x80..) => Some(self.state),
            (State::ChunkStart(0), b'\n') => Some(State::Trailers),
            (State::ChunkStart(size), b'\n') => Some(State::Chunk(size)),
            (State::ChunkEnd { return_seen: false }, b'\r') => {
                Some(State::ChunkEnd { return_seen: true })
            },
            (State::ChunkEnd { return_seen: true }, b'\n') => Some(State::ChunkSize(None)),
            _ => None,
        }
    }
}

impl Head {
    fn field(&mut self, line: &[u8]) -> bool {
        if let Some(_host) = value(line, b"host") {
            self.hosts = self.hosts.saturating_add(1);
            return self.hosts == 1;
        }
        let short = line.len() < CARRY;
        if let Some(expectation) = value(line, b"expect") {
            return short && expectation.eq_ignore_ascii_case(b"100-continue");
        }
        if value(line, b"upgrade").is_some() {
            self.upgrade = true;
        }
        if let Some(coding) = value(line, b"transfer-encoding") {
            let fine = short && coding.eq_ignore_ascii_case(b"chunked") && !self.chunked;
            self.chunked = true;
            return fine && self.length.is_none();
        }
        if let Some(length) = value(line, b"content-length") {
            let length = digits(length);
            let fine =
                short && length.is_some() && (self.length.is_none() || self.length == length);
            self.length = length;
            return fine && !self.chunked;
        }
        true
    }

    fn next(&self) -> State {
        match (self.chunked, self.length) {
            (true, _) => State::ChunkSize(None),
            (false, Some(length @ 1..)) => State::Sized(length),
            (false, _) if self.upgrade => State::Held,
            (false, _) => State::Start,
        }
    }
}

/// The value of a field line if it has this name, without the white space around it.
fn value<'line>(line: &'line [u8], name: &[u8]) -> Option<&'line [u8]> {
    (line.get(name.len()) == Some(&b':')).then_some(())?;
    let (found, rest) = line.split_at_checked(name.len())?;
    let rest = rest.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name).then(|| rest.trim_ascii())
}

fn digits(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// The bytes up to and with the next LF (all of them if there is none), and those after it.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let length = memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
    bytes.split_at_checked(length).unwrap_or((bytes, &[]))
}

fn skip(bytes: &[u8], left: u64, state: fn(u64) -> State) -> (&[u8], State) {
    let step = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    let after = bytes.get(step..).unwrap_or_default();
    let next = match left.saturating_sub(step as u64) {
        0 if state(0) == State::Chunk(0) => State::ChunkEnd { return_seen: false },
        0 => State::Start,
        left => state(left),
    };
    (after, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "POST /a HTTP/1.1\r\nHost: a\r\n";

    /// Verdicts must not depend on how the bytes are cut into reads.
    fn verdict(text: &str) -> Verdict {
        let whole = Framing::default().inspect(text.as_bytes());
        let mut single = Framing::default();
        let one_by_one = text
            .bytes()
            .map(|byte| single.inspect(&[byte]))
            .find(|verdict| *verdict != Verdict::Pass);
        match (&whole, one_by_one.unwrap_or(Verdict::Pass)) {
            (Verdict::RefuseHead(_), Verdict::RefuseHead(_))
            | (Verdict::Hold(_), Verdict::Hold(_)) => {},
            (whole, single) => assert_eq!(*whole, single, "{text:?}"),
        }
        whole
    }

    #[test]
    fn ambiguous_heads_are_refused() {
        for fields in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding:\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding: \x0bchunked\r\n",
            "Content-Length: 3\r\nContent-Length: 4\r\n",
            "Content-Length: 3, 3\r\n",
            "Content-Length: +3\r\n",
            "Content-Length: -3\r\n",
            "Content-Length: 0x3\r\n",
            "Content-Length: 3 3\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "host: b\r\n",
            "Expect: 200-ok\r\n",
            "A: b\nC: d\r\n",
        ] {
            let text = format!("{HEAD}{fields}\r\n");
            assert!(matches!(verdict(&text), Verdict::RefuseHead(_)), "{fields:?}");
        }
        for head in ["GET /#a HTTP/1.1\r\n", "GET / HTTP/1.1\n", "\nGET / HTTP/1.1\r\n"] {
            assert!(matches!(verdict(head), Verdict::RefuseHead(_)), "{head:?}");
        }
    }

    #[test]
    fn values_too_long_to_be_kept_are_refused() {
        let zeros = "0".repeat(CARRY);
        let spaces = " ".repeat(CARRY);
        for field in [
            format!("Content-Length: {zeros}53\r\n"),
            format!("Content-Length:{spaces}53\r\n"),
            format!("Content-Length: 0{spaces}\r\n"),
            format!("Transfer-Encoding: chunked{spaces}\r\n"),
            format!("Transfer-Encoding:{spaces}chunked\r\n"),
            format!("Expect: 100-continue{spaces}x\r\n"),
        ] {
            let text = format!("{HEAD}{field}\r\n");
            assert!(matches!(verdict(&text), Verdict::RefuseHead(_)), "{field:?}");
            // However it is cut into two reads.
            for at in 1..text.len() {
                let (first, second) = text.as_bytes().split_at(at);
                let mut framing = Framing::default();
                let verdicts = [framing.inspect(first), framing.inspect(second)];
                let refused = verdicts.iter().any(|it| matches!(it, Verdict::RefuseHead(_)));
                assert!(refused, "{field:?} cut at {at}: {verdicts:?}");
            }
        }
        let long_host = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a.".repeat(CARRY));
        assert_eq!(verdict(&long_host), Verdict::Pass);
    }

    #[test]
    fn plain_messages_pass_and_the_next_head_is_found() {
        let next = "GET / HTTP/1.1\nHost: b\r\n\r\n";
        for message in [
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n\r\n".to_owned(),
            format!("\r\n{HEAD}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
            format!("{HEAD}Content-Length: 0\r\n\r\n"),
            format!(
                "{HEAD}Transfer-Encoding: Chunked\r\n\r\n3\r\na\nb\r\nA;x=\"y\"\r\n0123456789\r\n0\r\n\r\n"
            ),
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\nTrailer: a\r\nOther: b\r\n\r\n"),
            format!("{HEAD}X: {}\r\n\r\n", "x".repeat(300)),
        ] {
            assert_eq!(verdict(&message), Verdict::Pass, "{message:?}");
            let followed = verdict(&format!("{message}{next}"));
            assert_eq!(followed, Verdict::RefuseHead(message.len()), "{message:?}");
        }
    }

    #[test]
    fn odd_chunks_are_refused() {
        for body in [
            "3\nabc",
            "3 \r\nabc",
            "0x3\r\n",
            "+3\r\n",
            "-3\r\n",
            "_3\r\n",
            "\r\n",
            ";a\r\n",
            "3;a\nabc",
            "3;a\rb\nabc",
            "3;\0\r\n",
            "3\r\nabcd",
            "3\r\nabc\n",
            "ffffffffffffffffff\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\n\n",
        ] {
            let text = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{body}");
            assert_eq!(verdict(&text), Verdict::RefuseBody, "{body:?}");
        }
    }

    #[test]
    fn bytes_behind_an_upgrade_are_held_until_it_is_answered() {
        let head = "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
        let mut framing = Framing::default();
        let text = format!("{head}GET / HTTP/1.1\n");
        assert_eq!(framing.inspect(text.as_bytes()), Verdict::Hold(head.len()));
        framing.resume();
        assert_eq!(framing.inspect(b"GET / HTTP/1.1\n"), Verdict::RefuseHead(0));
    }
}

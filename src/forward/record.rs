//! What went out on a connection and whether anything came back: enough to send a request once more that may have been lost.
//!
//! A copy of the request itself would cost a count of users for each of its header fields; the bytes that hyper writes are copied in one piece,
//! and read again only in the rare case that the upstream closes just then. Which requests may go out twice is `backend`'s to know.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use http::{HeaderName, HeaderValue, Method, Request, Uri};

use crate::body::Body;

/// The present exchange of one connection.
#[derive(Debug, Default)]
pub(super) struct Record {
    answered: AtomicBool,
    /// Whether the next piece that is written is to be kept: hyper writes the head of a request without a body in one.
    keeps: AtomicBool,
    /// Whether `head` is that of the present exchange.
    kept: AtomicBool,
    head: Mutex<Vec<u8>>,
}

/// Longer heads are kept, but not their room.
const ROOM: usize = 8 * 1024;

impl Record {
    /// A new exchange begins, whose head is kept if `keeps` says so.
    pub(super) fn begin(&self, keeps: bool) {
        self.answered.store(false, Relaxed);
        self.keeps.store(keeps, Relaxed);
        self.kept.store(false, Relaxed);
    }

    /// Whether a byte has come back.
    pub(super) fn is_answered(&self) -> bool {
        self.answered.load(Relaxed)
    }

    /// Something came back.
    pub(super) fn answer(&self) {
        self.answered.store(true, Relaxed);
    }

    /// Something is written.
    pub(super) fn write(&self, bytes: &[u8]) {
        if !self.keeps.load(Relaxed) {
            return;
        }
        self.keeps.store(false, Relaxed);
        self.kept.store(true, Relaxed);
        let mut head = self.head();
        head.clear();
        head.shrink_to(ROOM);
        head.extend_from_slice(bytes);
    }

    /// The request that went out in this exchange, if it was to be kept.
    pub(super) fn request(&self) -> Option<Request<Body>> {
        if !self.kept.load(Relaxed) {
            return None;
        }
        read(&self.head())
    }

    fn head(&self) -> MutexGuard<'_, Vec<u8>> {
        // Whoever panicked has left whole bytes.
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads one whole head as hyper writes it; nothing if there is more, or less.
fn read(head: &[u8]) -> Option<Request<Body>> {
    let mut lines = head.strip_suffix(b"\n\r\n")?.split(|byte| *byte == b'\n');
    let mut words = lines.next()?.split(|byte| *byte == b' ');
    let (method, target) = (words.next()?, words.next()?);
    if words.next()? != b"HTTP/1.1\r" || words.next().is_some() {
        return None;
    }
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::from_bytes(method).ok()?;
    *request.uri_mut() = Uri::try_from(target).ok()?;
    for line in lines {
        let line = line.strip_suffix(b"\r")?;
        let (name, value) = line.split_at_checked(line.iter().position(|byte| *byte == b':')?)?;
        let name = HeaderName::from_bytes(name).ok()?;
        let value = HeaderValue::from_bytes(value.strip_prefix(b": ")?).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"GET /a%20b//c?d=%C3%A4&e HTTP/1.1\r\nhost: app\r\nx-empty: \r\nx-odd:  a:b \xe4\t\r\nx-twice: 1\r\nx-twice: 2\r\n\r\n";

    fn kept(pieces: &[&[u8]]) -> Option<Request<Body>> {
        let record = Record::default();
        record.begin(true);
        for piece in pieces {
            record.write(piece);
        }
        record.request()
    }

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let request = kept(&[HEAD, b"what follows is not kept"]).unwrap();
        assert_eq!(
            (request.method(), request.uri()),
            (&Method::GET, &Uri::from_static("/a%20b//c?d=%C3%A4&e"))
        );
        let fields =
            request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let expected: [(&str, &[u8]); 5] = [
            ("host", b"app"),
            ("x-empty", b""),
            ("x-odd", b" a:b \xe4\t"),
            ("x-twice", b"1"),
            ("x-twice", b"2"),
        ];
        assert_eq!(fields.collect::<Vec<_>>(), expected);
        assert_eq!(kept(&[b"OPTIONS * HTTP/1.1\r\n\r\n"]).unwrap().uri(), "*");
    }

    #[test]
    fn what_is_not_one_whole_head_is_no_request() {
        for piece in [
            &b""[..],
            b"GET / HTTP/1.1\r\n",
            b"GET / HTTP/1.1\r\nhost: a\r\n",
            b"rest: of another\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\nbody",
            b"GET / HTTP/1.0\r\n\r\n",
            b"GET / / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        ] {
            assert!(kept(&[piece]).is_none(), "{:?}", String::from_utf8_lossy(piece));
        }
    }

    #[test]
    fn only_the_present_exchange_counts_and_only_if_it_is_to_be_kept() {
        let record = Record::default();
        record.begin(true);
        record.write(HEAD);
        record.answer();
        assert!(record.is_answered() && record.request().is_some());
        record.begin(false);
        record.write(HEAD);
        assert!(!record.is_answered() && record.request().is_none());
        record.begin(true);
        assert!(record.request().is_none());
    }
}

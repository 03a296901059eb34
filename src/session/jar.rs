//! The `Cookie` header as it came (RFC 6265bis, 5.8.3): pairs found without unfolding, joining or unquoting anything.
//!
//! ```text
//! lines ──split at `;`──▶ pieces ──`name=value`──▶ pairs, in the browser's order
//! ```
//!
//! Two legacy readings of the header let one cookie swallow or fake another (RFC 2109's `$Version`, quotes around several pairs); pieces that
//! depend on them are found, so that they can be removed, but not honoured. Which names are labgate's is `cookie`'s to know.

use http::{HeaderMap, HeaderValue, header::COOKIE};

/// One `name=value` of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    /// Whether every reading of the header, old and new, sees this pair.
    pub(super) plain: bool,
}

/// Pairs whose name `ours` knows, in the order of the browser; the limit of a request's head is theirs too.
pub(super) fn pairs(headers: &HeaderMap, ours: impl Fn(&[u8]) -> bool) -> Vec<Pair<'_>> {
    let mut found = Vec::new();
    for (position, piece) in pieces(headers).enumerate() {
        let Some((name, value)) = split(piece) else {
            continue;
        };
        if ours(name) {
            found.push((position, name, value));
        }
    }
    if found.is_empty() {
        return Vec::new();
    }
    let quoted = Quoted::of(headers);
    let pair = |(position, name, value)| Pair { name, value, plain: !quoted.covers(position) };
    found.into_iter().map(pair).collect()
}

/// Removes the pieces whose name `ours` knows; all others stay byte for byte, in order, on their lines.
pub(super) fn strip(headers: &mut HeaderMap, ours: impl Fn(&[u8]) -> bool) {
    let is_ours = |piece: &[u8]| ours(loose_name(piece));
    if !pieces(headers).any(is_ours) {
        return;
    }
    let lines = headers.get_all(COOKIE).iter();
    let kept: Vec<HeaderValue> = lines.filter_map(|line| keep(line, &is_ours)).collect();
    let mut kept = kept.into_iter();
    match kept.next() {
        None => {
            headers.remove(COOKIE);
        },
        Some(first) => {
            headers.insert(COOKIE, first);
            for line in kept {
                headers.append(COOKIE, line);
            }
        },
    }
}

/// The name in a `Set-Cookie` value or a piece, as the laxest reader sees it: a cookie without a name is sent back as its bare value, so that
/// `=labgate=x` returns as `labgate=x`.
pub(super) fn loose_name(text: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| *byte <= b' ' || *byte == b'=';
    let start = text.iter().position(|byte| !is_space(byte));
    let text = start.and_then(|start| text.get(start..)).unwrap_or(&[]);
    let end = text.iter().position(|byte| matches!(byte, b'=' | b';'));
    let name = text.get(..end.unwrap_or(text.len())).unwrap_or(&[]);
    name.trim_ascii_end()
}

/// All pieces of all lines; the one space that browsers put after `;` is taken off.
fn pieces(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(COOKIE).iter();
    lines.flat_map(|line| {
        let pieces = line.as_bytes().split(|byte| *byte == b';').enumerate();
        pieces.map(|(index, piece)| match piece {
            [b' ', rest @ ..] if index > 0 => rest,
            _ => piece,
        })
    })
}

fn split(piece: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = piece.iter().position(|byte| *byte == b'=')?;
    let (name, value) = piece.split_at_checked(equals)?;
    Some((name, value.get(1..)?))
}

fn keep(line: &HeaderValue, is_ours: &impl Fn(&[u8]) -> bool) -> Option<HeaderValue> {
    let all = || line.as_bytes().split(|byte| *byte == b';');
    if !all().any(is_ours) {
        return Some(line.clone());
    }
    let mut bytes: Vec<u8> = Vec::with_capacity(line.len());
    let kept = all().enumerate().filter(|(_, piece)| !is_ours(piece));
    for (place, (index, piece)) in kept.enumerate() {
        match (place, index) {
            (0, 0) => bytes.extend_from_slice(piece),
            // Moved up, it leaves behind the space that stood after the semicolon.
            (0, _) => bytes.extend_from_slice(piece.trim_ascii_start()),
            (_, _) => {
                bytes.push(b';');
                bytes.extend_from_slice(piece);
            },
        }
    }
    let is_empty = bytes.iter().all(|byte| matches!(byte, b' ' | b'\t' | b';'));
    let line = HeaderValue::from_maybe_shared(bytes::Bytes::from(bytes)).ok()?;
    (!is_empty).then_some(line)
}

/// Which pieces an old reader takes for something else than a pair of their own.
enum Quoted {
    /// `$Version` makes it a header of RFC 2109, which no browser sends.
    Everything,
    /// A quote that opens in one piece and closes in another covers those between.
    Spans(Vec<(usize, usize)>),
}

impl Quoted {
    fn of(headers: &HeaderMap) -> Self {
        let mut spans = Vec::new();
        let mut open = None;
        for (position, piece) in pieces(headers).enumerate() {
            if loose_name(piece).eq_ignore_ascii_case(b"$version") {
                return Self::Everything;
            }
            // Two quotes in one piece are a pair of their own; many applications quote values.
            if piece.split(|byte| *byte == b'"').count() != 2 {
                continue;
            }
            match open {
                Some(start) if piece.trim_ascii_end().ends_with(b"\"") => {
                    spans.push((start, position));
                    open = None;
                },
                None if split(piece).is_some_and(|(_, value)| value.starts_with(b"\"")) => {
                    open = Some(position);
                },
                Some(_) | None => {},
            }
        }
        Self::Spans(spans)
    }

    fn covers(&self, position: usize) -> bool {
        match self {
            Self::Everything => true,
            // Spans are in order and apart; a header may have thousands.
            Self::Spans(spans) => {
                let next = spans.partition_point(|(_, end)| *end < position);
                spans.get(next).is_some_and(|(start, _)| *start <= position)
            },
        }
    }
}

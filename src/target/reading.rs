//! Every path that an upstream may take a path for.
//!
//! Upstreams decode escapes once or twice, resolve dot segments before or after, take a backslash for a slash, merge slashes, cut off
//! `;parameters`, end at NUL. We can't know which, nor in which order: so the rewritings are applied in every order until nothing new comes up,
//! and whoever decides about the path decides about the whole set. Nearly all paths are plain: for them the set is the path, at no allocation.
//!
//! Threats E1, E2. That all readings must lead to the same route, and an ambiguous one to no public route, is `route`'s to demand.

use std::iter;

/// More readings than any honest path has.
const MOST: usize = 12;
/// Bytes that all rewritings together may read, so that nobody has us think for long: the longest request line, decoded once.
const MOST_WORK: usize = 64 * 1024;

/// What else a path may mean; nothing, for nearly every path.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    others: Vec<Vec<u8>>,
    ambiguous: bool,
}

impl Reading {
    /// All readings of `path`, which begins with a slash or is `*`.
    ///
    /// # Errors
    /// There are too many to be judged.
    pub(super) fn of(path: &str) -> Result<Self, &'static str> {
        let path = path.as_bytes();
        if is_plain(path) {
            return Ok(Self::default());
        }
        let others = closure(path).ok_or("the path can be read in too many ways")?;
        let mut all = iter::once(path).chain(others.iter().map(Vec::as_slice));
        let ambiguous = !is_honest(path) || all.any(is_odd);
        Ok(Self { others, ambiguous })
    }

    /// The readings beside the path as received.
    pub(super) fn others(&self) -> impl Iterator<Item = &[u8]> {
        self.others.iter().map(Vec::as_slice)
    }

    pub(super) fn is_ambiguous(&self) -> bool {
        self.ambiguous
    }
}

/// Whether `path` is `prefix` or lies below it; `prefix` ends without a slash, unless it is `/`, which covers all.
pub fn covers(prefix: &str, path: &[u8]) -> bool {
    border(prefix, path).is_some_and(|head| head == prefix.as_bytes())
}

/// Like [`covers`], as upstreams see it that don't care about the case of letters.
pub fn covers_in_any_case(prefix: &str, path: &[u8]) -> bool {
    border(prefix, path).is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// As much of `path` as is to be compared with `prefix`, if a segment ends there.
fn border<'a>(prefix: &'a str, path: &'a [u8]) -> Option<&'a [u8]> {
    if prefix == "/" {
        return Some(prefix.as_bytes());
    }
    let (head, rest) = path.split_at_checked(prefix.len())?;
    rest.first().is_none_or(|next| *next == b'/').then_some(head)
}

/// No escape, no parameter, no odd byte, no segment that is empty or begins with a dot.
fn is_plain(path: &[u8]) -> bool {
    let mut before = 0;
    path.iter().all(|&byte| {
        let segment_is_odd = before == b'/' && matches!(byte, b'/' | b'.');
        before = byte;
        byte.is_ascii_graphic() && !matches!(byte, b'%' | b';' | b'\\') && !segment_is_odd
    })
}

/// Whether a browser would send this: ASCII, every `%` an escape, and no escape escaped.
fn is_honest(raw: &[u8]) -> bool {
    let escapes = raw.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    let mut tails = escapes.map(|(at, _)| raw.get(at..).unwrap_or_default());
    raw.is_ascii()
        && tails.all(|tail| match escape(tail) {
            Some(b'%') => tail.get(3..5).is_none_or(|next| !is_hex(next)),
            Some(_) => true,
            None => false,
        })
}

/// Whether there is something in `path` over which upstreams differ.
fn is_odd(path: &[u8]) -> bool {
    let slash = |next: &[u8]| next.eq_ignore_ascii_case(b"%2f");
    path.iter().any(|byte| byte.is_ascii_control() || *byte == b'\\')
        || has_empty_segment(path)
        || path.windows(3).any(slash)
        || segments(path).any(is_dots)
        || (0..path.len()).any(|at| overlong(path.get(at..).unwrap_or_default()).is_some())
}

/// What may be done to a path, if it has what that is done to.
struct Rewriting {
    applies: fn(&[u8]) -> bool,
    apply: fn(&[u8]) -> Vec<u8>,
}

const REWRITINGS: [Rewriting; 8] = [
    Rewriting { applies: |path| path.contains(&b'%'), apply: decoded },
    Rewriting { applies: |path| !path.is_ascii(), apply: look_alikes_replaced },
    Rewriting { applies: |path| path.contains(&b'\\'), apply: backslashes_turned },
    Rewriting { applies: has_empty_segment, apply: slashes_merged },
    Rewriting { applies: |path| segments(path).any(is_dots), apply: dots_resolved },
    Rewriting { applies: |path| path.contains(&b';'), apply: parameters_cut },
    Rewriting { applies: |path| path.iter().copied().any(is_end), apply: ended_early },
    Rewriting { applies: |path| path.iter().any(u8::is_ascii_control), apply: controls_dropped },
];

/// All that the rewritings make of `path`, in any order and number, without itself; none if that is too much.
fn closure(path: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut others, mut work, mut done) = (Vec::<Vec<u8>>::new(), 0, 0);
    let mut current = path.to_vec();
    loop {
        for rewriting in &REWRITINGS {
            if !(rewriting.applies)(&current) {
                continue;
            }
            work += current.len();
            if work > MOST_WORK {
                return None;
            }
            let new = (rewriting.apply)(&current);
            if new == path || others.contains(&new) {
                continue;
            }
            if others.len() + 1 >= MOST {
                return None;
            }
            others.push(new);
        }
        let Some(next) = others.get(done) else {
            return Some(others);
        };
        current.clone_from(next);
        done += 1;
    }
}

fn has_empty_segment(path: &[u8]) -> bool {
    path.windows(2).any(|pair| pair == b"//")
}

fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
}

fn is_dots(segment: &[u8]) -> bool {
    matches!(segment, b"." | b"..")
}

fn is_hex(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_hexdigit)
}

/// The byte that an escape at the start of `tail` stands for.
fn escape(tail: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = tail else {
        return None;
    };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Replaces what `find` finds at the start of a tail, which it tells with its length.
fn replaced(path: &[u8], find: impl Fn(&[u8]) -> Option<(usize, u8)>) -> Vec<u8> {
    let (mut out, mut tail) = (Vec::with_capacity(path.len()), path);
    while let Some((first, rest)) = tail.split_first() {
        let (length, byte) = find(tail).unwrap_or((1, *first));
        out.push(byte);
        tail = tail.get(length..).unwrap_or(rest);
    }
    out
}

/// Escapes decoded once; what is no escape stays.
fn decoded(path: &[u8]) -> Vec<u8> {
    replaced(path, |tail| Some((3, escape(tail)?)))
}

/// Overlong and full-width characters as ASCII, as lenient decoders and Unicode normalisation make them.
fn look_alikes_replaced(path: &[u8]) -> Vec<u8> {
    replaced(path, |tail| overlong(tail).or_else(|| look_alike(tail)))
}

/// ASCII in more bytes than UTF-8 allows.
fn overlong(tail: &[u8]) -> Option<(usize, u8)> {
    let ascii = |high: u8, low: u8| (high & 1) << 6 | low & 0x3f;
    match *tail {
        [high @ (0xc0 | 0xc1), low, ..] => Some((2, ascii(high, low))),
        [0xe0, high @ 0x80..=0x9f, low, ..] => Some((3, ascii(high, low))),
        [0xf0, 0x80..=0x8f, high, low, ..] => Some((4, ascii(high, low))),
        _ => None,
    }
}

/// Full-width forms of ASCII, and other characters that compatibility or best-fit mappings turn into dots and slashes.
fn look_alike(tail: &[u8]) -> Option<(usize, u8)> {
    let letter = str::from_utf8(tail.get(..3)?).ok()?.chars().next()?;
    let ascii = match letter {
        '\u{ff01}'..='\u{ff5e}' => u8::try_from(u32::from(letter) - 0xfee0).ok()?,
        '\u{2024}' | '\u{fe52}' => b'.',
        '\u{2044}' | '\u{2215}' => b'/',
        '\u{fe68}' => b'\\',
        _ => return None,
    };
    Some((3, ascii))
}

fn backslashes_turned(path: &[u8]) -> Vec<u8> {
    replaced(path, |tail| tail.starts_with(b"\\").then_some((1, b'/')))
}

fn slashes_merged(path: &[u8]) -> Vec<u8> {
    let mut out = path.to_vec();
    out.dedup_by(|next, before| *next == b'/' && *before == b'/');
    out
}

/// Dot segments resolved: RFC 3986 section 5.2.4.
fn dots_resolved(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in segments(path).skip(1) {
        match segment {
            b"." => {},
            b".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    if segments(path).last().is_some_and(is_dots) {
        kept.push(b"");
    }
    let mut out = Vec::with_capacity(path.len());
    for segment in kept {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if out.is_empty() { vec![b'/'] } else { out }
}

/// `;parameters` cut off each segment, as servlet containers do.
fn parameters_cut(path: &[u8]) -> Vec<u8> {
    let mut inside = false;
    let outside = |byte: &u8| {
        inside = match byte {
            b';' => true,
            b'/' => false,
            _ => inside,
        };
        !inside
    };
    path.iter().copied().filter(outside).collect()
}

/// Up to the first NUL, or decoded `?` or `#`, as where a path is taken for a C string or a URL again.
fn ended_early(path: &[u8]) -> Vec<u8> {
    let mut parts = path.split(|byte| is_end(*byte));
    parts.next().unwrap_or_default().to_vec()
}

fn is_end(byte: u8) -> bool {
    matches!(byte, 0 | b'?' | b'#')
}

/// Without control characters, as URL parsers drop tabs and line ends.
fn controls_dropped(path: &[u8]) -> Vec<u8> {
    let kept = |byte: &u8| !byte.is_ascii_control();
    path.iter().copied().filter(kept).collect()
}

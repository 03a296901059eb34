//! Request ids: the name under which logs, error pages and upstreams speak of one request.
//!
//! An own id is 128 bits in hex: 64 random bits drawn at start, then a counter sent through a keyed bijection, so that ids of one process never
//! repeat and don't tell how many requests there were. They name, they don't protect: nothing may be granted to whoever knows one.

use std::{
    fmt, str,
    sync::atomic::{AtomicU64, Ordering},
};

use http::HeaderValue;

/// The name of one request: 32 hex digits, or what a trusted peer called it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Text);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Text {
    Made([u8; 32]),
    Given(Box<str>),
}

impl RequestId {
    /// Longest id that is taken over from a peer, in bytes.
    pub const MAX: usize = 128;

    /// The id that a trusted peer gave in `X-Request-Id`; none if it is empty, too long, or has other signs than letters, digits and `-_.:+/=@`.
    pub fn given(value: &HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:+/=@".contains(&byte);
        let fits = !text.is_empty() && text.len() <= Self::MAX && text.bytes().all(plain);
        fits.then(|| Self(Text::Given(text.into())))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Made(digits) => str::from_utf8(digits).unwrap_or_default(),
            Text::Given(text) => text,
        }
    }

    /// The value of `X-Request-Id`.
    pub fn to_header(&self) -> HeaderValue {
        let text = match &self.0 {
            Text::Made(digits) => digits.as_slice(),
            Text::Given(text) => text.as_bytes(),
        };
        // Both kinds are plain ASCII, so this never falls back.
        HeaderValue::from_bytes(text).unwrap_or(HeaderValue::from_static("-"))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// Makes request ids; one for a process, or one for each core.
#[derive(Debug)]
pub struct RequestIds {
    prefix: [u8; 16],
    key: u64,
    count: AtomicU64,
}

impl RequestIds {
    /// Starts from 128 random bits.
    pub fn new([prefix, key]: [u64; 2]) -> Self {
        Self { prefix: hex(prefix), key, count: AtomicU64::new(0) }
    }

    /// The next id.
    pub fn next(&self) -> RequestId {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let low = hex(mix(count.wrapping_add(self.key)));
        let mut digits = [0; 32];
        let (high, rest) = digits.split_at_mut(self.prefix.len());
        high.copy_from_slice(&self.prefix);
        rest.copy_from_slice(&low);
        RequestId(Text::Made(digits))
    }
}

/// The finaliser of splitmix64: every bit of the input moves half of the output's, and no two inputs meet.
const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn hex(bits: u64) -> [u8; 16] {
    std::array::from_fn(|place| match (bits >> (60 - 4 * place) & 15) as u8 {
        small @ 0..=9 => b'0' + small,
        large => b'a' + (large - 10),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_32_hex_digits_and_never_repeat() {
        let ids = RequestIds::new([0x0123_4567_89ab_cdef, 0x0011_2233_4455_6677]);
        let seen: HashSet<String> = (0..10_000).map(|_| ids.next().to_string()).collect();
        assert_eq!(seen.len(), 10_000);
        assert!(seen.iter().all(|id| id.len() == 32
            && id.starts_with("0123456789abcdef")
            && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }

    #[test]
    fn another_seed_makes_other_ids() {
        let first = |seed| RequestIds::new(seed).next();
        assert_ne!(first([0, 1]), first([0, 2]));
        assert_ne!(first([1, 0]), first([2, 0]));
    }

    #[test]
    fn only_plain_and_short_ids_are_taken_over() {
        let given = |text: &str| RequestId::given(&HeaderValue::from_str(text).unwrap());
        for good in ["a", "4bf92f35-77b3_4da6.a3ce:929d", "Root=1-67891233-abc@x/+"] {
            assert_eq!(given(good).unwrap().as_str(), good);
            assert_eq!(given(good).unwrap().to_header(), good);
        }
        let long = "x".repeat(RequestId::MAX + 1);
        for bad in ["", "a b", "<script>", "a\"b", "a\tb", "a,b", &long] {
            assert_eq!(given(bad), None, "{bad}");
        }
        assert_eq!(RequestId::given(&HeaderValue::from_bytes(b"\xff").unwrap()), None);
    }
}

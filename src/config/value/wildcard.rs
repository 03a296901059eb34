//! Patterns in which `*` stands for any characters.

/// Whether the whole of `text` matches, bytes compared by `same`. Greedy, with one point to come back to: linear in practice, quadratic at worst.
pub(super) fn wildcard(pattern: &[u8], text: &[u8], same: fn(&u8, &u8) -> bool) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            },
            Some(wanted) if same(wanted, byte) => {
                p += 1;
                t += 1;
            },
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

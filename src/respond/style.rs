//! The one stylesheet, and the policy that lets a page use it and nothing else.

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use sha2::{Digest, Sha256};
use url::{Origin, Url};

/// The stylesheet, as it stands between the `style` tags of each page.
pub(super) const STYLE: &str = include_str!("pages/style.css");

/// The source expression that names exactly [`STYLE`]; worked out once, as it is a constant.
static STYLE_SOURCE: LazyLock<String> =
    LazyLock::new(|| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(STYLE))));

/// The Content-Security-Policy of a page without a form.
pub(super) fn page_policy() -> HeaderValue {
    policy("'none'")
}

/// The policy of a page whose form posts to its own host and may be sent on to `target` from there: Chromium applies `form-action` to redirects too.
pub(super) fn form_policy(target: &str) -> HeaderValue {
    let origin = Url::parse(target).ok().map(|url| url.origin());
    match origin {
        Some(origin @ Origin::Tuple(..)) => {
            policy(&format!("'self' {}", origin.ascii_serialization()))
        },
        Some(Origin::Opaque(_)) | None => policy("'self'"),
    }
}

fn policy(form_action: &str) -> HeaderValue {
    let style = &*STYLE_SOURCE;
    let text = format!(
        "default-src 'none'; style-src {style}; form-action {form_action}; base-uri 'none'; \
         frame-ancestors 'none'"
    );
    HeaderValue::from_str(&text).expect("origins and hashes are plain ASCII")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The colours of one scheme by name, as red, green and blue.
    type Palette = BTreeMap<String, [f64; 3]>;

    fn palette(block: &str) -> Palette {
        let declarations = block.lines().filter_map(|line| line.trim().strip_prefix("--"));
        let colours = declarations.filter_map(|line| {
            let (name, value) = line.trim_end_matches(';').split_once(": #")?;
            let channel = |at| {
                let digits = value.get(at..at + 2).unwrap();
                f64::from(u8::from_str_radix(digits, 16).unwrap())
            };
            Some((name.to_owned(), [channel(0), channel(2), channel(4)]))
        });
        colours.collect()
    }

    /// Both schemes: the first block, and the one for people who like it dark.
    fn palettes() -> [Palette; 2] {
        let (light, rest) = STYLE.split_once("@media (prefers-color-scheme: dark)").unwrap();
        let (dark, _) = rest.split_once("\n}").unwrap();
        [palette(light), palette(dark)]
    }

    /// Relative luminance (WCAG 2.2).
    fn luminance(colour: [f64; 3]) -> f64 {
        let linear = colour.map(|channel| match channel / 255.0 {
            dim if dim <= 0.04045 => dim / 12.92,
            bright => ((bright + 0.055) / 1.055).powf(2.4),
        });
        0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    }

    fn contrast(one: [f64; 3], other: [f64; 3]) -> f64 {
        let (one, other) = (luminance(one) + 0.05, luminance(other) + 0.05);
        one.max(other) / one.min(other)
    }

    #[test]
    fn contrast_is_measured_right() {
        assert!((contrast([0.0; 3], [255.0; 3]) - 21.0).abs() < 0.01);
        let grey = [f64::from(0x77); 3];
        assert!((contrast(grey, [255.0; 3]) - 4.48).abs() < 0.01);
    }

    #[test]
    fn all_text_can_be_read_in_both_schemes() {
        let text = [
            ("text", "card"),
            ("text", "ground"),
            ("text", "inset"),
            ("quiet", "card"),
            ("quiet", "ground"),
            ("quiet", "inset"),
            ("accent", "card"),
            ("accent-strong", "card"),
            ("on-accent", "accent"),
            ("on-accent", "accent-strong"),
            ("need", "card"),
        ];
        for colours in palettes() {
            for (ink, paper) in text {
                let ratio = contrast(colours[ink], colours[paper]);
                assert!(ratio >= 4.5, "{ink} on {paper}: {ratio:.2}");
            }
            // What is no text but has to be seen (WCAG 2.2, 1.4.11).
            for paper in ["card", "ground"] {
                let ratio = contrast(colours["focus"], colours[paper]);
                assert!(ratio >= 3.0, "focus on {paper}: {ratio:.2}");
            }
        }
    }

    #[test]
    fn both_schemes_name_the_same_colours_and_no_rule_has_its_own() {
        let [light, dark] = palettes();
        assert!(light.len() >= 10);
        assert!(light.keys().eq(dark.keys()));
        let (_, rules) = STYLE.split_once("*, *::before").unwrap();
        assert!(!rules.contains('#') && !rules.contains("rgb("), "a colour outside the palettes");
        for outside in ["url(", "@import", "//", "</"] {
            assert!(!STYLE.contains(outside), "{outside}");
        }
    }

    #[test]
    fn the_policy_names_exactly_this_stylesheet() {
        let policy = page_policy();
        let policy = policy.to_str().unwrap();
        let hash = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
        assert!(policy.contains(&format!("style-src 'sha256-{hash}';")), "{policy}");
    }
}

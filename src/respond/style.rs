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

//! URLs of GitLabs, upstreams and labgate itself: `http` or `https`, and nothing in them but scheme, host, port and perhaps a path.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};
use url::Url;

/// A URL without a path.
pub(in crate::config) fn optional_origin<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Url>, D::Error> {
    let text = String::deserialize(from)?;
    parse_origin(&text).map(Some).map_err(D::Error::custom)
}

/// The URL of an upstream, or the name of its table; several are for a later version.
pub(in crate::config) fn one<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<String>, D::Error> {
    from.deserialize_any(One).map(Some)
}

/// The URL of an upstream.
pub(in crate::config) fn upstream<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Url>, D::Error> {
    let text = from.deserialize_any(One)?;
    parse_origin(&text).map(Some).map_err(D::Error::custom)
}

struct One;

impl<'de> Visitor<'de> for One {
    type Value = String;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Err(A::Error::custom("several URLs are not available in this version"))
    }
}

/// A URL whose path, if any, is made to end with `/`.
pub(in crate::config) fn base<'de, D: Deserializer<'de>>(from: D) -> Result<Url, D::Error> {
    let text = String::deserialize(from)?;
    parse_base(&text).map_err(D::Error::custom)
}

/// The same for one that need not be given.
pub(in crate::config) fn optional_base<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Url>, D::Error> {
    base(from).map(Some)
}

/// `text` as the URL of a place without a path.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse_origin(text: &str) -> Result<Url, String> {
    let url = plain(text)?;
    match url.path() {
        "/" => Ok(url),
        path => Err(format!("leave the path `{path}` out: scheme, host and port only")),
    }
}

fn parse_base(text: &str) -> Result<Url, String> {
    let mut url = plain(text)?;
    let path = format!("{}/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

fn plain(text: &str) -> Result<Url, String> {
    if text.contains('@') {
        return Err("a URL with a user or password in it is not accepted".into());
    }
    if ["unix:", "h2c:"].iter().any(|scheme| text.starts_with(scheme)) {
        return Err(format!("`{text}` is not available in this version; use `http` or `https`"));
    }
    let url = Url::parse(text).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => {
            format!("`{text}` is not a URL: begin with `https://` or `http://`")
        },
        error => format!("`{text}` is not a URL: {error}"),
    })?;
    let known = matches!(url.scheme(), "http" | "https");
    let bare = url.query().is_none() && url.fragment().is_none();
    // WHATWG parsing forgives backslashes, blanks and missing slashes; a configuration need not.
    let exact = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        && text.get(url.scheme().len()..).is_some_and(|rest| rest.starts_with("://"))
        && !url.path().contains("//");
    if known && bare && exact && url.port() != Some(0) {
        Ok(url)
    } else {
        Err(format!("`{text}` is not a plain http or https URL"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_urls_are_taken() {
        for (text, base) in [
            ("https://gitlab.com", "https://gitlab.com/"),
            ("https://gitlab.com/", "https://gitlab.com/"),
            ("https://git.example.com:8443/gitlab", "https://git.example.com:8443/gitlab/"),
            ("http://[::1]:3000", "http://[::1]:3000/"),
        ] {
            assert_eq!(parse_base(text).unwrap().as_str(), base);
        }
        assert_eq!(parse_origin("https://a.example").unwrap().as_str(), "https://a.example/");
        assert!(parse_origin("https://a.example/x").is_err());
    }

    #[test]
    fn a_missing_scheme_is_called_by_its_name() {
        let error = parse_origin("app.example.com/x").unwrap_err();
        assert!(error.ends_with("begin with `https://` or `http://`"), "{error}");
    }

    #[test]
    fn all_others_are_refused_without_repeating_a_password() {
        for text in [
            "",
            "gitlab.com",
            "ftp://a",
            "https:a",
            "https:/a",
            "https:\\\\a",
            "https://a?b",
            "https://a#b",
            "https://a b",
            "https://a\r\nb",
            "https://root:hunter2@a",
            "https://hunter2@a",
            "//a",
            "https://",
            "javascript:alert(1)",
            "https://a//b",
            "http://a:0",
            "http://a:99999",
            "unix:/run/app.sock",
            "h2c://a",
            "https://[fe80::1%25eth0]/",
        ] {
            let error = parse_base(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}

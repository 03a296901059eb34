//! Words with a grammar of their own: scopes, parameter and cookie names, domains, methods, log filters.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// Scopes of which one is `openid`.
pub(in crate::config) fn scopes<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<String>, D::Error> {
    let scopes: Vec<String> =
        Vec::<Scope>::deserialize(from)?.into_iter().map(|scope| scope.0).collect();
    if scopes.iter().any(|scope| scope == "openid") {
        Ok(scopes)
    } else {
        Err(D::Error::custom("`openid` is needed to sign in"))
    }
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Scope(String);

impl TryFrom<String> for Scope {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_:-.".contains(&byte);
        if !text.is_empty() && text.bytes().all(letter) {
            Ok(Self(text))
        } else {
            Err(format!("`{text}` is not a scope, such as `read_user`"))
        }
    }
}

/// A cookie name to which `__Host-` can be added.
pub(in crate::config) fn cookie_name<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if (1..=64).contains(&name.len()) && !name.starts_with("__") && name.bytes().all(token) {
        Ok(name)
    } else {
        Err(D::Error::custom(format!(
            "`{name}` is not a cookie name; letters, digits, `-`, `_` and `.`, no `__` at the start"
        )))
    }
}

/// A domain that one owner has, lower-case and without a leading dot.
pub(in crate::config) fn cookie_domain<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(from)?;
    domain(&text).map(Some).map_err(D::Error::custom)
}

fn domain(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('.').unwrap_or(text);
    let Ok(url::Host::Domain(domain)) = url::Host::parse(bare) else {
        return Err(format!("`{text}` is not a domain, such as `example.com`"));
    };
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if !domain.bytes().all(letter) || domain.split('.').any(str::is_empty) {
        return Err(format!("`{text}` is not a domain, such as `example.com`"));
    }
    if psl::domain(domain.as_bytes()).is_some() {
        Ok(domain)
    } else {
        Err(format!("`{text}` is a public suffix: every site below it would get the cookie"))
    }
}

/// At least one method, in upper case as HTTP has them.
pub(in crate::config) mod methods {
    use http::Method;
    use serde::ser::SerializeSeq;

    use super::{Deserialize, Deserializer, Error, Serializer, method};

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Vec<Method>>, D::Error> {
        #[derive(Deserialize)]
        #[serde(try_from = "String")]
        struct Word(Method);

        impl TryFrom<String> for Word {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                method(&text).map(Self)
            }
        }

        let methods = Vec::<Word>::deserialize(from)?;
        if methods.is_empty() {
            Err(D::Error::custom("no method at all; leave the key out for all methods"))
        } else {
            Ok(Some(methods.into_iter().map(|word| word.0).collect()))
        }
    }

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(in crate::config) fn serialize<S: Serializer>(
        methods: &Option<Vec<Method>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let Some(methods) = methods else {
            return to.serialize_none();
        };
        let mut list = to.serialize_seq(Some(methods.len()))?;
        for method in methods {
            list.serialize_element(method.as_str())?;
        }
        list.end()
    }
}

fn method(text: &str) -> Result<http::Method, String> {
    let upper = text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    let parsed = http::Method::from_bytes(text.as_bytes()).ok();
    parsed.filter(|_| upper).ok_or_else(|| format!("`{text}` is not a method, such as `GET`"))
}

/// A level, or directives of `tracing`'s filter.
pub(in crate::config) fn log_filter<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if filter(&text) {
        Ok(text)
    } else {
        Err(D::Error::custom(format!(
            "`{text}` is not a log filter, such as `info` or `labgate=debug,hyper=warn`"
        )))
    }
}

fn filter(text: &str) -> bool {
    // A lone word would be taken for the name of a target, so that `inof` logged nothing but `inof`.
    let level = !text.is_empty() && text.parse::<tracing::level_filters::LevelFilter>().is_ok();
    let directives = text.contains('=') && tracing_subscriber::EnvFilter::try_new(text).is_ok();
    level || directives
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_domains_belong_to_one_owner() {
        for (text, bare) in [
            ("example.com", "example.com"),
            (".Example.com", "example.com"),
            ("app.intern", "app.intern"),
        ] {
            assert_eq!(domain(text).as_deref(), Ok(bare));
        }
        for text in [
            "",
            ".",
            "com",
            "co.uk",
            "github.io",
            "localhost",
            "127.0.0.1",
            "[::1]",
            "a b.com",
            "a;b.com",
            "example.com:80",
            "..example.com",
        ] {
            assert!(domain(text).is_err(), "{text}");
        }
    }

    #[test]
    fn methods_are_upper_case_words() {
        for text in ["GET", "PATCH", "M-SEARCH", "PROPFIND"] {
            assert!(method(text).is_ok(), "{text}");
        }
        for text in ["", "get", "GET POST", "GET,POST", "*", "GÉT"] {
            assert!(method(text).is_err(), "{text}");
        }
    }

    #[test]
    fn filters_are_levels_or_directives() {
        for text in ["info", "WARN", "off", "labgate=debug,hyper=warn", "info,labgate::access=off"]
        {
            assert!(filter(text), "{text}");
        }
        for text in ["", "inof", "labgate=loud", "=,="] {
            assert!(!filter(text), "{text}");
        }
    }
}

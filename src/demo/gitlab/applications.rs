//! OAuth applications, and GitLab's rule for which redirect URI belongs to one.
//!
//! Compared as parsed URIs, as Doorkeeper does: scheme and host without regard to case, port, path byte for byte. Any query passes
//! if the registered URI has none; literal loopback addresses match with any port (RFC 8252, 7.3), the name `localhost` does not.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// An application as it is registered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Application {
    /// Its `client_id`, called `uid` by GitLab.
    pub client_id: String,
    /// Its secret; none only for applications that are not confidential.
    #[serde(default)]
    pub secret: Option<String>,
    /// The name on the consent page.
    #[serde(default)]
    pub name: String,
    /// Redirect URIs, compared as this module says.
    pub redirect_uris: Vec<String>,
    /// Scopes that are ticked; others are refused.
    #[serde(default = "every_scope")]
    pub scopes: Vec<String>,
    /// Skips the consent page.
    #[serde(default)]
    pub trusted: bool,
    /// Must present its secret.
    #[serde(default = "yes")]
    pub confidential: bool,
}

fn yes() -> bool {
    true
}

fn every_scope() -> Vec<String> {
    ["openid", "profile", "email", "read_user", "read_api", "api"].map(str::to_owned).to_vec()
}

impl Application {
    /// A confidential, untrusted application with the usual scopes but `api`.
    pub fn new(client_id: &str, secret: &str, redirect_uris: &[&str]) -> Self {
        Self {
            client_id: client_id.to_owned(),
            secret: Some(secret.to_owned()),
            name: client_id.to_owned(),
            redirect_uris: redirect_uris.iter().map(|uri| (*uri).to_owned()).collect(),
            scopes: every_scope().into_iter().filter(|scope| scope != "api").collect(),
            trusted: false,
            confidential: true,
        }
    }

    /// The same as a public client, which has no secret.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.secret = None;
        self.confidential = false;
        self
    }

    /// The same as a trusted one, which needs no consent.
    #[must_use]
    pub fn trusted(mut self) -> Self {
        self.trusted = true;
        self
    }

    /// Whether this id and secret are this application's; a public one needs none, but a wrong one is wrong.
    pub(super) fn is(&self, client_id: &str, secret: Option<&str>) -> bool {
        self.client_id == client_id
            && match secret {
                None => !self.confidential,
                Some(secret) => self.secret.as_deref() == Some(secret),
            }
    }

    /// Whether a request may name this redirect URI.
    pub(super) fn accepts(&self, redirect_uri: &str) -> bool {
        self.redirect_uris.iter().any(|registered| redirect_matches(redirect_uri, registered))
    }
}

/// The URI that shows the code on a page instead of redirecting.
pub(super) const OUT_OF_BAND: &str = "urn:ietf:wg:oauth:2.0:oob";

/// Whether `requested` may stand for `registered`.
pub(super) fn redirect_matches(requested: &str, registered: &str) -> bool {
    if requested == OUT_OF_BAND || registered == OUT_OF_BAND {
        return requested == registered;
    }
    let (Some(requested), Some(registered)) = (Uri::parse(requested), Uri::parse(registered))
    else {
        return false;
    };
    let same_query = registered.query.is_none_or(|query| {
        let mut wanted: Vec<&str> = query.split('&').collect();
        let mut given: Vec<&str> = requested.query.unwrap_or_default().split('&').collect();
        wanted.sort_unstable();
        given.sort_unstable();
        wanted == given
    });
    let any_port = requested.is_loopback() && registered.is_loopback();
    same_query
        && requested.scheme == registered.scheme
        && requested.user == registered.user
        && requested.host == registered.host
        && (any_port || requested.port == registered.port)
        && requested.path == registered.path
}

/// An absolute URI in parts, nothing in it normalised but case.
struct Uri<'a> {
    scheme: String,
    user: Option<&'a str>,
    host: String,
    port: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Uri<'a> {
    /// None for what GitLab refuses: relative, opaque, with a fragment, of a forbidden scheme.
    fn parse(text: &'a str) -> Option<Self> {
        let plain = |c: char| c.is_ascii_graphic() && !"\\\"<>^`{|}#".contains(c);
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let word = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let forbidden = ["data", "vbscript", "javascript", "localhost"];
        if !text.chars().all(plain)
            || !scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            || !scheme.chars().all(word)
            || forbidden.contains(&scheme.as_str())
        {
            return None;
        }
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(r, q)| (r, Some(q)));
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let (user, place) =
            authority.rsplit_once('@').map_or((None, authority), |(u, p)| (Some(u), p));
        let (host, port) = match place.rsplit_once(':') {
            // The last colon of an IPv6 literal without a port lies inside its brackets.
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            Some(_) | None => (place, None),
        };
        let default = match scheme.as_str() {
            "http" => Some("80"),
            "https" => Some("443"),
            _ => None,
        };
        let port = port.filter(|port| !port.is_empty()).or(default);
        let digits = port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        (!host.is_empty() && digits).then(|| Self {
            scheme,
            user,
            host: host.to_ascii_lowercase(),
            port,
            path,
            query,
        })
    }

    fn is_loopback(&self) -> bool {
        let literal = self.host.trim_start_matches('[').trim_end_matches(']');
        literal.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

/// Whether an application may be registered with this redirect URI.
pub(super) fn may_register(redirect_uri: &str) -> bool {
    redirect_uri == OUT_OF_BAND || Uri::parse(redirect_uri).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_uris_match_as_gitlab_matches_them() {
        let cases = [
            ("https://a.example/cb", "https://a.example/cb", true),
            ("HTTPS://A.example/cb", "https://a.example/cb", true),
            ("https://a.example:443/cb", "https://a.example/cb", true),
            ("https://a.example/cb?x=1", "https://a.example/cb", true),
            ("https://a.example/cb/", "https://a.example/cb", false),
            ("https://a.example/CB", "https://a.example/cb", false),
            ("https://a.example/x/../cb", "https://a.example/cb", false),
            ("https://a.example/cb%2f", "https://a.example/cb", false),
            ("https://a.example/cb#f", "https://a.example/cb", false),
            ("https://a.example.evil/cb", "https://a.example/cb", false),
            ("https://a.example@evil/cb", "https://a.example/cb", false),
            ("https://evil\\@a.example/cb", "https://a.example/cb", false),
            ("https://b.example/cb", "https://*.example/cb", false),
            ("http://a.example/cb", "https://a.example/cb", false),
            ("https://a.example:8443/cb", "https://a.example/cb", false),
            ("https://a.example", "https://a.example/", true),
            ("https://a.example/cb?b=2&a=1", "https://a.example/cb?a=1&b=2", true),
            ("https://a.example/cb?a=1", "https://a.example/cb?a=1&b=2", false),
            ("https://a.example/cb?a=1&b=2&c=3", "https://a.example/cb?a=1&b=2", false),
            ("http://127.0.0.1:5000/cb", "http://127.0.0.1:4180/cb", true),
            ("http://127.0.0.1/cb", "http://127.0.0.1:4180/cb", true),
            ("http://[::1]:5000/cb", "http://[::1]/cb", true),
            ("http://[::1]:5000/cb", "http://127.0.0.1/cb", false),
            ("http://127.0.0.2:1/cb", "http://127.0.0.1/cb", false),
            ("http://localhost:5000/cb", "http://localhost:4180/cb", false),
            ("http://localhost:4180/cb", "http://localhost:4180/cb", true),
            ("http://localhost:4180/cb", "http://127.0.0.1:4180/cb", false),
            (OUT_OF_BAND, OUT_OF_BAND, true),
            (OUT_OF_BAND, "https://a.example/cb", false),
            ("/cb", "/cb", false),
            ("javascript://x/%0aalert(1)", "javascript://x/%0aalert(1)", false),
        ];
        for (requested, registered, expected) in cases {
            assert_eq!(
                redirect_matches(requested, registered),
                expected,
                "{requested} {registered}"
            );
        }
    }

    #[test]
    fn what_no_application_may_name() {
        for refused in ["data://x/", "vbscript://x", "localhost:4180", "mailto:a@b", "https://", ""]
        {
            assert!(!may_register(refused), "{refused}");
        }
        assert!(may_register("myapp://callback"));
    }

    #[test]
    fn public_clients_need_no_secret_but_no_wrong_one() {
        let confidential = Application::new("id", "secret", &[]);
        assert!(confidential.is("id", Some("secret")));
        assert!(!confidential.is("id", None));
        assert!(!confidential.is("id", Some("wrong")));
        let public = confidential.public();
        assert!(public.is("id", None));
        assert!(!public.is("id", Some("wrong")));
    }
}

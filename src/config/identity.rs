//! `[identity]`: what upstreams are told about the user.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Problem, Secrets,
    value::{self, GroupPattern},
};

/// What upstreams are told about the user.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// Groups handed on beside those that rules mention, while they fit the cookie; `*` stands for any characters. Default `["*"]`.
    pub groups: Vec<GroupPattern>,
    /// A signed statement of who the user is, which applications can check. Default: none. Example `{ key = { file = "assertion.pem" }, lifetime = "5m" }`.
    pub assertion: Option<Assertion>,
    /// Sets of header names that applications know, added to `headers`: `"forwarded"` (`X-Forwarded-User` …), `"remote"` (`Remote-User` …), `"grafana"` (`X-WEBAUTH-USER` …), `"auth-request"` (`X-Auth-Request-User` …). Default `[]`. Example `["grafana"]`.
    pub presets: Vec<Preset>,
    /// Header name to claim or template; replaces the default table. Every name in it is stripped from clients. Default: `X-Forwarded-User` and `X-Forwarded-Preferred-Username` are the `username`, `X-Forwarded-Email` the `email`, `X-Forwarded-Groups` the `groups`; with a key for it, `X-Labgate-Assertion` is the `assertion`. Example `{ X-User = "{username}@{gitlab}" }`.
    pub headers: Option<BTreeMap<String, String>>,
}

/// A signed statement of who the user is.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Assertion {
    /// The private key from `labgate keygen assertion`, or a list of them, newest first: the first signs, all are published. Required. Example `{ file = "assertion.pem" }`.
    pub key: Secrets,
    /// How long an assertion is good for; at least half of that is left when the application gets it. Default `"5m"`.
    #[serde(with = "value::duration", default = "lifetime")]
    pub lifetime: Duration,
}

fn lifetime() -> Duration {
    Duration::from_mins(5)
}

/// A set of header names that applications know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// What many proxies say, and labgate by default.
    Forwarded,
    /// What Authelia and others say.
    Remote,
    /// What Grafana's documentation takes as examples.
    Grafana,
    /// What nginx hands on from an authenticating proxy.
    AuthRequest,
}

impl Preset {
    /// Its headers, each with its claim.
    const fn headers(self) -> [(&'static str, &'static str); 4] {
        match self {
            Self::Forwarded => [
                ("X-Forwarded-User", "username"),
                ("X-Forwarded-Email", "email"),
                ("X-Forwarded-Preferred-Username", "username"),
                ("X-Forwarded-Groups", "groups"),
            ],
            Self::Remote => [
                ("Remote-User", "username"),
                ("Remote-Email", "email"),
                ("Remote-Name", "name"),
                ("Remote-Groups", "groups"),
            ],
            Self::Grafana => [
                ("X-WEBAUTH-USER", "username"),
                ("X-WEBAUTH-EMAIL", "email"),
                ("X-WEBAUTH-NAME", "name"),
                ("X-WEBAUTH-GROUPS", "groups"),
            ],
            Self::AuthRequest => [
                ("X-Auth-Request-User", "username"),
                ("X-Auth-Request-Email", "email"),
                ("X-Auth-Request-Preferred-Username", "username"),
                ("X-Auth-Request-Groups", "groups"),
            ],
        }
    }
}

impl Identity {
    /// The whole table of headers: those given or the default ones, and those of the presets that are not in it by the same name.
    pub fn table(&self) -> BTreeMap<String, String> {
        let mut table = self.headers.clone().unwrap_or_else(|| self.default_headers());
        for (name, claim) in self.presets.iter().flat_map(|preset| preset.headers()) {
            if !table.keys().any(|known| known.eq_ignore_ascii_case(name)) {
                table.insert(name.into(), claim.into());
            }
        }
        table
    }

    fn default_headers(&self) -> BTreeMap<String, String> {
        let assertion = self.assertion.as_ref().map(|_| ("X-Labgate-Assertion", "assertion"));
        let all = Preset::Forwarded.headers().into_iter().chain(assertion);
        all.map(|(name, claim)| (name.into(), claim.into())).collect()
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let headers = self.headers.iter().flat_map(BTreeMap::keys);
        let refused = headers.filter_map(|name| {
            let message = header_mistake(name)?;
            Some(Problem::error(format!("identity.headers.{name}"), message))
        });
        let lifetime = self.assertion.as_ref().and_then(|table| lifetime_problem(table.lifetime));
        refused.chain(lifetime).collect()
    }
}

fn lifetime_problem(lifetime: Duration) -> Option<Problem> {
    let key = "identity.assertion.lifetime";
    if lifetime < SHORTEST {
        let message = "too short: half of it must outlast a request and two clocks that differ";
        return Some(Problem::error(key, message).help("at least `10s`"));
    }
    (lifetime > LONG).then(|| {
        let message = "an assertion can't be taken back: who has one is that user for as long";
        Problem::warning(key, message).help("a few minutes are enough: each request brings one")
    })
}

const SHORTEST: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_hours(1);

/// Why `name` can't carry a claim.
fn header_mistake(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    if http::HeaderName::from_bytes(lower.as_bytes()).is_err() {
        return Some("not the name of a header");
    }
    FRAMING
        .contains(&lower.as_str())
        .then_some("this header steers the request itself and can't carry a claim")
}

/// Headers that decide where a request goes, where it ends, or what the upstream believes of the connection.
const FRAMING: [&str; 14] = [
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
];

impl Default for Identity {
    fn default() -> Self {
        Self {
            groups: vec![GroupPattern::any()],
            assertion: None,
            presets: Vec::new(),
            headers: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(text: &str) -> Identity {
        toml::from_str(text).unwrap()
    }

    fn table(text: &str) -> String {
        let table = identity(text).table();
        let pairs = table.iter().map(|(name, claim)| format!("{name}={claim}"));
        pairs.collect::<Vec<_>>().join(" ")
    }

    const DEFAULT: &str = "X-Forwarded-Email=email X-Forwarded-Groups=groups \
        X-Forwarded-Preferred-Username=username X-Forwarded-User=username";
    const KEY: &str = "assertion = { key = \"x\" }";

    #[test]
    fn presets_add_to_the_table_and_what_is_written_wins() {
        assert_eq!(table(""), DEFAULT);
        assert_eq!(table(KEY), format!("{DEFAULT} X-Labgate-Assertion=assertion"));
        assert_eq!(table("headers = {}"), "");
        assert_eq!(table(&format!("headers = {{}}\n{KEY}")), "");
        assert_eq!(
            table("presets = [\"remote\"]"),
            format!(
                "Remote-Email=email Remote-Groups=groups Remote-Name=name Remote-User=username {DEFAULT}"
            )
        );
        assert_eq!(
            table("presets = [\"grafana\"]\nheaders = { x-webauth-user = \"email\" }"),
            "X-WEBAUTH-EMAIL=email X-WEBAUTH-GROUPS=groups X-WEBAUTH-NAME=name x-webauth-user=email"
        );
        assert_eq!(
            table("presets = [\"auth-request\", \"forwarded\"]\nheaders = {}"),
            format!(
                "X-Auth-Request-Email=email X-Auth-Request-Groups=groups \
                 X-Auth-Request-Preferred-Username=username X-Auth-Request-User=username {DEFAULT}"
            )
        );
    }

    #[test]
    fn a_lifetime_is_neither_a_moment_nor_a_day() {
        let told = |lifetime: &str| {
            let text = format!("assertion = {{ key = \"x\", lifetime = \"{lifetime}\" }}");
            let problems = identity(&text).problems();
            problems.into_iter().map(|problem| problem.warning).collect::<Vec<_>>()
        };
        for (lifetime, warnings) in
            [("9s", &[false][..]), ("10s", &[]), ("1h", &[]), ("2h", &[true])]
        {
            assert_eq!(told(lifetime), warnings, "{lifetime}");
        }
    }
}

//! What a front proxy must know, taken from labgate.toml and the arguments, in words that all templates can write as they are.

use http::HeaderName;
use url::Url;

use super::{
    Arguments, Form,
    layout::{App, Lay, Place, Site, escaped, plain},
};
use crate::gate::Plan;

/// Everything that a template writes.
#[derive(Debug)]
pub(super) struct Setup {
    /// Where labgate is.
    pub(super) labgate: Place,
    /// Where the proxy listens.
    pub(super) listen: Place,
    /// Certificate and key, if the proxy ends TLS.
    pub(super) tls: Option<(String, String)>,
    /// Whether those were given, or are an example.
    pub(super) own_tls: bool,
    /// What the browser speaks.
    pub(super) scheme: &'static str,
    /// `:PORT` of the public URL, empty if it is the scheme's own.
    pub(super) port: String,
    pub(super) prefix: String,
    /// The hosts that are served, most specific first.
    pub(super) sites: Vec<Site>,
    /// The applications behind them.
    pub(super) apps: Vec<App>,
    /// Names of headers that say who somebody is, in lower case, as labgate's answer has them.
    pub(super) identity: Vec<String>,
    /// Well-known ones that no answer has.
    pub(super) strays: Vec<String>,
    /// labgate's cookies, the session's and those of sign-ins, as a regular expression.
    pub(super) cookie: String,
    /// The session cookie without a prefix.
    pub(super) cookie_name: String,
    /// Seconds that an answer may take.
    pub(super) patience: u64,
    pub(super) lua: String,
    /// Where Envoy asks over gRPC.
    pub(super) ext_authz: Place,
}

/// What names begin with that applications take for an identity, or that say what was asked for.
const STEMS: [&str; 9] = [
    "forwarded",
    "remote",
    "x-auth-request",
    "x-forwarded",
    "x-labgate",
    "x-original",
    "x-remote",
    "x-rewrite",
    "x-webauth",
];

/// Those of them that say nothing else, and may go with all that begins like them.
const STRIPPED: [&str; 5] = ["remote", "x-auth-request", "x-labgate", "x-remote", "x-webauth"];

/// Any sign that an application may take for `-`.
const ANY_SIGN: &str = "[^a-z0-9]";

impl Setup {
    /// What `plan` and `arguments` say.
    ///
    /// # Errors
    /// What a front proxy can't do, or what can't be written into its configuration.
    pub(super) fn new(plan: &Plan, arguments: &Arguments) -> Result<Self, String> {
        let server = &plan.config.server;
        let public = server.public_url.as_ref();
        let labgate = match &arguments.labgate {
            Some(text) => Place::parse("--labgate", text)?,
            None => match arguments.form.usual_host() {
                Some(host) => Place { host: host.into(), port: server.listen.port() },
                None => Place::here(server.listen),
            },
        };
        let port = server.ext_authz.map(|addr| addr.port()).unwrap_or_default();
        if arguments.form == Form::Grpc && port == 0 {
            return Err(
                "`server.ext_authz` says where labgate is asked over gRPC: set it, with a port"
                    .into(),
            );
        }
        let ext_authz = Place { host: labgate.host.clone(), port };
        let scheme = match (public, &arguments.certificate, &arguments.listen) {
            (Some(public), ..) if public.scheme() == "http" => "http",
            (None, None, Some(_)) => "http",
            _ => "https",
        };
        let default = if scheme == "https" { 443 } else { 80 };
        let listen = match &arguments.listen {
            Some(text) => Place::parse("--listen", text)?,
            None => Place {
                host: "0.0.0.0".into(),
                port: public.and_then(Url::port_or_known_default).unwrap_or(default),
            },
        };
        let (tls, own_tls) = tls(arguments, scheme)?;
        let (sites, apps) = Lay::new(plan, arguments.upstream.as_deref()).out(public)?;
        let headers = plan.identity_headers();
        Ok(Self {
            labgate,
            listen,
            tls,
            own_tls,
            scheme,
            port: public.and_then(Url::port).map_or_else(String::new, |port| format!(":{port}")),
            prefix: plain("server.prefix", &server.prefix)?,
            sites,
            apps,
            identity: headers.answered().map(|name| portable(&name)).collect::<Result<_, _>>()?,
            strays: headers.strays().map(str::to_owned).collect(),
            cookie: format!(
                "(?:__Host-|__Secure-)?{}(?:-attempt[^=; ]*)?",
                escaped(&plan.config.session.cookie.name)
            ),
            cookie_name: plan.config.session.cookie.name.clone(),
            patience: plan.config.session.recheck_timeout.as_secs().saturating_add(5),
            lua: file("--lua", &arguments.lua)?,
            ext_authz,
        })
    }

    /// What whoever uses the text should know, beside what it says itself.
    pub(super) fn hints(&self, plan: &Plan, arguments: &Arguments) -> Vec<String> {
        let mut hints = Vec::new();
        let trusted = &plan.config.server.trusted_proxies.0;
        let from = self.labgate.host.trim_matches(['[', ']']).parse().ok();
        let from = from.filter(|addr: &std::net::IpAddr| addr.is_loopback());
        if trusted.is_empty() {
            hints.push("`server.trusted_proxies` is empty, so labgate answers no front proxy: name the network that it comes from".into());
        } else if let Some(addr) = from.filter(|addr| !plan.trusts(*addr)) {
            hints.push(format!("the proxy reaches labgate at {addr}, so it comes from this machine, which is not in `server.trusted_proxies`"));
        }
        if self.apps.iter().any(|app| app.guessed) {
            hints.push("some routes name no upstream: say where the application is with --upstream, or change what is marked CHANGE".into());
        }
        if self.tls.is_some() && !self.own_tls {
            hints.push("the paths of certificate and key are examples: give yours with --certificate and --key, or --listen if TLS ends elsewhere".into());
        }
        let any = plan.config.route.iter().any(|route| route.host.is_none());
        if let (true, Some(public)) = (any, &plan.config.server.public_url) {
            let host = public.host_str().unwrap_or_default();
            hints.push(format!(
                "routes without a `host` are served at {host}; give them a `host` to serve others"
            ));
        }
        if let (None, Some(host)) = (&arguments.labgate, arguments.form.usual_host()) {
            hints.push(format!("labgate is taken to be at {host}: say where it is with --labgate"));
        }
        if arguments.labgate.is_none() && plan.config.server.listen.port() == 0 {
            hints.push("labgate listens on a port of chance: say which with --labgate".into());
        }
        hints
    }

    /// All names that no client may send.
    pub(super) fn reserved(&self) -> impl Iterator<Item = &str> {
        self.identity.iter().chain(&self.strays).map(String::as_str)
    }

    /// Those names that begin with no word of [`STRIPPED`].
    pub(super) fn reserved_apart(&self) -> impl Iterator<Item = &str> {
        self.reserved().filter(|name| !STRIPPED.iter().any(|stem| has_stem(stem, name)))
    }

    /// All names that no client may send as regular expressions, with any sign in place of `-`; for whole names in lower case. Several, since some
    /// proxies take none that is long.
    pub(super) fn reserved_patterns(&self) -> Vec<String> {
        let folded = |name: &str| name.replace('-', ANY_SIGN);
        let stems = STEMS.iter().map(|stem| format!("{}(?:{ANY_SIGN}.*)?", folded(stem)));
        let own =
            self.identity.iter().filter(|name| !STEMS.iter().any(|stem| has_stem(stem, name)));
        stems.chain(own.map(|name| folded(name))).collect()
    }

    /// All names that no client may send, in each spelling with `_` for some of their `-`.
    pub(super) fn reserved_spellings(&self) -> Vec<String> {
        let mut all = Vec::new();
        for name in self.reserved() {
            let title = self.title(name);
            let mut spelled = vec![String::new()];
            for (at, word) in title.split('-').enumerate() {
                let signs: &[&str] = if at == 0 { &[""] } else { &["-", "_"] };
                let longer = |head: &String| {
                    let longer = signs.iter().map(|sign| format!("{head}{sign}{word}"));
                    longer.collect::<Vec<_>>()
                };
                spelled = spelled.iter().flat_map(longer).collect();
            }
            all.append(&mut spelled);
        }
        all
    }

    /// `name` as people write it.
    #[expect(clippy::unused_self, reason = "templates call it")]
    pub(super) fn title(&self, name: &str) -> String {
        let word = |word: &str| {
            let (first, rest) = word.split_at(word.len().min(1));
            first.to_ascii_uppercase() + rest
        };
        name.split('-').map(word).collect::<Vec<_>>().join("-")
    }

    /// The prefix as a regular expression.
    pub(super) fn prefix_pattern(&self) -> String {
        escaped(&self.prefix)
    }

    /// Whether the proxy can't see that browsers speak https.
    pub(super) fn is_plain_https(&self) -> bool {
        self.scheme == "https" && self.tls.is_none()
    }

    /// The port that browsers connect to.
    pub(super) fn public_port(&self) -> &str {
        match self.port.strip_prefix(':') {
            Some(port) => port,
            None if self.scheme == "https" => "443",
            None => "80",
        }
    }

    pub(super) fn has_tls_apps(&self) -> bool {
        self.apps.iter().any(|app| app.tls)
    }

    /// What Traefik's examples call the entry point.
    pub(super) fn entry_point(&self) -> &'static str {
        if self.tls.is_some() { "websecure" } else { "web" }
    }

    /// labgate's Kubernetes service, by the first labels of its host.
    pub(super) fn service(&self) -> &str {
        self.labgate.host.split('.').next().unwrap_or_default()
    }

    /// The namespace that the service is in.
    pub(super) fn namespace(&self) -> &str {
        self.labgate.host.split('.').nth(1).unwrap_or("default")
    }

    /// labgate's own paths below its prefix that browsers and GitLab ask for; `/hooks` with all below it.
    #[expect(clippy::unused_self, reason = "templates call methods of their fields")]
    pub(super) fn own_paths(&self) -> [&'static str; 10] {
        [
            "/callback",
            "/handoff",
            "/hooks",
            "/jwks.json",
            "/renew",
            "/sign_in",
            "/sign_out",
            "/signed_in",
            "/start",
            "/userinfo",
        ]
    }

    /// nginx's variables of the client's cookies, before and after one of labgate's is taken out; there are eight of these at most.
    #[expect(clippy::unused_self, reason = "templates call methods of their fields")]
    pub(super) fn cookie_steps(&self) -> Vec<(String, String)> {
        let name = |number: u8| match number {
            0 => "http_cookie".into(),
            number => format!("labgate_cookies_{number}"),
        };
        (0..8).map(|number| (name(number), name(number + 1))).collect()
    }

    /// Whether all hosts and paths lead to one application.
    pub(super) fn one_app(&self) -> Option<&App> {
        match self.apps.as_slice() {
            [app] => Some(app),
            _ => None,
        }
    }
}

fn tls(arguments: &Arguments, scheme: &str) -> Result<(Option<(String, String)>, bool), String> {
    Ok(match (&arguments.certificate, &arguments.key, &arguments.listen) {
        (Some(certificate), Some(key), _) => {
            (Some((file("--certificate", certificate)?, file("--key", key)?)), true)
        },
        (_, _, None) if scheme == "https" => {
            (Some(("/etc/ssl/labgate/tls.crt".into(), "/etc/ssl/labgate/tls.key".into())), false)
        },
        _ => (None, false),
    })
}

/// The path of a file, if no configuration could read anything else in it.
fn file(option: &str, path: &str) -> Result<String, String> {
    plain(option, path).map_err(|_| format!("{option}: `{path}` is no plain path"))
}

/// The name of a header, if every proxy can hand it on.
fn portable(name: &HeaderName) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    match name.as_str().bytes().all(is_plain) {
        true => Ok(name.to_string()),
        false => Err(format!(
            "identity.headers: front proxies don't hand on `{name}`: letters, digits and `-` only"
        )),
    }
}

fn has_stem(stem: &str, name: &str) -> bool {
    name.strip_prefix(stem).is_some_and(|rest| rest.starts_with('-'))
}

//! Hosts, paths and applications as a front proxy finds them.
//!
//! A front proxy finds the application by host and path, labgate the rule. Both must mean the same one, or somebody would be let into one
//! application by the rule of another. So hosts and paths stand in the order of labgate's own table, match on the same borders, and what a
//! proxy can't tell apart is refused.

use std::{
    cmp::Reverse,
    fmt,
    net::{IpAddr, SocketAddr},
};

use url::Url;

use crate::{
    config::{HostPattern, Route, parse_origin},
    gate::Plan,
};

/// An address that somebody listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// A name or an address, IPv6 in brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

/// One host, and where its paths lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) host: HostPattern,
    /// The longest path first; the last one is for all others.
    pub(super) paths: Vec<Leads>,
}

/// A path and below, and the application there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leads {
    /// `/` for all.
    pub(super) path: String,
    /// By its place in [`Setup::apps`].
    pub(super) app: usize,
}

/// An application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct App {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) tls: bool,
    /// Whether nobody said where it is.
    pub(super) guessed: bool,
}

/// Lays routes out as hosts, paths and applications.
pub(super) struct Lay<'a> {
    plan: &'a Plan,
    apps: Vec<App>,
    given: Option<&'a str>,
}

impl<'a> Lay<'a> {
    /// Of `plan`; `given` is the application of routes that name none.
    pub(super) fn new(plan: &'a Plan, given: Option<&'a str>) -> Self {
        Self { plan, apps: Vec::new(), given }
    }

    /// The hosts that are served, most specific first, and the applications behind them.
    ///
    /// # Errors
    /// What a proxy can't tell apart, or can't be told.
    pub(super) fn out(mut self, public: Option<&Url>) -> Result<(Vec<Site>, Vec<App>), String> {
        let routes = &self.plan.config.route;
        let mut leads = Vec::new();
        for route in routes {
            leads.push(self.app(route)?);
        }
        let public = public.and_then(Url::host_str).map(|host| HostPattern::Exact(host.into()));
        let mut hosts: Vec<HostPattern> = Vec::new();
        let named = routes.iter().map(|route| route.host.as_ref().or(public.as_ref()));
        // It needs no route: of its paths only labgate's own lead anywhere.
        let sign_in_host = self.plan.config.server.sign_in_host.as_ref();
        let sign_in_host = sign_in_host.map(|host| HostPattern::Exact(host.host().into()));
        for host in named.flatten().chain(sign_in_host.as_ref()) {
            if !hosts.contains(host) {
                hosts.push(host.clone());
            }
        }
        hosts.sort_by_key(|host| (rank(Some(host)), host.to_string()));
        let sites = hosts.into_iter().map(|host| site(host, routes, &leads));
        Ok((sites.collect::<Result<_, _>>()?, self.apps))
    }

    /// The place in `apps` of the application behind `route`.
    fn app(&mut self, route: &Route) -> Result<usize, String> {
        let tables = &self.plan.config.upstream;
        let known = route.upstream.as_ref().map(|name| match tables.get(name) {
            Some(table) => table.url.clone().ok_or_else(|| format!("`upstream.{name}` has no url")),
            None => parse_origin(name),
        });
        let given =
            || self.given.map(|url| parse_origin(url).map_err(|why| format!("--upstream: {why}")));
        let url = known.or_else(given).transpose()?;
        let app = App {
            name: String::new(),
            tls: url.as_ref().is_some_and(|url| url.scheme() == "https"),
            guessed: url.is_none(),
            place: match &url {
                Some(url) => Place::of(url)?,
                None => Place { host: "127.0.0.1".into(), port: 3000 },
            },
        };
        let same = |known: &App| known.place == app.place && known.tls == app.tls;
        if let Some(at) = self.apps.iter().position(same) {
            return Ok(at);
        }
        let name = format!("labgate_app{}", self.apps.len() + 1);
        self.apps.push(App { name, ..app });
        Ok(self.apps.len() - 1)
    }
}

/// Which hosts labgate looks at first.
fn rank(host: Option<&HostPattern>) -> u8 {
    match host {
        Some(HostPattern::Exact(_)) => 0,
        Some(HostPattern::Wildcard(_)) => 1,
        None => 2,
    }
}

/// Where the paths of `host` lead, in the order in which labgate looks.
fn site(host: HostPattern, routes: &[Route], leads: &[usize]) -> Result<Site, String> {
    let covers = |pattern: &HostPattern| match &host {
        HostPattern::Exact(name) => pattern.matches(name),
        HostPattern::Wildcard(_) => *pattern == host,
    };
    let mut found: Vec<_> = routes
        .iter()
        .zip(leads)
        .filter(|(route, _)| route.host.as_ref().is_none_or(covers))
        .collect();
    found.sort_by_key(|(route, _)| (rank(route.host.as_ref()), Reverse(route.path.as_str().len())));
    for (at, (route, app)) in
        found.iter().enumerate().filter(|(_, (route, _))| route.methods.is_some())
    {
        let mut later = found.iter().skip(at + 1);
        let overlaps = |other: &Route| {
            other.path.matches(route.path.as_str()) || route.path.matches(other.path.as_str())
        };
        if let Some((wider, _)) = later.find(|(other, lead)| lead != app && overlaps(other)) {
            return Err(format!(
                "{host}: only the method decides between the upstreams of `{}` and `{}`, which this configuration can't tell apart: give these routes one upstream",
                route.path.as_str(),
                wider.path.as_str()
            ));
        }
    }
    let mut paths: Vec<Leads> = Vec::new();
    for (route, app) in found {
        let path = route.path.as_str();
        // What lies below a path that was seen leads there.
        if paths.iter().all(|wider| !wider.covers(path)) {
            paths.push(Leads { path: plain("route.path", path)?, app: *app });
        }
    }
    // Where no route is, labgate lets nobody pass: those paths may lead anywhere.
    let last = paths.last().map_or(0, |leads| leads.app);
    if paths.iter().all(|leads| leads.app == last) {
        paths.clear();
    }
    if paths.last().is_none_or(|leads| leads.path != "/") {
        paths.push(Leads { path: "/".into(), app: last });
    }
    Ok(Site { host, paths })
}

impl Leads {
    fn covers(&self, path: &str) -> bool {
        self.path == "/"
            || path
                .strip_prefix(self.path.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The path and what lies below it as a regular expression.
    pub(super) fn pattern(&self) -> String {
        match self.path.as_str() {
            "/" => "/".into(),
            path => format!("{}(?:/|$)", escaped(path)),
        }
    }
}

impl Site {
    /// The host as a regular expression.
    pub(super) fn pattern(&self) -> String {
        match &self.host {
            HostPattern::Exact(name) => escaped(name),
            HostPattern::Wildcard(suffix) => format!("[^.]+\\.{}", escaped(suffix)),
        }
    }

    /// The host as Traefik's rules say it.
    pub(super) fn traefik_rule(&self) -> String {
        match &self.host {
            HostPattern::Exact(name) => format!("Host(`{name}`)"),
            HostPattern::Wildcard(_) => format!("HostRegexp(`^{}$`)", self.pattern()),
        }
    }

    pub(super) fn is_wildcard(&self) -> bool {
        matches!(self.host, HostPattern::Wildcard(_))
    }
}

impl Place {
    /// Where this machine reaches what listens on `addr`.
    pub(super) fn here(addr: SocketAddr) -> Self {
        let host = match addr.ip() {
            ip if ip.is_unspecified() => "127.0.0.1".into(),
            IpAddr::V6(ip) => format!("[{ip}]"),
            IpAddr::V4(ip) => ip.to_string(),
        };
        Self { host, port: addr.port() }
    }

    fn of(url: &Url) -> Result<Self, String> {
        let host = url.host_str().ok_or_else(|| format!("{url} has no host"))?;
        let port = url.port_or_known_default().ok_or_else(|| format!("{url} has no port"))?;
        Ok(Self { host: host.into(), port })
    }

    pub(super) fn parse(option: &str, text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{option}: `{text}` is not a host and a port, such as `127.0.0.1:4180`");
        let has_port = text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let url = format!("http://{text}").parse().map_err(|_| wrong())?;
        if !has_port || text.contains(['/', '@', '?', '#']) {
            return Err(wrong());
        }
        // Port 80 too, which a URL leaves out.
        Self::of(&url).map_err(|_| wrong())
    }

    /// Without brackets.
    pub(super) fn ip(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.host, self.port)
    }
}

impl App {
    pub(super) fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// Whether it is that one; for templates, which compare no texts.
    pub(super) fn is(&self, other: &Self) -> bool {
        self == other
    }

    /// The name where `_` is not usual.
    pub(super) fn service(&self) -> String {
        self.name.replace('_', "-")
    }

    /// As a URL without a final slash.
    pub(super) fn url(&self) -> String {
        format!("{}://{}", self.scheme(), self.place)
    }
}

/// `path`, if no configuration could read anything else in it.
pub(super) fn plain(key: &str, path: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~@+".contains(&byte);
    match path.bytes().all(is_plain) {
        true => Ok(path.into()),
        false => Err(format!(
            "{key}: `{path}` has signs that mean something in a proxy's configuration; write that route by hand"
        )),
    }
}

/// As a regular expression.
pub(super) fn escaped(text: &str) -> String {
    let sign = |sign: char| match sign {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '/' | '-' | '_' | '~' | '@' => sign.to_string(),
        other => format!("\\{other}"),
    };
    text.chars().map(sign).collect()
}

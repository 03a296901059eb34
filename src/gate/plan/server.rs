//! `[server]`: what is said of the world around labgate must make sense.

use super::Draft;
use crate::{config::HostPattern, target::Origin};

impl Draft<'_> {
    pub(super) fn server(&mut self) {
        let server = &self.config.server;
        if !server.admin.ip().is_loopback() {
            self.warn(
                "server.admin",
                "the admin listener can be reached from other machines",
                "it answers everybody: keep it on 127.0.0.1 or behind a network policy",
            );
        }
        self.sign_in_host();
        if server.ext_authz.is_some() && server.trusted_proxies.0.is_empty() {
            self.warn(
                "server.ext_authz",
                "nobody may ask there",
                "name the networks of Envoy in `server.trusted_proxies`",
            );
        }
        let any_host = self.config.route.iter().any(|route| route.host.is_none());
        if server.public_url.is_none() && any_host {
            self.advise(
                "server.public_url",
                "the address that browsers see is missing",
                "set `public_url = \"https://app.example.com\"`, or give every route a `host`",
            );
        } else if server.public_url.is_none() && server.trusted_proxies.0.is_empty() {
            self.warn(
                "server.public_url",
                "nobody says that browsers come over https, so http is assumed: cookies are not `Secure`",
                "set `public_url`, or name the proxies that send `X-Forwarded-Proto` in `trusted_proxies`",
            );
        }
    }

    /// Where everybody signs in has to be a place of its own kind: what an application there could do, it could do to all hosts.
    fn sign_in_host(&mut self) {
        let Some(host) = &self.config.server.sign_in_host else { return };
        let public = self.config.server.public_url.as_ref().and_then(Origin::of);
        let same = public.filter(|public| public.host == host.host());
        if let Some(public) =
            same.filter(|public| host.port().is_some_and(|port| port != public.port_or_default()))
        {
            let message = "the same host as `server.public_url`, but not its port";
            self.advise("server.sign_in_host", message, format!("say `{}`", public.authority()));
        }
        let wild = |pattern: &&HostPattern| {
            matches!(pattern, HostPattern::Wildcard(_)) && pattern.matches(host.host())
        };
        let mut patterns = self.config.route.iter().filter_map(|route| route.host.as_ref());
        if let Some(pattern) = patterns.find(wild) {
            let message = format!("the route for `{pattern}` serves this host too");
            let help = "an application there stands where everybody signs in: give it a name that no such route covers";
            self.warn("server.sign_in_host", message, help);
        }
        if self.config.session.cookie.domain.is_some() {
            self.warn(
                "session.cookie.domain",
                "hosts of the domain share their cookie, and each can use it at the others",
                "leave it out: `server.sign_in_host` hands over to each host a session of its own",
            );
        }
    }
}

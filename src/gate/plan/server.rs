//! `[server]`: what is said of the world around labgate must make sense.

use super::Draft;

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
}

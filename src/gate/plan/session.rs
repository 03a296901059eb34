//! `[session]`: deadlines and cookie fit each other, keys open, the store has an address.

use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::{Draft, chain};
use crate::{
    config::{self, StoreKind},
    session::{KeyRing, Random, RedisSettings, StoreSettings},
};

impl Draft<'_> {
    pub(super) fn session(&mut self) {
        let session = &self.config.session;
        if session.grace < session.recheck {
            self.warn(
                "session.grace",
                "`grace` is shorter than `recheck`",
                "it counts as `recheck`: while GitLab is out of reach, its last word is good for that long",
            );
        }
        let https = self.config.server.public_url.as_ref().map(|url| url.scheme() == "https");
        if session.cookie.same_site == config::SameSite::None && https == Some(false) {
            self.advise(
                "session.cookie.same_site",
                "browsers keep `same_site = \"none\"` cookies over https only",
                "use \"lax\", or an https `server.public_url`",
            );
        }
        if let (Some(domain), Some(public)) =
            (&session.cookie.domain, &self.config.server.public_url)
        {
            let host = public.host_str().unwrap_or_default();
            let covers = host == domain || host.ends_with(&format!(".{domain}"));
            if !covers {
                let message = format!("`{host}` of `server.public_url` does not lie in `{domain}`");
                self.error("session.cookie.domain", message);
            }
        }
    }

    pub(super) fn keys(&mut self) -> Option<KeyRing> {
        let keys = &self.config.session.keys;
        let mut texts = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            match key.read(self.env) {
                Ok(text) => texts.push(text),
                Err(error) => self.missing(&format!("session.keys[{index}]"), chain(&error)),
            }
        }
        if self.is_sketch && texts.len() < keys.len() {
            let stand_in: [u8; 32] = Random::system().bytes().ok()?;
            texts = vec![Zeroizing::new(STANDARD.encode(stand_in))];
        } else if texts.is_empty() || texts.len() < keys.len() {
            return None;
        }
        match KeyRing::new(&texts) {
            Ok(ring) => Some(ring),
            Err(error) => {
                let index = error.index().unwrap_or_default();
                self.error(format!("session.keys[{index}]"), error.to_string());
                None
            },
        }
    }

    pub(super) fn store(&mut self) -> Option<StoreSettings> {
        let store = match &self.config.session.store {
            StoreKind::Memory => return Some(StoreSettings::Memory),
            StoreKind::Redis(store) => store,
        };
        let ca = match store.ca.as_ref().map(std::fs::read).transpose() {
            Ok(ca) => ca,
            Err(error) => {
                self.missing("session.store.ca", format!("can't be read: {error}"));
                return self.is_sketch.then_some(StoreSettings::Memory);
            },
        };
        let url = match store.redis.read(self.env) {
            Ok(url) => url,
            Err(error) => {
                self.missing("session.store.redis", chain(&error));
                return self.is_sketch.then_some(StoreSettings::Memory);
            },
        };
        match RedisSettings::parse(&url, &store.prefix, ca) {
            Ok(settings) => Some(StoreSettings::Redis(settings)),
            Err(error) => {
                self.error("session.store.redis", error.to_string());
                None
            },
        }
    }
}

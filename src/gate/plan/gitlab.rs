//! `[gitlab.NAME]`: secrets are read, and nothing is in the way of calling it.

use std::{collections::BTreeMap, sync::Arc};

use url::Url;
use zeroize::Zeroizing;

use super::{
    super::{build::needs, hooks::HookSecret},
    Draft, chain,
};
use crate::{
    config,
    gitlab::{Provider, ProviderError, Roots, STATE_SCOPES, Unobserved},
};

impl Draft<'_> {
    pub(super) fn gitlabs(&mut self) -> BTreeMap<String, Zeroizing<String>> {
        let mut secrets = BTreeMap::new();
        for (name, gitlab) in &self.config.gitlab {
            let key = format!("gitlab.{name}");
            if let Some(secret) = &gitlab.client_secret {
                match secret.read(self.env) {
                    Ok(secret) => drop(secrets.insert(name.clone(), secret)),
                    Err(error) => self.missing(&format!("{key}.client_secret"), chain(&error)),
                }
            }
            self.transport(&key, gitlab);
            self.ways(&key, name, gitlab);
            self.vain_audience(&key, gitlab);
            let needs = needs(self.config, name);
            if needs.projects.len() > PROJECTS {
                let count = needs.projects.len();
                self.warn(
                    &key,
                    format!("rules name {count} projects: what GitLab says of each must fit the cookie of every session"),
                    "name the groups around them where that says the same",
                );
            }
            let scopes = needs.scopes(&gitlab.scopes);
            if !scopes.iter().any(|scope| STATE_SCOPES.contains(&scope.as_str())) {
                self.advise(
                    &format!("{key}.scopes"),
                    "without `read_user` GitLab does not say whether an account is blocked",
                    "add `read_user`, here and where the application is registered",
                );
            }
        }
        secrets
    }

    /// The secrets of those GitLabs that may send hooks.
    pub(super) fn hooks(&mut self) -> BTreeMap<String, HookSecret> {
        let mut hooks = BTreeMap::new();
        for (name, gitlab) in &self.config.gitlab {
            let Some(secret) = &gitlab.hook_secret else { continue };
            let key = format!("gitlab.{name}.hook_secret");
            match secret.read(self.env) {
                Err(error) => self.missing(&key, chain(&error)),
                Ok(text) => match HookSecret::new(&text) {
                    Some(secret) => drop(hooks.insert(name.clone(), secret)),
                    None => self.advise(
                        &key,
                        "the secret can be guessed: it has fewer than 16 bytes",
                        "take a random one, such as `openssl rand -hex 32` gives, and the same at GitLab",
                    ),
                },
            }
        }
        hooks
    }

    /// What would be in the way of calling this GitLab; the rest of its table is judged elsewhere.
    fn ways(&mut self, key: &str, name: &str, gitlab: &config::GitLab) {
        let (roots, needs) = (Roots::none(), needs(self.config, name));
        let observe = Arc::new(Unobserved);
        match Provider::new(name, gitlab, None, needs, &roots, self.env, observe) {
            Err(error @ ProviderError::CaFile(_)) => {
                self.missing(&format!("{key}.ca"), chain(&error));
            },
            Err(error @ ProviderError::CaContent) => {
                self.error(format!("{key}.ca"), chain(&error));
            },
            Err(error @ (ProviderError::Proxy | ProviderError::Tls(_))) => {
                self.error(key, chain(&error));
            },
            Ok(_) | Err(_) => {},
        }
    }

    /// Tokens over http can be read on the way; only a lab does that.
    fn transport(&mut self, key: &str, gitlab: &config::GitLab) {
        let (field, url) = match &gitlab.internal_url {
            Some(url) => ("internal_url", url),
            None => ("base_url", &gitlab.base_url),
        };
        if url.scheme() == "http" && !is_loopback(url) {
            self.warn(
                &format!("{key}.{field}"),
                "tokens and the client secret go over http, where others on the way can read them",
                "use https unless the network between labgate and GitLab is your own",
            );
        }
    }
}

/// So many projects fit a cookie, however long and unlike each other their paths are within reason.
const PROJECTS: usize = 40;

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

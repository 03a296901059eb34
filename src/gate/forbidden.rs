//! Whoever is known and may not pass: who that is, what they came with, and where somebody else would sign in.
//!
//! The words for it are `refusal`'s.

use super::{Gate, encoded, permit::Route};
use crate::{
    authenticate::Authenticated,
    identity::Kind,
    refusal::{Brought, Forbidden, Unmet},
    target::Target,
};

impl Gate {
    /// Why none of `rules` lets `who` pass.
    pub(super) fn forbidden(
        &self,
        target: &Target,
        route: &Route,
        who: &Authenticated,
        rules: Vec<Unmet>,
    ) -> Forbidden {
        let identity = who.identity();
        Forbidden {
            username: identity.map(|identity| identity.username.clone()).unwrap_or_default(),
            gitlab: self.label_of(who),
            brought: self.brought(target, route, who, &rules),
            rules,
            hide_rules: route.hide_rules,
        }
    }

    fn brought(
        &self,
        target: &Target,
        route: &Route,
        who: &Authenticated,
        rules: &[Unmet],
    ) -> Brought {
        let identity = who.identity();
        match identity.map(|identity| identity.kind) {
            Some(Kind::Browser) | None => {
                let gitlab = identity.map(|identity| identity.gitlab.as_str());
                Brought::Session { switch_url: self.switch_url(target, route, gitlab) }
            },
            Some(Kind::Token) => {
                let withheld = identity.is_some_and(|identity| identity.withheld);
                let lacks = withheld && rules.iter().any(|rule| rule.unknown);
                Brought::Token { lacks: lacks.then_some("read_api") }
            },
            Some(Kind::Ci) => Brought::Job { expected: route.expects_jobs() },
        }
    }

    /// What the GitLab of `who` is called on pages.
    pub(super) fn label_of(&self, who: &Authenticated) -> String {
        let providers = &self.authenticator.providers;
        let provider = who.identity().and_then(|identity| providers.get(&identity.gitlab));
        provider.map_or_else(String::new, |provider| provider.label().into())
    }

    fn switch_url(&self, target: &Target, route: &Route, gitlab: Option<&str>) -> String {
        let sign_in = self.sign_in_url(target, Some(route));
        let known = gitlab.filter(|gitlab| route.admits(gitlab));
        let start = |gitlab: &str| {
            let start = sign_in.replacen("/sign_in?", "/start?", 1);
            format!("{start}&gitlab={}&account=other", encoded(gitlab))
        };
        known.map(start).unwrap_or(sign_in)
    }
}

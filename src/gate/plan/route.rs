//! `[[route]]`: names are resolved, `allow` becomes a policy, and no two routes are the same.

use std::collections::BTreeMap;

use super::{super::guard::Guard, Draft, PlannedRoute, chain};
use crate::{
    authenticate::Takes,
    authorize::{Policy, PolicyError, UsersFiles},
    config::{self, Allow, Rule, nearest},
    route::{Entry, RouteTable},
};

impl Draft<'_> {
    pub(super) fn routes(&mut self, users: &mut UsersFiles) -> Option<Vec<Entry<PlannedRoute>>> {
        let routes = self.config.route.iter().enumerate();
        let entries: Vec<_> =
            routes.filter_map(|(index, route)| self.route(index, route, users)).collect();
        if entries.len() < self.config.route.len() {
            return None;
        }
        let bare = entries.iter().map(|entry| entry.with(()));
        let overlaps = RouteTable::new(bare.collect()).err().unwrap_or_default();
        for overlap in &overlaps {
            let message = format!("`route[{}]` has the same host, path and methods", overlap.first);
            self.error(format!("route[{}]", overlap.second), message);
        }
        overlaps.is_empty().then_some(entries)
    }

    fn route(
        &mut self,
        index: usize,
        route: &config::Route,
        users: &mut UsersFiles,
    ) -> Option<Entry<PlannedRoute>> {
        let key = format!("route[{index}]");
        let upstream = route.upstream.as_deref();
        let upstream = upstream.map(|name| self.upstream(&format!("{key}.upstream"), name));
        let is_lost = upstream == Some(None);
        let gitlabs = self.named_gitlabs(&key, route);
        let policy = self.policy(&key, route, users);
        let takes = self.takes(&key, route, gitlabs.as_deref().unwrap_or_default());
        self.several_gitlabs(&format!("{key}.allow"), route, &takes);
        let host = route.host.as_ref().map_or_else(String::new, ToString::to_string);
        if is_lost {
            return None;
        }
        let planned = PlannedRoute {
            name: format!("{host}{}", route.path.as_str()),
            names_host: route.host.is_some(),
            index,
            takes,
            guard: Guard::new(policy?, gitlabs?),
            upstream: upstream.flatten(),
            sign_in_page: route.sign_in_page,
            hide_rules: route.hide_rules,
            access_token: route.access_token,
        };
        Some(Entry {
            host: route.host.clone(),
            path: route.path.clone(),
            methods: route.methods.clone(),
            value: planned,
        })
    }

    /// Where it leads; none if that can't be used.
    fn upstream(&mut self, key: &str, upstream: &str) -> Option<String> {
        if let Some(table) = self.config.upstream.get(upstream) {
            return table.url.is_some().then(|| upstream.into());
        }
        if !upstream.contains("://") {
            let message = format!("there is no `[upstream.{upstream}]`");
            match nearest(upstream, &keys(&self.config.upstream)) {
                Some(known) => self.advise(key, message, format!("did you mean `{known}`?")),
                None => self.error(key, message),
            }
            return None;
        }
        match config::parse_origin(upstream) {
            Ok(_) => Some(upstream.into()),
            Err(message) => {
                self.error(key, message);
                None
            },
        }
    }

    fn named_gitlabs(&mut self, key: &str, route: &config::Route) -> Option<Vec<String>> {
        let known = keys(&self.config.gitlab);
        let Some(names) = &route.gitlab else {
            return Some(known.into_iter().map(Into::into).collect());
        };
        let missing: Vec<_> = names
            .iter()
            .enumerate()
            .filter(|(_, name)| !self.config.gitlab.contains_key(*name))
            .map(|(index, name)| (index, name.clone(), nearest(name, &known).map(str::to_owned)))
            .collect();
        for (index, name, near) in &missing {
            let key = format!("{key}.gitlab[{index}]");
            let message = format!("there is no `[gitlab.{name}]`");
            match near {
                Some(near) => self.advise(&key, message, format!("did you mean `{near}`?")),
                None => self.error(key, message),
            }
        }
        (missing.is_empty() && !names.is_empty()).then(|| names.clone())
    }

    fn policy(
        &mut self,
        key: &str,
        route: &config::Route,
        users: &mut UsersFiles,
    ) -> Option<Policy> {
        let key = format!("{key}.allow");
        let allow = route.allow.as_ref()?;
        self.all_of_gitlab_com(&key, route, allow);
        match Policy::new(allow, users) {
            Ok(policy) => Some(policy),
            Err(errors) => {
                for error in errors {
                    match &error {
                        // The table shows them by itself: `config` has told them.
                        PolicyError::NoRules
                        | PolicyError::EmptyRule(_)
                        | PolicyError::RoleAlone(_) => {},
                        PolicyError::UsersFile { rule, .. } => {
                            self.error(format!("{key}[{rule}].users_file"), chain(&error));
                        },
                    }
                }
                None
            },
        }
    }

    /// A name means somebody else at each GitLab; at gitlab.com anybody can take one that is free.
    fn several_gitlabs(&mut self, key: &str, route: &config::Route, takes: &Takes) {
        let known = keys(&self.config.gitlab);
        let rules = route.allow.as_ref().and_then(Allow::rules).unwrap_or_default();
        let jobs = |name: &str| {
            let own = takes.kinds.iter().find(|(gitlab, _)| gitlab == name);
            own.is_some_and(|(_, kinds)| kinds.iter().any(|kind| kind.is_job()))
        };
        for (index, rule) in rules.iter().enumerate() {
            let key = format!("{key}[{index}]");
            match &rule.gitlab {
                Some(name) if !known.contains(&name.as_str()) => {
                    let near =
                        nearest(name, &known).map(|known| format!("did you mean `{known}`?"));
                    let help =
                        near.unwrap_or_else(|| "see the names of the `[gitlab.NAME]`".into());
                    self.advise(
                        &format!("{key}.gitlab"),
                        format!("there is no `[gitlab.{name}]`"),
                        help,
                    );
                },
                Some(name) if !route.admits(name) => self.warn(
                    &format!("{key}.gitlab"),
                    "the route does not admit this GitLab: the rule never holds",
                    "add it to `gitlab` of the route",
                ),
                None if rule.goes_by_name() => {
                    let may_come =
                        |name: &&str| route.admits(name) && (rule.is_of_users() || jobs(name));
                    let admitted: Vec<_> = known.iter().copied().filter(may_come).collect();
                    if admitted.len() < 2 {
                        continue;
                    }
                    let world = worldwide(self.config).any(|name| admitted.contains(&name));
                    let message = "what has this name at one GitLab is somebody else at another";
                    let help = "say whose name it is: `gitlab = \"…\"` in the rule, or `gitlab = [\"…\"]` in the route";
                    if world {
                        self.advise(
                            &key,
                            format!("{message}, and at gitlab.com anybody can take it"),
                            help,
                        );
                    } else {
                        self.warn(&key, message, help);
                    }
                },
                Some(_) | None => {},
            }
        }
    }

    /// Anybody can have an account at gitlab.com, with any address that they can receive mail at.
    fn all_of_gitlab_com(&mut self, key: &str, route: &config::Route, allow: &Allow) {
        let world: Vec<_> = worldwide(self.config).filter(|name| route.admits(name)).collect();
        let open = !world.is_empty();
        match allow {
            Allow::SignedIn if open && !route.insecure_allow_all_of_gitlab_com => self.advise(
                key,
                "everybody in the world can sign in at gitlab.com",
                "name groups or users; or say `insecure_allow_all_of_gitlab_com = true` if that is meant",
            ),
            Allow::Rules(rules) if open => {
                let meant = |rule: &Rule| world.iter().any(|name| rule.concerns(name));
                let rules = rules.iter().enumerate();
                for (index, rule) in rules.filter(|(_, rule)| by_domain(rule) && meant(rule)) {
                    let domain = rule.email_domain.as_deref().unwrap_or_default();
                    self.warn(
                        &format!("{key}[{index}].email_domain"),
                        format!("an address at `{domain}` is all it takes, and gitlab.com's word for it"),
                        "add a `group` or a `project` to the rule if only colleagues should pass",
                    );
                }
            },
            Allow::Public | Allow::SignedIn | Allow::Rules(_) => {},
        }
    }
}

/// The tables of GitLabs where anybody in the world can have an account.
pub(super) fn worldwide(config: &config::Config) -> impl Iterator<Item = &str> {
    let tables = config.gitlab.iter().filter(|(_, gitlab)| gitlab.is_gitlab_com());
    tables.map(|(name, _)| name.as_str())
}

fn keys<T>(tables: &BTreeMap<String, T>) -> Vec<&str> {
    tables.keys().map(String::as_str).collect()
}

fn by_domain(rule: &Rule) -> bool {
    rule.email_domain.is_some()
        && rule.group.is_none()
        && rule.project.is_none()
        && rule.user.is_none()
        && rule.email.is_none()
        && rule.users_file.is_none()
}

#[cfg(test)]
mod tests {
    use crate::gate::Plan;

    /// What is said of a route beside two GitLabs, the second at `base`.
    fn said(base: &str, route: &str) -> (bool, String) {
        let text = format!(
            "server.public_url = \"https://a.example\"\n\
             gitlab.main = {{ client_id = \"x\", base_url = \"https://git.example\" }}\n\
             gitlab.partners = {{ client_id = \"y\", base_url = \"{base}\" }}\n\
             session.keys = [\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"]\n\
             [[route]]\nupstream = \"http://127.0.0.1:3000\"\n{route}\n"
        );
        let (plan, problems) = Plan::draw(&toml::from_str(&text).unwrap(), &|_| None);
        let told =
            problems.into_iter().map(|problem| format!("{}: {}", problem.key, problem.message));
        (plan.is_some(), told.collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn a_name_is_of_one_gitlab() {
        let (world, own) = ("https://gitlab.com", "https://git.partner.example");
        for name in [
            "user = \"ada\"",
            "group = \"acme\"",
            "project = \"acme/shop\"",
            "user = \"ada\", email = \"ada@example.com\"",
        ] {
            let rule = format!("allow = [{{ {name} }}]");
            let (sound, told) = said(world, &rule);
            assert!(!sound && told.starts_with("route[0].allow[0]: what has this name"), "{told}");
            let (sound, told) = said(own, &rule);
            assert!(sound && told.starts_with("route[0].allow[0]: what has this name"), "{told}");
            for scoped in [
                format!("allow = [{{ gitlab = \"partners\", {name} }}]"),
                format!("gitlab = [\"partners\"]\n{rule}"),
            ] {
                assert_eq!(said(world, &scoped), (true, String::new()), "{scoped}");
            }
        }
        // An address is somebody's everywhere, and facts of the account name nobody.
        for rule in ["email = \"ada@example.com\"", "two_factor = true"] {
            assert_eq!(said(world, &format!("allow = [{{ {rule} }}]")), (true, String::new()));
        }
    }

    #[test]
    fn a_job_can_come_only_from_where_jobs_tokens_count() {
        let rule = "allow = [{ ci_project = \"acme/shop\" }]\n";
        let (sound, told) = said("https://gitlab.com", rule);
        assert!(sound && !told.contains("what has this name"), "{told}");
    }

    #[test]
    fn a_rule_for_a_gitlab_that_is_not_there_is_told() {
        let rule = |name: &str| format!("allow = [{{ gitlab = \"{name}\", user = \"ada\" }}]");
        let (sound, told) = said("https://gitlab.com", &rule("partner"));
        assert!(!sound && told.contains("there is no `[gitlab.partner]`"), "{told}");
        let elsewhere = format!("gitlab = [\"main\"]\n{}", rule("partners"));
        let (sound, told) = said("https://gitlab.com", &elsewhere);
        assert!(sound && told.contains("the rule never holds"), "{told}");
    }

    #[test]
    fn an_open_domain_is_told_where_it_is_meant() {
        let told = |gitlab: &str| {
            let rule = format!("allow = [{{ {gitlab} email_domain = \"example.com\" }}]");
            said("https://gitlab.com", &rule).1
        };
        assert!(told("").contains("is all it takes"));
        assert!(told("gitlab = \"partners\",").contains("is all it takes"));
        assert_eq!(told("gitlab = \"main\","), "");
    }
}

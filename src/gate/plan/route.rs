//! `[[route]]`: names are resolved, `allow` becomes a policy, and no two routes are the same.

use std::collections::BTreeMap;

use super::{super::guard::Guard, Draft, PlannedRoute, chain};
use crate::{
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
        let host = route.host.as_ref().map_or_else(String::new, ToString::to_string);
        if is_lost {
            return None;
        }
        let planned = PlannedRoute {
            name: format!("{host}{}", route.path.as_str()),
            names_host: route.host.is_some(),
            index,
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

    /// Anybody can have an account at gitlab.com, with any address that they can receive mail at.
    fn all_of_gitlab_com(&mut self, key: &str, route: &config::Route, allow: &Allow) {
        let open = self.config.gitlab.iter().any(|(name, gitlab)| {
            route.admits(name) && gitlab.base_url.host_str() == Some("gitlab.com")
        });
        match allow {
            Allow::SignedIn if open && !route.insecure_allow_all_of_gitlab_com => self.advise(
                key,
                "everybody in the world can sign in at gitlab.com",
                "name groups or users; or say `insecure_allow_all_of_gitlab_com = true` if that is meant",
            ),
            Allow::Rules(rules) if open => {
                for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| by_domain(rule)) {
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

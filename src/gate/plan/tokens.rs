//! `tokens` of GitLabs and routes: which tokens count where, and what of it has no effect.

use super::{Draft, route::worldwide};
use crate::{
    authenticate::Takes,
    config::{self, Allow, GitLab, Rule, TokenKind},
};

impl Draft<'_> {
    /// Which tokens count at `route`, whose users come from `gitlabs`.
    pub(super) fn takes(&mut self, key: &str, route: &config::Route, gitlabs: &[String]) -> Takes {
        let tables = gitlabs.iter().filter_map(|name| self.config.gitlab.get_key_value(name));
        let kinds = tables.filter_map(|(name, table)| {
            let kinds = kinds(route, table);
            (!kinds.is_empty()).then(|| (name.clone(), kinds))
        });
        let takes = Takes { kinds: kinds.collect(), basic: route.basic };
        self.vain_tokens(key, route, gitlabs);
        self.vain_rules(key, route, &takes);
        self.open_rules(key, route, &takes);
        self.unprotected_refs(key, route, &takes);
        if route.basic && !takes.any() {
            self.warn(
                &format!("{key}.basic"),
                "without effect: no token counts here",
                "say which do with `tokens` of the GitLab, and on a public route with `tokens` of the route",
            );
        }
        takes
    }

    /// An audience that no token is asked for.
    pub(super) fn vain_audience(&mut self, key: &str, gitlab: &GitLab) {
        if gitlab.tokens.ci_audience.is_some() && !gitlab.tokens.accepts(TokenKind::Ci) {
            self.warn(
                &format!("{key}.tokens.ci_audience"),
                "without effect: tokens of CI jobs don't count",
                "add `ci` to `tokens.accept`",
            );
        }
    }

    /// Kinds that the route names and no GitLab accepts.
    fn vain_tokens(&mut self, key: &str, route: &config::Route, gitlabs: &[String]) {
        for (index, kind) in route.tokens.iter().flatten().enumerate() {
            let accepts = |name: &String| {
                self.config.gitlab.get(name).is_some_and(|table| table.tokens.accepts(*kind))
            };
            if !gitlabs.iter().any(accepts) {
                self.warn(
                    &format!("{key}.tokens[{index}]"),
                    format!("without effect: no GitLab of this route accepts `{kind}`"),
                    "add it to `tokens.accept` of the `[gitlab.NAME]`",
                );
            }
        }
    }

    /// Rules that the jobs of any project meet: whoever has an account can have a project with such a branch or environment.
    fn open_rules(&mut self, key: &str, route: &config::Route, takes: &Takes) {
        let jobs = takes.kinds.iter().filter(|(_, kinds)| kinds.iter().any(|kind| kind.is_job()));
        let names: Vec<_> = jobs.map(|(name, _)| name.as_str()).collect();
        let open = |rule: &Rule| {
            rule.is_of_jobs()
                && !rule.is_of_users()
                && rule.ci_project.is_none()
                && rule.ci_namespace.is_none()
        };
        let rules = route.allow.as_ref().and_then(Allow::rules).unwrap_or_default();
        for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| open(rule)) {
            let meant = names.iter().filter(|name| rule.concerns(name));
            let names: Vec<_> = meant.copied().collect();
            let world = worldwide(self.config).any(|name| names.contains(&name));
            let key = format!("{key}.allow[{index}]");
            let help = "name the project with `ci_project`, or the group with `ci_namespace`";
            if world && !route.insecure_allow_all_of_gitlab_com {
                self.advise(
                    &key,
                    "everybody in the world can run such a CI job at gitlab.com",
                    help,
                );
            } else if !names.is_empty() {
                self.warn(&key, "CI jobs of any project can meet this rule", help);
            }
        }
    }

    /// Rules on a branch that anybody may name who can open a merge request, also from a fork, or on an environment that a job of any branch may name.
    fn unprotected_refs(&mut self, key: &str, route: &config::Route, takes: &Takes) {
        // Of a job token GitLab does not say whether its ref is protected.
        let told = takes.kinds.iter().any(|(_, kinds)| kinds.contains(&TokenKind::Ci));
        let rules = route.allow.as_ref().and_then(Allow::rules).unwrap_or_default();
        let open = |rule: &Rule| {
            let of_branches = rule.r#ref.as_ref().is_none_or(|named| !named.is_of_tags());
            of_branches && rule.ref_protected.is_none()
        };
        let of_merge_requests = |rule: &Rule| {
            rule.pipeline_source.as_ref().is_none_or(|source| source == "merge_request_event")
        };
        for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| told && open(rule)) {
            let key = format!("{key}.allow[{index}]");
            if rule.r#ref.is_some() && of_merge_requests(rule) {
                let help = "add `ref_protected = true`, or `pipeline_source = \"push\"` for a branch that is not protected";
                let message =
                    "a merge request's pipeline may carry this name too, a fork's as well";
                self.warn(&format!("{key}.ref"), message, help);
            } else if rule.r#ref.is_none() && rule.environment.is_some() {
                let help = "add `ref_protected = true`";
                let message =
                    "a job of any branch may name an environment that is not protected at GitLab";
                self.warn(&format!("{key}.environment"), message, help);
            }
        }
    }

    /// Rules for CI jobs where none can come, and CI jobs that can come where no rule is for them.
    fn vain_rules(&mut self, key: &str, route: &config::Route, takes: &Takes) {
        let jobs = takes.kinds.iter().any(|(_, kinds)| kinds.iter().any(|kind| kind.is_job()));
        let rules = route.allow.as_ref().and_then(Allow::rules).unwrap_or_default();
        for (index, _) in rules.iter().enumerate().filter(|(_, rule)| rule.is_of_jobs() && !jobs) {
            self.warn(
                &format!("{key}.allow[{index}]"),
                "the rule is for CI jobs, whose tokens don't count here",
                "add `ci` to `tokens.accept` of the `[gitlab.NAME]`, and to `tokens` of the route if it has that key",
            );
        }
        let named = route.tokens.iter().flatten().any(|kind| kind.is_job());
        let public = matches!(route.allow, Some(Allow::Public));
        if named && jobs && !public && !rules.iter().any(Rule::is_of_jobs) {
            self.warn(
                &format!("{key}.tokens"),
                "tokens of CI jobs count here, but no rule is for CI jobs, so none passes",
                "add a rule such as `{ ci_project = \"acme/web/shop\", ref_protected = true }`",
            );
        }
    }
}

/// The kinds of `gitlab` that count at `route`. On a public route the application may have tokens of its own, which are no business of GitLab's.
fn kinds(route: &config::Route, gitlab: &GitLab) -> Vec<TokenKind> {
    let accept = &gitlab.tokens.accept;
    match (&route.tokens, &route.allow) {
        (Some(kinds), _) => accept.iter().copied().filter(|kind| kinds.contains(kind)).collect(),
        (None, Some(Allow::Public)) => Vec::new(),
        (None, _) => accept.clone(),
    }
}

#[cfg(test)]
mod tests {
    use crate::gate::Plan;

    /// What is said of `[gitlab.main]` with these lines and a route with those.
    fn said(gitlab: &str, route: &str) -> (bool, String) {
        let base = match gitlab.contains("base_url") {
            true => "",
            false => "base_url = \"https://git.example\"",
        };
        let text = format!(
            "server.public_url = \"https://a.example\"\n[gitlab.main]\nclient_id = \"x\"\n{base}\n{gitlab}\n\
             [session]\nkeys = [\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"]\n\
             [[route]]\nupstream = \"http://127.0.0.1:3000\"\n{route}\n"
        );
        let (plan, problems) = Plan::draw(&toml::from_str(&text).unwrap(), &|_| None);
        let told =
            problems.into_iter().map(|problem| format!("{}: {}", problem.key, problem.message));
        (plan.is_some(), told.collect::<Vec<_>>().join("; "))
    }

    const CI: &str = "tokens = { accept = [\"ci\", \"personal\"], ci_audience = \"y\" }";
    const SHOP: &str = "allow = [{ ci_project = \"acme/shop\" }, { user = \"ann\" }]";

    #[test]
    fn what_has_no_effect_is_told() {
        for (gitlab, route, told) in [
            (CI, SHOP, ""),
            (CI, "allow = \"signed-in\"", ""),
            ("", "allow = \"signed-in\"", ""),
            (
                "tokens.ci_audience = \"y\"",
                "allow = \"signed-in\"",
                "gitlab.main.tokens.ci_audience: without",
            ),
            ("", SHOP, "route[0].allow[0]: the rule is for CI jobs"),
            (
                CI,
                &format!("{SHOP}\ntokens = [\"personal\"]"),
                "route[0].allow[0]: the rule is for CI",
            ),
            (
                CI,
                &format!("{SHOP}\ntokens = [\"ci\", \"oauth\"]"),
                "route[0].tokens[1]: without effect",
            ),
            (CI, "allow = \"signed-in\"\ntokens = [\"ci\"]", "route[0].tokens: tokens of CI jobs"),
            (CI, "allow = \"public\"\ntokens = [\"ci\"]", ""),
            ("", "allow = \"signed-in\"\nbasic = true", "route[0].basic: without effect"),
            (CI, "allow = \"public\"\nbasic = true", "route[0].basic: without effect"),
            (
                CI,
                "allow = [{ ref = \"main\", ref_protected = true }]",
                "route[0].allow[0]: CI jobs of any project",
            ),
        ] {
            let (sound, problems) = said(gitlab, route);
            assert!(sound, "{route}: {problems}");
            assert!(problems.starts_with(told) && !problems.contains(';'), "{route}: {problems}");
            assert_eq!(told.is_empty(), problems.is_empty(), "{route}: {problems}");
        }
    }

    #[test]
    fn a_branch_that_need_not_be_protected_is_told() {
        let rule = |keys: &str| format!("allow = [{{ ci_project = \"acme/shop\", {keys} }}]");
        for (keys, told) in [
            ("ref = \"main\"", true),
            ("ref = \"refs/heads/release/*\"", true),
            ("ref = \"refs/tags/v*\"", false),
            ("ref = \"main\", ref_protected = true", false),
            ("ref = \"next\", pipeline_source = \"push\"", false),
            ("ref = \"next\", pipeline_source = \"merge_request_event\"", true),
            ("environment = \"production\", ref_protected = true", false),
        ] {
            let (sound, problems) = said(CI, &rule(keys));
            assert!(sound, "{problems}");
            assert_eq!(problems.contains("allow[0].ref: a merge request's"), told, "{problems}");
        }
        for keys in ["", ", pipeline_source = \"push\""] {
            let keys = format!("environment = \"production\"{keys}");
            let (sound, problems) = said(CI, &rule(&keys));
            assert!(sound && problems.contains("allow[0].environment: a job of any"), "{problems}");
        }
        // Of a job token GitLab does not say whether its ref is protected.
        let job = "tokens = { accept = [\"job\"] }";
        assert_eq!(said(job, &rule("ref = \"main\"")), (true, String::new()));
    }

    #[test]
    fn no_rule_lets_the_jobs_of_the_whole_world_in_by_accident() {
        let com = format!("base_url = \"https://gitlab.com\"\n{CI}");
        let open = "allow = [{ environment = \"production\", ref_protected = true }]";
        let (sound, problems) = said(&com, open);
        assert!(!sound && problems.contains("everybody in the world"), "{problems}");
        assert!(said(&com, SHOP).0);
        assert!(said(&com, &format!("{open}\ninsecure_allow_all_of_gitlab_com = true")).0);
    }

    #[test]
    fn a_route_takes_what_it_names_of_what_is_accepted() {
        let takes = |gitlab: &str, route: &str| {
            let text = format!(
                "server.public_url = \"https://a.example\"\n[gitlab.main]\nclient_id = \"x\"\nbase_url = \"https://git.example\"\n{gitlab}\n\
                 [session]\nkeys = [\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"]\n\
                 [[route]]\nupstream = \"http://127.0.0.1:3000\"\n{route}\n"
            );
            let plan = Plan::draw(&toml::from_str(&text).unwrap(), &|_| None).0.unwrap();
            plan.takes("main").remove(0).1
        };
        for (gitlab, route, words) in [
            ("", "allow = \"signed-in\"", "none"),
            (CI, "allow = \"signed-in\"", "ci personal"),
            (CI, "allow = \"signed-in\"\nbasic = true", "ci personal (also as a password)"),
            (CI, "allow = \"signed-in\"\ntokens = []", "none"),
            (CI, "allow = \"signed-in\"\ntokens = [\"personal\", \"job\"]", "personal"),
            (CI, "allow = \"public\"", "none"),
            (CI, "allow = \"public\"\ntokens = [\"ci\"]", "ci"),
        ] {
            assert_eq!(takes(gitlab, route), words, "{route}");
        }
    }
}

//! `labgate check`: every problem of the configuration; or, if there is none, what it means and what to register in GitLab.
//!
//! Standard output is itself a configuration: every key with the value that counts, secrets masked, and the registration in comments.

use std::{fmt::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;

use super::Environment;
use crate::{
    config::{GitLab, StoreKind},
    gate::Plan,
};

/// Ends with 2 if the configuration can't be used, with 0 otherwise.
pub(super) fn run(path: Option<PathBuf>, env: &Environment) -> anyhow::Result<ExitCode> {
    match super::planned(path, env) {
        Ok(plan) => super::print(&report(&plan)?)?,
        Err(code) => return Ok(code),
    }
    Ok(ExitCode::SUCCESS)
}

fn report(plan: &Plan) -> anyhow::Result<String> {
    let mut text = toml::to_string(&plan.config).context("the configuration can't be written")?;
    if matches!(plan.config.session.store, StoreKind::Memory) {
        text.push_str(ALONE);
        if plan.config.server.sign_in_host.is_some() {
            text.push_str(ALONE_WITH_TICKETS);
        }
    }
    if plan.config.identity.assertion.is_some() {
        text.push_str(&assertion(plan));
    }
    for (name, gitlab) in &plan.config.gitlab {
        text.push('\n');
        for line in registration(plan, name, gitlab).lines() {
            writeln!(text, "# {line}")?;
        }
    }
    Ok(text)
}

/// What the default store means to those who run more than one process.
const ALONE: &str = "
# [session] store = \"memory\": sign-outs and renewed tokens are known to one process only, until it restarts.
# With several replicas a cookie that was signed out at one is good at the others until GitLab or `lifetime` ends it:
# give them one store, `store = { redis = \"rediss://…\" }`.
";

/// What it means besides, where tickets hand sessions over.
const ALONE_WITH_TICKETS: &str = "\
# [server] sign_in_host: that a ticket is used once is known to one process only, too. With several replicas, one that was used at one of them
# could be used again at another within its minute, by the same browser.
";

/// What applications need to know that check assertions.
fn assertion(plan: &Plan) -> String {
    let server = &plan.config.server;
    let public = server.public_url.as_ref().map(|url| url.origin().ascii_serialization());
    let issuer = public.unwrap_or_else(|| "scheme, host and port that the browser sees".into());
    let keys = format!("{}/jwks.json", server.prefix);
    format!(
        "
# [identity] assertion: ES256; iss is {issuer}; aud is the host of the route, without a port.
# Its keys are at {keys} of every host, and of labgate's own address.
"
    )
}

/// What to tell GitLab when the application is registered, or to compare with what was told.
fn registration(plan: &Plan, name: &str, gitlab: &GitLab) -> String {
    let base = gitlab.base_url.as_str().trim_end_matches('/');
    let secret = match gitlab.client_secret {
        Some(_) => "yes",
        None => "no (there is no client_secret, so it is a public client)",
    };
    let mut lines = vec![
        format!("[gitlab.{name}] Register labgate as an application at one of"),
        format!("  {base}/-/user_settings/applications     (your own)"),
        format!("  {base}/groups/GROUP/-/settings/applications     (of a group)"),
        format!("  {base}/admin/applications     (of the whole GitLab)"),
        "Redirect URI, one a line, exactly:".into(),
    ];
    lines.extend(plan.redirect_uris(name).into_iter().map(|uri| match uri.contains("://*.") {
        true => format!("  {uri}     (for each host: GitLab knows no wildcards)"),
        false => format!("  {uri}"),
    }));
    lines.push(format!("Confidential: {secret}"));
    lines.push(format!("Scopes: {}", plan.scopes(name).join(" ")));
    let rules = plan.rules_that_read_api(name);
    if !rules.is_empty() {
        lines.push("read_api is needed by".into());
        lines.extend(rules.into_iter().map(|rule| format!("  {rule}")));
    }
    if plan.misses_sharing(name) {
        lines.push(
            "Groups reached by sharing don't count; with read_api in `scopes` they would".into(),
        );
    }
    if let Some(api) = &gitlab.api {
        let methods: Vec<_> = api.methods().iter().map(ToString::to_string).collect();
        lines.push(format!(
            "Its API for applications: http://{}/api/ ({})",
            api.listen,
            methods.join(", ")
        ));
    }
    if !gitlab.tokens.accept.is_empty() {
        let kinds: Vec<_> = gitlab.tokens.accept.iter().map(|kind| kind.as_str()).collect();
        lines.push(format!("Callers without a browser: {}", kinds.join(" ")));
        lines.extend(gitlab.tokens.ci_audience.as_ref().map(|audience| {
            format!("  in .gitlab-ci.yml: id_tokens: {{ LABGATE_TOKEN: {{ aud: {audience} }} }}")
        }));
        let takes = plan.takes(name).into_iter();
        lines.extend(takes.map(|(key, kinds)| format!("  {key}: {kinds}")));
    }
    lines.extend(plan.hook_url(name).map(|url| format!("URL of its system hook: {url}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "hunter2-hunter2";
    /// 32 bytes.
    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const OTHER: &str = "//79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA=";

    fn plan(text: &str) -> Plan {
        let config = toml::from_str(text).unwrap();
        let (plan, problems) = Plan::draw(&config, &|_| Some(OTHER.into()));
        plan.unwrap_or_else(|| panic!("{problems:#?}"))
    }

    fn example() -> String {
        format!(
            r#"
            server = {{ public_url = "https://app.example.com", limits = {{ header_bytes = "32KiB" }} }}
            gitlab.main = {{ client_id = "main-id", client_secret = "{SECRET}", hook_secret = "{SECRET}!", base_url = "https://git.example.com/gitlab" }}
            gitlab.public = {{ client_id = "public-id", base_url = "https://git.example.org" }}
            session = {{ keys = ["{KEY}", {{ env = "KEY" }}], idle_timeout = "90m" }}
            [[route]]
            upstream = "http://127.0.0.1:3000"
            methods = ["GET"]
            gitlab = ["main"]
            allow = [
                {{ group = "acme", role = "guest" }},
                {{ group = "acme", role = "developer", two_factor = true }},
                {{ group = "acme", project = "acme/shop", role = "reporter" }},
            ]
            [[route]]
            host = "*.example.com"
            upstream = "http://127.0.0.1:3000"
            allow = "signed-in"
            "#
        )
    }

    #[test]
    fn the_effective_configuration_is_one_again_without_its_secrets() {
        let text = report(&plan(&example())).unwrap();
        assert!(!text.contains(SECRET) && !text.contains(KEY), "{text}");
        let table: toml::Table = text.parse().unwrap();
        for secret in ["client_secret", "hook_secret"] {
            assert_eq!(table["gitlab"]["main"][secret].as_str(), Some("***"));
        }
        let keys = table["session"]["keys"].as_array().unwrap();
        assert_eq!(keys[0].as_str(), Some("***"));
        assert_eq!(keys[1]["env"].as_str(), Some("KEY"));
        assert_eq!(table["session"]["lifetime"].as_str(), Some("12h"));
        assert_eq!(table["session"]["idle_timeout"].as_str(), Some("1h 30m"));
        assert_eq!(table["server"]["limits"]["header_bytes"].as_str(), Some("32KiB"));
        assert_eq!(report(&plan(&text.replacen("***", KEY, 9))).unwrap(), text);
    }

    #[test]
    fn the_registration_names_uris_scopes_and_places() {
        let plan = plan(&example());
        assert_eq!(
            registration(&plan, "main", &plan.config.gitlab["main"]),
            "[gitlab.main] Register labgate as an application at one of\n\
             \x20 https://git.example.com/gitlab/-/user_settings/applications     (your own)\n\
             \x20 https://git.example.com/gitlab/groups/GROUP/-/settings/applications     (of a group)\n\
             \x20 https://git.example.com/gitlab/admin/applications     (of the whole GitLab)\n\
             Redirect URI, one a line, exactly:\n\
             \x20 https://*.example.com/oauth2/callback     (for each host: GitLab knows no wildcards)\n\
             \x20 https://app.example.com/oauth2/callback\n\
             Confidential: yes\n\
             Scopes: openid email read_user read_api\n\
             read_api is needed by\n\
             \x20 route[0].allow[0]: role guest in group acme\n\
             \x20 route[0].allow[2]: role reporter in group acme, project acme/shop\n\
             URL of its system hook: https://app.example.com/oauth2/hooks/main"
        );
        let public = registration(&plan, "public", &plan.config.gitlab["public"]);
        assert!(public.contains("Confidential: no"), "{public}");
        assert!(public.ends_with("Scopes: openid email read_user"), "{public}");
    }
}

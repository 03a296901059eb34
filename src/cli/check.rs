//! `labgate check`: every problem of the configuration; or, if there is none, what it means and what to register in GitLab.
//!
//! Standard output is itself a configuration: every key with the value that counts, secrets masked, and the registration in comments.

use std::{collections::BTreeSet, fmt::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;

use super::Environment;
use crate::config::{Allow, Config, GitLab, Route};

/// Ends with 2 if the configuration can't be used, with 0 otherwise.
pub(super) fn run(path: Option<PathBuf>, env: &Environment) -> anyhow::Result<ExitCode> {
    let config = match super::planned(path, env) {
        Ok(plan) => plan.config,
        Err(code) => return Ok(code),
    };
    super::print(&report(&config)?)?;
    Ok(ExitCode::SUCCESS)
}

fn report(config: &Config) -> anyhow::Result<String> {
    let mut text = toml::to_string(config).context("the configuration can't be written")?;
    for (name, gitlab) in &config.gitlab {
        text.push('\n');
        for line in registration(config, name, gitlab).lines() {
            writeln!(text, "# {line}")?;
        }
    }
    Ok(text)
}

/// What to tell GitLab when the application is registered, or to compare with what was told.
fn registration(config: &Config, name: &str, gitlab: &GitLab) -> String {
    let base = gitlab.base_url.as_str().trim_end_matches('/');
    let routes: Vec<_> = config.route.iter().filter(|route| admits(route, name)).collect();
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
    lines.extend(callbacks(config, &routes).into_iter().map(|uri| format!("  {uri}")));
    lines.push(format!("Confidential: {secret}"));
    lines.push(format!("Scopes: {}", scopes(gitlab, &routes).join(" ")));
    lines.join("\n")
}

/// Whether people of the GitLab `name` sign in for `route`.
fn admits(route: &Route, name: &str) -> bool {
    let listed = |names: &Vec<String>| names.iter().any(|listed| listed == name);
    route.gitlab.as_ref().is_none_or(listed) && route.allow != Some(Allow::Public)
}

/// Where GitLab sends browsers back to: labgate's one name, or each host that a route names.
fn callbacks(config: &Config, routes: &[&Route]) -> BTreeSet<String> {
    let path = format!("{}/callback", config.server.prefix);
    if let Some(url) = &config.server.public_url {
        return [format!("{}{path}", url.as_str().trim_end_matches('/'))].into();
    }
    let hosts = routes.iter().map(|route| match &route.host {
        Some(host) if host.to_string().starts_with('*') => {
            format!("https://HOST{path}     (for each HOST of {host}: GitLab knows no wildcards)")
        },
        Some(host) => format!("https://{host}{path}"),
        None => format!("https://HOST{path}     (for each HOST that browsers use)"),
    });
    hosts.collect()
}

/// The configured scopes, and `read_api` if a role is to be looked up.
fn scopes<'a>(gitlab: &'a GitLab, routes: &[&Route]) -> Vec<&'a str> {
    let mut scopes: Vec<_> = gitlab.scopes.iter().map(String::as_str).collect();
    let by_role = |route: &&Route| match &route.allow {
        Some(Allow::Rules(rules)) => rules.iter().any(|rule| rule.role.is_some()),
        Some(Allow::Public | Allow::SignedIn) | None => false,
    };
    if routes.iter().any(by_role) && !scopes.iter().any(|scope| ["read_api", "api"].contains(scope))
    {
        scopes.push("read_api");
    }
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    const SECRET: &str = "hunter2-hunter2";

    fn config(text: &str) -> Config {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("labgate.toml");
        std::fs::write(&path, text).unwrap();
        let (_, config, problems) = load(Some(path), &Environment::new());
        assert_eq!(problems, []);
        config.unwrap()
    }

    fn example() -> String {
        format!(
            r#"
            server = {{ public_url = "https://app.example.com", limits = {{ header_bytes = "32KiB" }} }}
            gitlab.main = {{ client_id = "main-id", client_secret = "{SECRET}", base_url = "https://git.example.com/gitlab" }}
            gitlab.public = {{ client_id = "public-id" }}
            session = {{ keys = ["{SECRET}", {{ env = "KEY" }}, {{ file = "/etc/labgate/old.key" }}], idle_timeout = "90m" }}
            [[route]]
            upstream = "http://127.0.0.1:3000"
            methods = ["GET"]
            gitlab = ["main"]
            allow = [{{ group = "acme", role = "developer" }}]
            [[route]]
            host = "*.example.com"
            upstream = "http://127.0.0.1:3000"
            allow = "signed-in"
            "#
        )
    }

    #[test]
    fn the_effective_configuration_is_one_again_without_its_secrets() {
        let text = report(&config(&example())).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["gitlab"]["main"]["client_secret"].as_str(), Some("***"));
        let keys = table["session"]["keys"].as_array().unwrap();
        assert_eq!(keys[0].as_str(), Some("***"));
        assert_eq!(keys[1]["env"].as_str(), Some("KEY"));
        assert_eq!(keys[2]["file"].as_str(), Some("/etc/labgate/old.key"));
        assert_eq!(table["session"]["lifetime"].as_str(), Some("12h"));
        assert_eq!(table["session"]["idle_timeout"].as_str(), Some("1h 30m"));
        assert_eq!(table["server"]["limits"]["header_bytes"].as_str(), Some("32KiB"));
        assert_eq!(
            report(&config(&text.replace("/etc/labgate/", "/nowhere/"))).unwrap(),
            text.replace("/etc/labgate/", "/nowhere/")
        );
    }

    #[test]
    fn the_registration_names_uris_scopes_and_places() {
        let config = config(&example());
        assert_eq!(
            registration(&config, "main", &config.gitlab["main"]),
            "[gitlab.main] Register labgate as an application at one of\n\
             \x20 https://git.example.com/gitlab/-/user_settings/applications     (your own)\n\
             \x20 https://git.example.com/gitlab/groups/GROUP/-/settings/applications     (of a group)\n\
             \x20 https://git.example.com/gitlab/admin/applications     (of the whole GitLab)\n\
             Redirect URI, one a line, exactly:\n\
             \x20 https://app.example.com/oauth2/callback\n\
             Confidential: yes\n\
             Scopes: openid email read_user read_api"
        );
        let public = registration(&config, "public", &config.gitlab["public"]);
        assert!(public.contains("Confidential: no"), "{public}");
        assert!(public.ends_with("Scopes: openid email read_user"), "{public}");
    }

    #[test]
    fn each_host_has_its_own_redirect_uri() {
        let mut config = config(&example());
        config.server.public_url = None;
        config.route[0].host = Some("a.example.com".to_owned().try_into().unwrap());
        config.route[1].allow = Some(Allow::Public);
        let routes: Vec<_> = config.route.iter().filter(|route| admits(route, "main")).collect();
        let uris = callbacks(&config, &routes);
        assert_eq!(uris, BTreeSet::from(["https://a.example.com/oauth2/callback".into()]));
        assert!(!admits(&config.route[0], "public"));
    }
}

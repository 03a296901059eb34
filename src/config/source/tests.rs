//! Files and environments with mistakes of each kind, and exactly what is said about them.

use std::{collections::BTreeMap, path::PathBuf};

use super::*;
use crate::config::render;

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}

fn told(text: &str, pairs: &[(&str, &str)]) -> (Option<Config>, String) {
    let (document, config, problems) = read(
        Some(PathBuf::from("labgate.toml")),
        text.to_owned().into(),
        &env(pairs),
    );
    (config, render(&problems, &document))
}

#[test]
fn a_look() {
    let (config, told) = told(
        r#"
[server]
listen = "nowhere"
prefx = "/x"
tls = { cert = "x" }
limits = { headers = "many", tunnels = -1 }
trusted_proxies = ["10.0.0.0/8", "0.0.0.0/0", 5]

[gitlab.main]
client_id = 5
client_secret = { fil = "hunter2hunter2" }
base_url = "https://root:hunter2@gitlab"

[session]
keys = ["hunter2", 5, { env = "hunter2-hunter2" }]
cookie = { same_site = "strict" }
store = { redis = "redis://:hunter2@x" }

[[route]]
allow = "signd-in"

[[route]]
upstream = "x"
allow = [{ group = "acme" }, { grup = "acme" }, { role = "boss" }, "x", { project = "a/b" }]
"#,
        &[
            ("LABGATE_SESSION__LIFETIME", "soon"),
            ("LABGATE_SESION__LIFETIME", "8h"),
            ("LABGATE_SERVER__LIMITS__CONECTIONS", "5"),
            ("LABGATE_PORT_80_TCP", "tcp://"),
            ("LABGATE_SESSION_GRACE", "5h"),
        ],
    );
    println!("{told}\n{config:#?}");
    assert!(!told.is_empty());
}

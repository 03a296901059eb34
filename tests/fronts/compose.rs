//! The files in `deploy/compose/fronts`: what they mount is what `labgate front` prints, and what they say fits together.
//!
//! The tests of this folder start the same programs on the same configurations; `LABGATE_BLESS=1` writes them anew.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;

use crate::support::{check, labgate, outcome};

const FRONTS: [&str; 6] = ["nginx", "caddy", "haproxy", "envoy", "traefik", "apache"];

/// The files that are printed, and how.
const PRINTED: [(&str, &[&str]); 6] = [
    ("nginx.conf", &["nginx"]),
    ("Caddyfile", &["caddy"]),
    ("haproxy.cfg", &["haproxy", "--lua", "/usr/local/etc/haproxy/labgate.lua"]),
    ("labgate.lua", &["haproxy", "--as", "lua"]),
    ("envoy.conf.yaml", &["envoy"]),
    ("traefik.conf.yaml", &["traefik"]),
];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy/compose/fronts").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn what_is_mounted_is_what_is_printed() {
    let config = path("labgate.toml");
    let config = config.to_str().expect("text");
    let places = ["--config", config, "--labgate", "labgate:4180", "--listen", "0.0.0.0:8080"];
    for (name, arguments) in PRINTED {
        let line = [&["front"], arguments, &places].concat();
        let (code, text, errors) = outcome(&mut labgate(&line, &[]));
        assert_eq!(code, 0, "{name}: {errors}");
        if std::env::var_os("LABGATE_BLESS").is_some() {
            fs::write(path(name), &text).expect("a file");
        }
        assert_eq!(read(name), text, "{name}: LABGATE_BLESS=1 writes it anew");
    }
}

#[test]
fn each_front_is_the_only_way_in() {
    let base = yaml("base.yaml");
    for front in FRONTS {
        let compose = yaml(&format!("{front}.yaml"));
        let services = compose["services"].as_object().expect("services");
        let names: BTreeSet<_> = services.keys().map(String::as_str).collect();
        assert_eq!(names, BTreeSet::from(["front", "labgate", "gitlab", "app"]), "{front}");
        for name in ["labgate", "gitlab", "app"] {
            let extends = &services[name]["extends"];
            assert_eq!(extends, &serde_json::json!({ "file": "base.yaml", "service": name }));
            let known = &base["services"][name];
            assert!(known.is_object(), "{name}");
            let ports = texts(&known["ports"]);
            assert_eq!(!ports.is_empty(), name == "gitlab", "{name} publishes {ports:?}");
            assert_eq!(known["read_only"], true);
        }
        let service = &services["front"];
        assert_eq!(texts(&service["ports"]), ["127.0.0.1:8080:8080"], "{front}");
        let image = service["image"].as_str().expect("an image");
        assert!(image.split_once(':').is_some_and(|(_, tag)| tag != "latest"), "{image}");
        for volume in texts(&service["volumes"]) {
            let parts: Vec<_> = volume.split(':').collect();
            let [source, _, "ro"] = parts.as_slice() else { panic!("{front}: {volume}") };
            assert!(path(source).is_file(), "{front}: {source}");
        }
    }
    let haproxy = yaml("haproxy.yaml");
    let lua = "./labgate.lua:/usr/local/etc/haproxy/labgate.lua:ro";
    assert!(texts(&haproxy["services"]["front"]["volumes"]).contains(&lua));
}

#[test]
fn labgate_and_its_gitlab_agree() {
    let (code, text, errors) = check(&read("labgate.toml"), &[]);
    assert_eq!(code, 0, "{errors}");
    let base = yaml("base.yaml");
    let command = texts(&base["services"]["gitlab"]["command"]).join("\n");
    let uri = "http://localhost:8080/oauth2/callback";
    assert!(text.contains(uri) && command.contains(&format!("--redirect-uri={uri}")), "{text}");
    let config: toml::Table = read("labgate.toml").parse().expect("TOML");
    let gitlab = &config["gitlab"]["development"];
    for (key, option) in [
        ("client_id", "--client-id="),
        ("client_secret", "--client-secret="),
        ("base_url", "--external-url="),
    ] {
        let line = format!("{option}{}", gitlab[key].as_str().expect("text"));
        assert!(command.lines().any(|known| known == line), "{line}");
    }
    assert_eq!(gitlab["internal_url"].as_str(), Some("http://gitlab:4181"));
    let apache = read("httpd.conf");
    assert!(apache.contains("http://labgate:4180/") && apache.contains("Listen 0.0.0.0:8080"));
}

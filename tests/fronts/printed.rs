//! What is printed for TLS, several hosts and applications elsewhere is taken by the real programs; they only read it here.

use std::{fs, path::Path, process::Command};

use super::front::tool;
use crate::support::{labgate, outcome};

const CONFIG: &str = r#"
[server]
public_url = "https://app.example.test"
trusted_proxies = ["127.0.0.0/8"]
[gitlab.main]
base_url = "https://gitlab.example.test"
client_id = "x"
[session]
keys = ["AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]
[[route]]
upstream = "http://127.0.0.1:3000"
allow = "signed-in"
[[route]]
path = "/wiki.1"
upstream = "https://localhost:3443"
allow = "signed-in"
[[route]]
host = "*.review.example.test"
allow = "signed-in"
[[route]]
host = "one.review.example.test"
path = "/docs"
upstream = "http://[::1]:81"
allow = "public"
"#;

/// What the program says to the configuration that is printed for it with these options more.
fn read(proxy: &str, root: &Path, more: &[&str]) -> Command {
    let path = |name: &str| root.join(name).to_str().expect("text").to_owned();
    fs::write(root.join("labgate.toml"), CONFIG).expect("a file");
    let key =
        rcgen::generate_simple_self_signed(["app.example.test".into()]).expect("a certificate");
    fs::write(root.join("tls.crt"), key.cert.pem()).expect("a file");
    fs::write(root.join("tls.key"), key.signing_key.serialize_pem()).expect("a file");
    // Where HAProxy looks for it.
    fs::write(root.join("tls.crt.key"), key.signing_key.serialize_pem()).expect("a file");
    let (config, lua) = (path("labgate.toml"), path("labgate.lua"));
    let print = |form: &str| {
        let line = ["front", proxy, "--config", &config, "--lua", &lua, "--as", form];
        let (code, text, errors) = outcome(&mut labgate(&[&line, more].concat(), &[]));
        assert_eq!(code, 0, "{errors}");
        text
    };
    fs::write(root.join("printed"), print("config")).expect("a file");
    let printed = path("printed");
    match proxy {
        "nginx" => {
            let main = format!(
                "pid {}; error_log stderr; events {{}} http {{ include {printed}; }}",
                path("pid")
            );
            fs::write(root.join("nginx.conf"), main).expect("a file");
            command(
                "nginx".as_ref(),
                &["-t", "-e", "stderr", "-p", &path(""), "-c", &path("nginx.conf")],
            )
        },
        "haproxy" => {
            fs::write(root.join("labgate.lua"), print("lua")).expect("a file");
            command("haproxy".as_ref(), &["-c", "-f", &printed])
        },
        "caddy" => {
            let arguments = ["validate", "--adapter", "caddyfile", "--config", &printed];
            let mut command = command(&tool("bin/caddy", "caddy"), &arguments);
            command.env("HOME", root).env("XDG_DATA_HOME", root).env("XDG_CONFIG_HOME", root);
            command
        },
        "envoy" => {
            fs::rename(root.join("printed"), root.join("printed.yaml")).expect("a file");
            let arguments =
                ["--mode", "validate", "--use-dynamic-base-id", "-c", &path("printed.yaml")];
            command(&tool("envoy/_bin/envoy", "envoy"), &arguments)
        },
        other => panic!("{other}"),
    }
}

fn command(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command.args(arguments).env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

#[test]
fn real_programs_take_tls_and_many_hosts() {
    for proxy in ["nginx", "haproxy", "caddy", "envoy"] {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        let path = |name: &str| root.join(name).to_str().expect("text").to_owned();
        let tls = ["--certificate", &path("tls.crt"), "--key", &path("tls.key")];
        for more in [&tls[..], &["--listen", "127.0.0.1:18080"]] {
            let output = read(proxy, root, more).output().expect(proxy);
            let said =
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success(), "{proxy} {more:?}: {said}");
            assert!(!said.to_lowercase().contains("[alert]"), "{proxy} {more:?}: {said}");
        }
    }
}

#[test]
fn a_form_that_a_proxy_does_not_have_is_a_mistake() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("labgate.toml");
    fs::write(&path, CONFIG).expect("a file");
    let config = path.to_str().expect("text");
    let line = ["front", "caddy", "--as", "labels", "--config", config];
    let (code, text, errors) = outcome(&mut labgate(&line, &[]));
    assert_eq!((code, text.as_str()), (2, ""));
    assert!(errors.contains("caddy has no such form; it has: config"), "{errors}");
    let (code, _, errors) = outcome(&mut labgate(&["front", "apache", "--config", config], &[]));
    assert_eq!(code, 2, "{errors}");
}

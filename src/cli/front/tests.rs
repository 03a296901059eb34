//! What is printed, for configurations that ask for all of it, and what is refused.

use clap::Parser;

use super::*;
use crate::gate::Plan;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    front: Arguments,
}

fn arguments(line: &str) -> Arguments {
    let words = ["front"].into_iter().chain(line.split_whitespace());
    Line::try_parse_from(words).unwrap().front
}

fn plan(server: &str, more: &str) -> Plan {
    let text = format!(
        r#"
        server = {{ listen = "0.0.0.0:4180", {server} }}
        gitlab.main = {{ base_url = "https://gitlab.example.com", client_id = "x" }}
        session.keys = ["AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]
        {more}
        "#
    );
    let (plan, problems) = Plan::draw(&toml::from_str(&text).unwrap(), &|_| None);
    plan.unwrap_or_else(|| panic!("{problems:#?}"))
}

const USUAL: &str = r#"public_url = "https://app.example.com", trusted_proxies = ["127.0.0.0/8"], ext_authz = "0.0.0.0:4191""#;

/// Several hosts and applications, and headers of one's own.
fn rich() -> Plan {
    plan(
        USUAL,
        r#"
        session.cookie = { name = "lab.gate" }
        identity.headers = { X-Forwarded-User = "username", X-Who-Are-You = "sub" }
        [[route]]
        upstream = "http://127.0.0.1:3000"
        allow = "signed-in"
        [[route]]
        path = "/wiki.1"
        upstream = "https://wiki.internal"
        allow = "signed-in"
        [[route]]
        host = "*.review.example.com"
        allow = "signed-in"
        [[route]]
        host = "one.review.example.com"
        path = "/docs"
        upstream = "http://[::1]:81"
        allow = "public"
        "#,
    )
}

fn text(line: &str, plan: &Plan) -> String {
    let arguments = arguments(line);
    let write = templates::of(arguments.proxy, arguments.form).unwrap();
    write(&Setup::new(plan, &arguments).unwrap()).unwrap()
}

fn refused(line: &str, plan: &Plan) -> String {
    Setup::new(plan, &arguments(line)).unwrap_err()
}

fn hints(line: &str, plan: &Plan) -> String {
    let arguments = arguments(line);
    Setup::new(plan, &arguments).unwrap().hints(plan, &arguments).join("\n")
}

/// All that can be printed.
const LINES: [&str; 13] = [
    "nginx",
    "nginx --as annotations",
    "traefik",
    "traefik --as labels",
    "traefik --as crd",
    "caddy",
    "haproxy",
    "haproxy --as lua",
    "envoy",
    "envoy --as grpc",
    "envoy --as gateway",
    "envoy --as istio",
    "envoy --as gateway-api",
];

#[test]
fn every_form_of_every_proxy_is_tried_here() {
    for proxy in Dialect::ALL {
        for form in Form::value_variants() {
            let name = form.to_possible_value().unwrap();
            let line = match form {
                Form::Config => proxy.name().to_owned(),
                _ => format!("{} --as {}", proxy.name(), name.get_name()),
            };
            let there = templates::of(proxy, *form).is_some();
            assert_eq!(there, LINES.contains(&line.as_str()), "{line}");
        }
    }
}

#[test]
fn every_identity_header_is_named_in_every_configuration() {
    let plan = rich();
    // Over gRPC the answer itself says what is set.
    for line in LINES.iter().filter(|line| !line.ends_with("lua") && !line.ends_with("grpc")) {
        let text = text(line, &plan).to_lowercase();
        for name in ["x-forwarded-user", "x-auth-request-user", "x-who-are-you"] {
            assert!(text.contains(name), "{line}: {name}\n{text}");
        }
        assert!(!text.contains("{{") && !text.contains("{%"), "{line}: {text}");
    }
    // What no answer has is removed, by name or by how it begins.
    for line in LINES.iter().filter(|line| !line.ends_with("lua")) {
        let text = text(line, &plan).to_lowercase();
        for name in ["webauth", "remote", "x-labgate"] {
            let folded = name.replace('-', "[^a-z0-9]");
            assert!(text.contains(name) || text.contains(&folded), "{line}: {name}\n{text}");
        }
    }
}

#[test]
fn what_should_be_yaml_is_yaml() {
    let plan = rich();
    for line in LINES {
        let is_yaml =
            line.contains("envoy") || line.contains("traefik") || line.contains("annotations");
        for more in ["", " --listen 127.0.0.1:8080", " --upstream http://a.example:1"] {
            let text = text(&format!("{line}{more}"), &plan);
            for document in text.split("\n---\n").filter(|_| is_yaml) {
                let parsed: Result<serde_json::Value, _> = serde_saphyr::from_str(document);
                assert!(parsed.is_ok(), "{line}{more}: {parsed:?}\n{document}");
            }
        }
    }
}

#[test]
fn paths_lead_where_labgates_own_table_leads() {
    let setup = Setup::new(&rich(), &arguments("nginx")).unwrap();
    let told: Vec<_> = setup
        .sites
        .iter()
        .flat_map(|site| {
            let host = site.host.to_string();
            site.paths.iter().map(move |leads| (host.clone(), leads.path.clone(), leads.app))
        })
        .map(|(host, path, app)| format!("{host}{path} {}", setup.apps[app].url()))
        .collect();
    assert_eq!(
        told,
        [
            "app.example.com/wiki.1 https://wiki.internal:443",
            "app.example.com/ http://127.0.0.1:3000",
            // The routes of any host are behind those of the host and of its pattern.
            "one.review.example.com/docs http://[::1]:81",
            "one.review.example.com/ http://127.0.0.1:3000",
            "*.review.example.com/ http://127.0.0.1:3000",
        ]
    );
    let nginx = text("nginx", &rich());
    assert!(
        nginx.contains(r#""~^app\.example\.com/wiki\.1(?:/|$)" "https://labgate_app2";"#),
        "{nginx}"
    );
    assert!(nginx.contains(r#""~^[^.]+\.review\.example\.com/" "#), "{nginx}");
    assert!(nginx.contains(r"(?:__Host-|__Secure-)?lab\.gate(?:-attempt[^=; ]*)?="), "{nginx}");
}

#[test]
fn the_host_where_everybody_signs_in_is_served_without_a_route() {
    let server = format!("{USUAL}, sign_in_host = \"auth.example.com\"");
    let route = "[[route]]\nhost = \"*.review.example.com\"\nupstream = \"http://a.example\"\nallow = \"signed-in\"\n";
    let plan = plan(&server, route);
    for line in LINES.iter().filter(|line| !line.ends_with("lua")) {
        // HAProxy serves whatever host there is.
        let expected = *line != "haproxy";
        assert_eq!(text(line, &plan).contains("auth.example.com"), expected, "{line}");
    }
}

#[test]
fn what_a_proxy_can_not_tell_apart_is_refused() {
    let route = |path: &str, methods: &str, upstream: &str| {
        format!(
            "[[route]]\npath = \"{path}\"\n{methods}\nupstream = \"{upstream}\"\nallow = \"signed-in\"\n"
        )
    };
    let (one, other, get) = ("http://127.0.0.1:1", "http://127.0.0.1:2", "methods = [\"GET\"]");
    for (routes, refused_by) in [
        (route("/a", get, one) + &route("/", "", other), true),
        (route("/a", get, one) + &route("/a", "methods = [\"PUT\"]", other), true),
        (route("/a", get, one) + &route("/", "", one), false),
        (route("/a", get, one) + &route("/b", "", other), false),
        (route("/a", "", one) + &route("/", get, other), false),
    ] {
        let result = Setup::new(&plan(USUAL, &routes), &arguments("caddy"));
        assert_eq!(result.is_err(), refused_by, "{routes}: {result:?}");
    }
    for (path, is_plain) in [
        ("/a-b_c.d~e@f+g", true),
        ("/a$b", false),
        ("/a'b", false),
        ("/{a}", false),
        ("/`a`", false),
    ] {
        let routes = route(path, "", one) + &route("/", "", other);
        let result = Setup::new(&plan(USUAL, &routes), &arguments("caddy"));
        assert_eq!(result.is_ok(), is_plain, "{path}: {result:?}");
    }
    let odd = "identity.headers = { X_Who = \"username\" }\n".to_owned() + &route("/", "", one);
    assert!(refused("nginx", &plan(USUAL, &odd)).contains("x_who"));
}

#[test]
fn options_are_places_and_plain_paths() {
    let plan = rich();
    for line in [
        "nginx --labgate 4180",
        "nginx --labgate labgate",
        "nginx --labgate http://labgate:4180",
        "nginx --labgate labgate:4180/x",
        "nginx --listen 127.0.0.1",
        "haproxy --lua /etc/ha;proxy.lua",
        "nginx --certificate /a$b --key /c",
        "nginx --upstream localhost",
        "nginx --upstream http://app/path",
    ] {
        let reason = refused(line, &plan);
        assert!(reason.starts_with("--"), "{line}: {reason}");
    }
    for (line, words) in [
        ("nginx --labgate [::1]:4180", "server [::1]:4180;"),
        ("nginx --labgate labgate:80", "server labgate:80;"),
        ("nginx --certificate /tls/a.pem --key /tls/a.key", "ssl_certificate_key /tls/a.key;"),
        ("nginx", "listen 0.0.0.0:443 ssl;"),
        ("nginx --listen 127.0.0.1:8080", "listen 127.0.0.1:8080;    # in the clear"),
        ("caddy", "https://app.example.com:443 {"),
        ("envoy --as gateway --labgate gate.tools.svc:4180", "namespace: tools"),
    ] {
        let text = text(line, &plan);
        assert!(text.contains(words), "{line}: {text}");
    }
}

#[test]
fn hints_tell_what_would_not_work() {
    let route = "[[route]]\nupstream = \"http://127.0.0.1:1\"\nallow = \"signed-in\"\n";
    let plain = r#"public_url = "https://app.example.com""#;
    assert!(hints("nginx", &plan(plain, route)).contains("`server.trusted_proxies` is empty"));
    let elsewhere = format!("{plain}, trusted_proxies = [\"10.0.0.0/8\"]");
    assert!(hints("nginx", &plan(&elsewhere, route)).contains("not in `server.trusted_proxies`"));
    let far = hints("nginx --labgate 10.0.0.1:4180", &plan(&elsewhere, route));
    assert!(!far.contains("trusted_proxies"), "{far}");
    let usual = hints("nginx --listen 127.0.0.1:80", &plan(USUAL, route));
    assert!(!usual.contains("CHANGE") && !usual.contains("trusted"), "{usual}");
    let nowhere = plan(USUAL, "[[route]]\nallow = \"signed-in\"\n");
    assert!(hints("nginx", &nowhere).contains("--upstream"));
    assert!(!hints("nginx --upstream http://app:1", &nowhere).contains("--upstream"));
    assert!(text("nginx", &nowhere).contains("# CHANGE: where the application is"));
}

#[test]
fn asking_over_grpc_needs_the_listener() {
    let route = "[[route]]\nupstream = \"http://a.example\"\nallow = \"signed-in\"\n";
    let plan = plan(r#"public_url = "https://app.example.com""#, route);
    assert!(refused("envoy --as grpc", &plan).contains("`server.ext_authz`"));
}

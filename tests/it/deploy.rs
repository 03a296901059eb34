//! The files in `deploy/` and the Dockerfile: each is parsed, its `labgate.toml` loaded, and what two of them both say must agree.
//!
//! What only a cluster, a container engine or systemd could show is left to the READMEs beside the files; `tests/image` builds the image.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use labgate::config::{Config, Secret};
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The configuration that `text` is, without a single problem.
fn load_config(text: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labgate.toml");
    fs::write(&path, text).unwrap();
    let (_, config, problems) = labgate::config::load(Some(path), &BTreeMap::new());
    assert!(problems.is_empty(), "{problems:?}\n{text}");
    config.expect("a configuration without problems is there")
}

/// The files that the configuration takes secrets from.
fn secret_files(config: &Config) -> BTreeSet<PathBuf> {
    let clients = config.gitlab.values().filter_map(|gitlab| gitlab.client_secret.as_ref());
    let secrets = clients.chain(&config.session.keys);
    let file = |secret: &Secret| match secret {
        Secret::File(path) => Some(path.clone()),
        Secret::Inline(_) | Secret::Env(_) => None,
    };
    secrets.filter_map(file).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

fn named<'a>(values: &'a Value, name: &str) -> &'a Value {
    let found = list(values).iter().find(|value| value["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {values}"))
}

/// Seconds of a span such as `45s`.
fn seconds(span: &str) -> u64 {
    let number = span.strip_suffix('s').unwrap_or_else(|| panic!("{span} is not in seconds"));
    number.parse().unwrap()
}

mod kubernetes {
    use super::*;

    const FOLDER: &str = "deploy/kubernetes";

    fn manifest(name: &str) -> Value {
        yaml(&format!("{FOLDER}/{name}.yaml"))
    }

    fn config() -> Config {
        load_config(text(&manifest("configmap")["data"]["labgate.toml"]))
    }

    fn pod() -> Value {
        manifest("deployment")["spec"]["template"]["spec"].clone()
    }

    fn sidecar() -> Value {
        named(&pod()["initContainers"], "labgate").clone()
    }

    #[test]
    fn kustomization_names_every_manifest() {
        let listed = manifest("kustomization")["resources"].clone();
        let listed: BTreeSet<String> = list(&listed).iter().map(|name| text(name).into()).collect();
        let entries = fs::read_dir(root().join(FOLDER)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let there: BTreeSet<String> = names
            .filter(|name| {
                Path::new(name).extension().is_some_and(|kind| kind == "yaml")
                    && name != "kustomization.yaml"
            })
            .collect();
        assert_eq!(listed, there);
        for name in listed {
            let manifest = yaml(&format!("{FOLDER}/{name}"));
            assert!(manifest["apiVersion"].is_string() && manifest["kind"].is_string(), "{name}");
        }
    }

    #[test]
    fn labgate_is_a_native_sidecar_that_may_do_nothing() {
        let sidecar = sidecar();
        assert_eq!(sidecar["restartPolicy"], "Always", "without it, this is an init container");
        let security = &sidecar["securityContext"];
        assert_eq!(security["runAsNonRoot"], true);
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]));
        assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
        assert!(sidecar["resources"]["limits"]["memory"].is_string());
        assert_eq!(pod()["automountServiceAccountToken"], false);
    }

    #[test]
    fn probes_ask_from_inside_for_admin_is_on_loopback() {
        assert!(config().server.admin.ip().is_loopback());
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let command = &sidecar()[probe]["exec"]["command"];
            assert_eq!(*command, serde_json::json!(["/labgate", "health"]), "{probe}");
        }
    }

    #[test]
    fn the_only_way_in_is_labgates_port() {
        let config = config();
        let port = config.server.listen.port();
        assert!(!config.server.listen.ip().is_loopback(), "a pod's port is asked from outside");
        assert_eq!(sidecar()["ports"][0]["containerPort"], port);
        assert_eq!(manifest("service")["spec"]["ports"][0]["targetPort"], port);
        let policy = manifest("networkpolicy")["spec"].clone();
        assert_eq!(policy["policyTypes"], serde_json::json!(["Ingress"]));
        assert_eq!(list(&policy["ingress"]).len(), 1);
        assert_eq!(list(&policy["ingress"][0]["ports"]).len(), 1);
        assert_eq!(policy["ingress"][0]["ports"][0]["port"], port);

        let app = &pod()["containers"][0];
        assert!(app["ports"].is_null(), "the application shows no port");
        for route in &config.route {
            let upstream = route.upstream.as_deref().expect("a sidecar forwards");
            let address = upstream.strip_prefix("http://").unwrap();
            assert!(address.starts_with("127.0.0.1:"), "{address}");
            assert!(
                app["args"].to_string().contains(address),
                "the application listens at {address}"
            );
        }
    }

    #[test]
    fn selectors_select_the_pod() {
        let labels = manifest("deployment")["spec"]["template"]["metadata"]["labels"].clone();
        assert!(labels.is_object());
        assert_eq!(manifest("deployment")["spec"]["selector"]["matchLabels"], labels);
        assert_eq!(manifest("service")["spec"]["selector"], labels);
        assert_eq!(manifest("networkpolicy")["spec"]["podSelector"]["matchLabels"], labels);
    }

    #[test]
    fn every_secret_that_the_configuration_names_is_mounted() {
        let (pod, secret) = (pod(), manifest("secret"));
        let volume = named(&pod["volumes"], "labgate-secrets");
        assert_eq!(volume["secret"]["secretName"], secret["metadata"]["name"]);
        let sidecar = sidecar();
        let mount =
            Path::new(text(&named(&sidecar["volumeMounts"], "labgate-secrets")["mountPath"]));
        let keys = secret["stringData"].as_object().unwrap();
        let there: BTreeSet<PathBuf> = keys.keys().map(|key| mount.join(key)).collect();
        assert_eq!(secret_files(&config()), there);

        let map = manifest("configmap");
        assert_eq!(
            named(&pod["volumes"], "labgate-config")["configMap"]["name"],
            map["metadata"]["name"]
        );
        let folder = named(&sidecar["volumeMounts"], "labgate-config");
        assert_eq!(folder["mountPath"], "/etc/labgate", "where labgate looks by itself");
    }

    #[test]
    fn the_placeholder_is_no_key() {
        let secret = manifest("secret");
        let key = text(&secret["stringData"]["session.key"]);
        assert!(session_key(key).is_none(), "a key that everybody knows must not start");
    }

    #[test]
    fn the_pod_waits_for_the_drain() {
        let pod = pod();
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        let pause =
            pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
        let timeouts = config().server.timeouts;
        let needed = Duration::from_secs(pause) + timeouts.drain_delay + timeouts.drain;
        assert!(Duration::from_secs(grace) > needed, "{grace} s, {needed:?} needed");
    }
}

/// The bytes of a session key, if that is what `text` is.
fn session_key(text: &str) -> Option<[u8; 32]> {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

mod compose {
    use super::*;

    /// A compose file and the configuration that its labgate mounts.
    fn setup(file: &str) -> (Value, Config) {
        let compose = yaml(&format!("deploy/compose/{file}"));
        let labgate = &compose["services"]["labgate"];
        let mounts = list(&labgate["volumes"]).iter().map(text);
        let suffix = ":/etc/labgate/labgate.toml:ro";
        let sources: Vec<&str> = mounts.filter_map(|mount| mount.strip_suffix(suffix)).collect();
        let [source] = sources.as_slice() else { panic!("one labgate.toml, not {sources:?}") };
        let config = load_config(&read(&format!("deploy/compose/{source}")));
        (compose, config)
    }

    /// The networks of a service; compose puts a service without any into `default`.
    fn networks(service: &Value) -> BTreeSet<&str> {
        match list(&service["networks"]) {
            [] => ["default"].into(),
            some => some.iter().map(text).collect(),
        }
    }

    /// Host and port of each place that the configuration forwards to.
    fn upstreams(config: &Config) -> Vec<(String, u16)> {
        let target =
            |name: &str| config.upstream.get(name).and_then(|upstream| upstream.url.clone());
        let of = |name: &str| target(name).unwrap_or_else(|| name.parse().unwrap());
        let names = config.route.iter().filter_map(|route| route.upstream.as_deref());
        let urls = names.map(of);
        urls.map(|url| (url.host_str().unwrap().into(), url.port_or_known_default().unwrap()))
            .collect()
    }

    #[test]
    fn services_are_reached_through_labgate_only() {
        for file in ["compose.yaml", "compose.try.yaml"] {
            let (compose, config) = setup(file);
            let labgate = &compose["services"]["labgate"];
            for (host, _) in upstreams(&config) {
                let service = &compose["services"][host.as_str()];
                assert!(service.is_object(), "{file}: no service {host}");
                assert!(service["ports"].is_null(), "{file}: {host} publishes a port");
                let shared = networks(service).intersection(&networks(labgate)).count();
                assert!(shared > 0, "{file}: labgate shares no network with {host}");
            }
            assert!(!upstreams(&config).is_empty());
        }
    }

    #[test]
    fn ports_are_published_to_this_machine_only() {
        for file in ["compose.yaml", "compose.try.yaml"] {
            let (compose, config) = setup(file);
            let services = compose["services"].as_object().unwrap();
            for (name, service) in services {
                for port in list(&service["ports"]).iter().map(text) {
                    assert!(port.starts_with("127.0.0.1:"), "{file}: {name} publishes {port}");
                }
            }
            let port = config.server.listen.port();
            let published = text(&services["labgate"]["ports"][0]);
            assert!(published.ends_with(&format!(":{port}")), "{file}: {published}");
        }
    }

    #[test]
    fn labgate_may_write_nowhere_and_has_time_to_drain() {
        for file in ["compose.yaml", "compose.try.yaml"] {
            let (compose, _) = setup(file);
            let labgate = &compose["services"]["labgate"];
            assert_eq!(labgate["read_only"], true, "{file}");
            assert_eq!(labgate["cap_drop"], serde_json::json!(["ALL"]), "{file}");
            assert_eq!(
                labgate["security_opt"],
                serde_json::json!(["no-new-privileges:true"]),
                "{file}"
            );
        }
        let (compose, config) = setup("compose.yaml");
        let grace = text(&compose["services"]["labgate"]["stop_grace_period"]);
        assert!(Duration::from_secs(seconds(grace)) > config.server.timeouts.drain);
    }

    #[test]
    fn every_secret_of_the_front_door_is_declared_and_handed_over() {
        let (compose, config) = setup("compose.yaml");
        let declared = compose["secrets"].as_object().unwrap();
        let labgate = &compose["services"]["labgate"];
        let handed = list(&labgate["secrets"]).iter().map(text);
        let there: BTreeSet<PathBuf> = handed
            .inspect(|name| assert!(declared.contains_key(*name), "{name}"))
            .map(|name| Path::new("/run/secrets").join(name))
            .collect();
        assert_eq!(secret_files(&config), there);
        assert!(config.gitlab.values().all(|gitlab| !gitlab.insecure_allow_development_gitlab));
    }

    #[test]
    fn the_development_gitlab_knows_its_options() {
        let (compose, _) = setup("compose.try.yaml");
        let words: Vec<&str> =
            list(&compose["services"]["gitlab"]["command"]).iter().map(text).collect();
        let labgate = env!("CARGO_BIN_EXE_labgate");
        let help = std::process::Command::new(labgate).args([words[0], "--help"]).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        for word in &words[1..] {
            let option = word.split('=').next().unwrap();
            assert!(help.contains(&format!("{option} ")), "{option} is unknown:\n{help}");
        }
    }

    #[test]
    fn both_addresses_of_the_development_gitlab_agree() {
        let (compose, config) = setup("compose.try.yaml");
        let gitlab = &config.gitlab["development"];
        assert!(gitlab.insecure_allow_development_gitlab);
        let service = &compose["services"]["gitlab"];
        let option = |name: &str| {
            let words = list(&service["command"]).iter().map(text);
            let mut values = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            values.next().unwrap_or_else(|| panic!("no {name}")).to_owned()
        };
        let bare = |url: &str| url.trim_end_matches('/').to_owned();

        // For browsers: a port published here, and what the tokens say.
        assert_eq!(bare(gitlab.base_url.as_str()), option("--external-url"));
        assert_eq!(gitlab.base_url.host_str(), Some("localhost"));
        let listen: std::net::SocketAddr = option("--listen").parse().unwrap();
        let published = gitlab.base_url.port().unwrap();
        assert_eq!(text(&service["ports"][0]), format!("127.0.0.1:{published}:{}", listen.port()));
        // For labgate: the service's name, in the network that both are in.
        let inside = gitlab.internal_url.as_ref().unwrap();
        assert_eq!((inside.host_str(), inside.port()), (Some("gitlab"), Some(listen.port())));

        let public = config.server.public_url.as_ref().unwrap();
        let callback = format!("{}{}/callback", bare(public.as_str()), config.server.prefix);
        assert_eq!(option("--redirect-uri"), callback);
        assert_eq!(option("--client-id"), gitlab.client_id);
        let secret = gitlab.client_secret.as_ref().unwrap().read(&|_| None).unwrap();
        assert_eq!(option("--client-secret"), *secret);
        let key = config.session.keys[0].read(&|_| None).unwrap();
        assert!(session_key(&key).is_some(), "the try-out starts with the key it has");
    }
}

mod systemd {
    use super::*;

    /// The settings of the unit, in order.
    fn settings() -> Vec<(String, String)> {
        let unit = read("deploy/systemd/labgate.service");
        let lines = unit.lines().filter(|line| !line.starts_with(['#', '[']) && !line.is_empty());
        let pair = |line: &str| {
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
            (key.to_owned(), value.to_owned())
        };
        lines.map(pair).collect()
    }

    fn setting(key: &str) -> String {
        let found = settings().into_iter().find(|(name, _)| name == key);
        found.unwrap_or_else(|| panic!("no {key}")).1
    }

    fn config() -> Config {
        load_config(&read("deploy/systemd/labgate.toml"))
    }

    #[test]
    fn credentials_are_what_the_configuration_reads() {
        let settings = settings();
        let loaded = settings.iter().filter(|(key, _)| key == "LoadCredential");
        let name = |value: &str| value.split_once(':').unwrap().0.to_owned();
        let folder = Path::new("/run/credentials/labgate.service");
        let there: BTreeSet<PathBuf> = loaded.map(|(_, value)| folder.join(name(value))).collect();
        assert_eq!(secret_files(&config()), there);
    }

    #[test]
    fn the_unit_is_hardened_and_waits_for_the_drain() {
        for (key, value) in [
            ("DynamicUser", "yes"),
            ("NoNewPrivileges", "yes"),
            ("ProtectSystem", "strict"),
            ("CapabilityBoundingSet", ""),
            ("ExecReload", "/bin/kill -HUP $MAINPID"),
            ("KillSignal", "SIGTERM"),
            ("Restart", "on-failure"),
        ] {
            assert_eq!(setting(key), value, "{key}");
        }
        let stop = Duration::from_secs(seconds(&setting("TimeoutStopSec")));
        let timeouts = config().server.timeouts;
        assert!(stop > timeouts.drain_delay + timeouts.drain);
        assert!(setting("ExecStart").ends_with(" run --config /etc/labgate/labgate.toml"));
        assert!(config().server.listen.port() >= 1024, "or the unit needs a capability");
    }
}

mod image {
    use super::*;

    /// The last stage of the Dockerfile, a line an instruction.
    fn last_stage() -> Vec<String> {
        let file = read("Dockerfile").replace("\\\n", " ");
        let lines: Vec<String> = file.lines().map(str::to_owned).collect();
        let start = lines.iter().rposition(|line| line.starts_with("FROM ")).unwrap();
        lines[start..].to_vec()
    }

    #[test]
    fn the_image_is_empty_but_for_labgate_and_not_root() {
        let stage = last_stage();
        assert_eq!(stage[0], "FROM scratch");
        let has = |wanted: &str| {
            assert!(stage.iter().any(|line| line == wanted), "{wanted}: {stage:?}");
        };
        has("ENTRYPOINT [\"/labgate\"]");
        let check = stage.iter().find(|line| line.starts_with("HEALTHCHECK ")).unwrap();
        assert!(check.ends_with("CMD [\"/labgate\", \"health\"]"), "{check}");
        let user = stage.iter().find_map(|line| line.strip_prefix("USER ")).unwrap();
        let (user, group) = user.split_once(':').unwrap();
        assert!(user.parse::<u32>().unwrap() > 0 && group.parse::<u32>().unwrap() > 0);
    }

    #[test]
    fn the_builder_has_the_pinned_toolchain() {
        let pinned: toml::Table = read("rust-toolchain.toml").parse().unwrap();
        let channel = pinned["toolchain"]["channel"].as_str().unwrap();
        let builder = format!("ARG BUILDER=rust:{channel}-bookworm");
        assert!(read("Dockerfile").lines().any(|line| line == builder), "{builder}");
    }

    #[test]
    fn the_build_has_the_settings_of_the_templates() {
        assert!(root().join("askama.toml").exists());
        assert!(read("Dockerfile").lines().any(|line| line == "COPY askama.toml ./"));
    }

    #[test]
    fn the_context_holds_what_is_copied() {
        let allowed = read(".dockerignore");
        let file = read("Dockerfile");
        let copies = file.lines().filter_map(|line| line.strip_prefix("COPY "));
        for copy in copies.filter(|copy| !copy.starts_with("--from")) {
            let words: Vec<&str> = copy.split_whitespace().collect();
            for source in &words[..words.len() - 1] {
                assert!(allowed.lines().any(|line| line == format!("!{source}")), "{source}");
                assert!(root().join(source).exists(), "{source}");
            }
        }
    }
}

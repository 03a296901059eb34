//! A running front proxy, on the configuration that `labgate front` printed.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::traefik::Peer;
use crate::support::{Daemon, free, labgate, outcome};

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Caddy,
    /// Debian's, of 2022.
    OldCaddy,
    Haproxy,
    Envoy,
    /// Envoy, asking over gRPC.
    EnvoyGrpc,
    /// The peer that stands in for it.
    Traefik,
    /// In reverse-proxy shape, with the file in `deploy/compose`.
    Apache,
}

/// A running front proxy.
pub struct Front {
    pub addr: SocketAddr,
    runs: Runs,
    _directory: TempDir,
}

enum Runs {
    Daemon(Daemon),
    Peer { _ends: Peer },
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Caddy | Self::OldCaddy => "caddy",
            Self::Haproxy => "haproxy",
            Self::Envoy | Self::EnvoyGrpc => "envoy",
            Self::Traefik => "traefik",
            Self::Apache => "apache",
        }
    }

    /// Whether the application is spared labgate's cookie.
    pub fn keeps_the_cookie(self) -> bool {
        self != Self::Traefik
    }

    /// Whether an answer of labgate's that lets pass brings no cookie to the browser.
    pub fn loses_cookies(self) -> bool {
        !matches!(self, Self::Apache | Self::EnvoyGrpc)
    }

    /// Whether names with any sign in place of `-` are stripped, not only with `_`.
    pub fn strips_any_sign(self) -> bool {
        self != Self::Traefik
    }

    /// Whether a refusal comes before the body of the request has.
    pub fn answers_early(self) -> bool {
        self != Self::Apache
    }

    /// Whether all names are stripped that begin like a well-known one.
    pub fn strips_by_beginning(self) -> bool {
        !matches!(self, Self::Nginx | Self::Traefik)
    }

    /// Whether browsers see labgate's own page when GitLab has been silent for too long.
    pub fn shows_outages(self) -> bool {
        self != Self::Envoy
    }
}

impl Front {
    /// Starts it before the labgate at `labgate`, whose configuration is `config`.
    pub async fn start(kind: Kind, config: &str, labgate: SocketAddr) -> Self {
        Self::start_at(kind, config, labgate, free()).await
    }

    /// The same, listening on `addr`.
    pub async fn start_at(kind: Kind, config: &str, labgate: SocketAddr, addr: SocketAddr) -> Self {
        Self::edited(kind, config, labgate, addr, str::to_owned).await
    }

    /// The same, with what was printed changed by `edit`.
    pub async fn edited(
        kind: Kind,
        config: &str,
        labgate: SocketAddr,
        addr: SocketAddr,
        edit: fn(&str) -> String,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        fs::write(root.join("labgate.toml"), config).expect("a file");
        let print = |more: &[&str]| edit(&printed(root, kind, labgate, addr, more));
        let mut command = match kind {
            Kind::Nginx => nginx(root, &print(&[])),
            Kind::Caddy => caddy(&tool("bin/caddy", "caddy"), root, &print(&[])),
            Kind::OldCaddy => caddy("caddy".as_ref(), root, &print(&[])),
            Kind::Haproxy => haproxy(root, &print(&[]), &print(&["--as", "lua"])),
            Kind::Envoy => envoy(root, &print(&[])),
            Kind::EnvoyGrpc => envoy(root, &print(&["--as", "grpc"])),
            Kind::Apache => super::apache::command(root, labgate, addr),
            Kind::Traefik => {
                let peer = Peer::start(&print(&[]), addr).await;
                return Self { addr, runs: Runs::Peer { _ends: peer }, _directory: directory };
            },
        };
        let mut daemon = Daemon::start(&mut command, root.join("log"));
        assert!(daemon.listens(addr).await, "{}", daemon.said());
        Self { addr, runs: Runs::Daemon(daemon), _directory: directory }
    }

    /// What it has said.
    pub fn said(&self) -> String {
        match &self.runs {
            Runs::Daemon(daemon) => daemon.said(),
            Runs::Peer { .. } => String::new(),
        }
    }
}

/// What `labgate front` prints for the configuration in `root`.
fn printed(root: &Path, kind: Kind, at: SocketAddr, listen: SocketAddr, more: &[&str]) -> String {
    let path = |name: &str| root.join(name).to_str().expect("text").to_owned();
    let (config, lua) = (path("labgate.toml"), path("labgate.lua"));
    let (at, listen) = (at.to_string(), listen.to_string());
    let options = ["--config", &config, "--labgate", &at, "--listen", &listen, "--lua", &lua];
    let arguments = [&["front", kind.name()], &options[..], more].concat();
    let (code, text, errors) = outcome(&mut labgate(&arguments, &[]));
    assert_eq!(code, 0, "{errors}");
    text
}

/// A program from Debian, or from what `tests/run` brings from `PyPI`.
pub fn tool(path: &str, name: &str) -> PathBuf {
    let brought = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools").join(path);
    if brought.exists() { brought } else { name.into() }
}

fn write(root: &Path, name: &str, text: &str) -> PathBuf {
    let path = root.join(name);
    fs::write(&path, text).expect("a file");
    path
}

fn nginx(root: &Path, text: &str) -> Command {
    write(root, "labgate.conf", text);
    let main = format!(
        "daemon off; master_process off; pid {root}/pid; error_log stderr notice; worker_processes 1;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p;\n\
         fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n\
         include {root}/labgate.conf; }}\n",
        root = root.display(),
    );
    let mut command = Command::new("nginx");
    command.arg("-p").arg(root).arg("-e").arg("stderr").arg("-c");
    command.arg(write(root, "nginx.conf", &main));
    command
}

fn caddy(program: &Path, root: &Path, text: &str) -> Command {
    let mut command = Command::new(program);
    command.arg("run").arg("--adapter").arg("caddyfile").arg("--config");
    command.arg(write(root, "Caddyfile", text));
    // Its own files and its admin socket go elsewhere than a person's.
    command.env("HOME", root).env("XDG_DATA_HOME", root).env("XDG_CONFIG_HOME", root);
    command.env("CADDY_ADMIN", format!("unix/{}", root.join("admin.sock").display()));
    command
}

fn haproxy(root: &Path, text: &str, script: &str) -> Command {
    write(root, "labgate.lua", script);
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(write(root, "haproxy.cfg", text));
    command
}

fn envoy(root: &Path, text: &str) -> Command {
    let mut command = Command::new(tool("envoy/_bin/envoy", "envoy"));
    command.args(["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning", "-c"]);
    command.arg(write(root, "envoy.yaml", text));
    command
}

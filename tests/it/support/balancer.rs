//! A real load balancer before several labgates, which hands requests to each in turn and knows no stickiness.

use std::{net::SocketAddr, process::Command};

use tempfile::TempDir;

use super::daemon::{Daemon, free};

/// A running nginx or `HAProxy`.
#[derive(Debug)]
pub struct Balancer {
    pub addr: SocketAddr,
    _daemon: Daemon,
    _directory: TempDir,
}

impl Balancer {
    /// An nginx that keeps connections open and asks the next one when one is gone.
    pub async fn nginx(labgates: &[SocketAddr]) -> Self {
        let (directory, addr) = (tempfile::tempdir().expect("a directory"), free());
        let servers: Vec<_> =
            labgates.iter().map(|addr| format!("server {addr} max_fails=0;")).collect();
        let config = format!(
            "daemon off; master_process off; pid {root}/pid; error_log stderr; worker_processes 1;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p;\n\
             fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n\
             upstream labgates {{ {servers} keepalive 32; }}\n\
             server {{ listen {addr} backlog=4096; location / {{ proxy_pass http://labgates;\n\
             proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $http_host;\n\
             proxy_connect_timeout 2s; }} }} }}\n",
            root = directory.path().display(),
            servers = servers.join(" "),
        );
        let path = directory.path().join("nginx.conf");
        std::fs::write(&path, config).expect("a file");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(directory.path()).arg("-e").arg("stderr").arg("-c").arg(path);
        Self::run(&mut command, addr, directory).await
    }

    /// An `HAProxy` that asks only those whose `/readyz`, on the second address, is green.
    pub async fn haproxy(labgates: &[(SocketAddr, SocketAddr)]) -> Self {
        let (directory, addr) = (tempfile::tempdir().expect("a directory"), free());
        let servers: Vec<_> = labgates
            .iter()
            .enumerate()
            .map(|(number, (addr, admin))| {
                format!(
                    "  server labgate{number} {addr} check addr 127.0.0.1 port {}",
                    admin.port()
                )
            })
            .collect();
        let servers = servers.join("\n");
        let config = format!(
            "global\n  maxconn 4000\ndefaults\n  mode http\n  timeout connect 2s\n  timeout client 60s\n\
             \x20 timeout server 60s\n  retries 3\n  option redispatch\n  retry-on conn-failure empty-response\n\
             frontend all\n  bind {addr}\n  default_backend labgates\n\
             backend labgates\n  balance roundrobin\n  option httpchk GET /readyz\n\
             \x20 default-server inter 100ms fall 1 rise 1\n{servers}\n"
        );
        let path = directory.path().join("haproxy.cfg");
        std::fs::write(&path, config).expect("a file");
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(path);
        Self::run(&mut command, addr, directory).await
    }

    async fn run(command: &mut Command, addr: SocketAddr, directory: TempDir) -> Self {
        let mut daemon = Daemon::start(command, directory.path().join("log"));
        assert!(daemon.listens(addr).await, "{}", daemon.said());
        Self { addr, _daemon: daemon, _directory: directory }
    }
}

//! A real `redis-server`, alone, as a trio with sentinels or as a cluster, with the troubles that it can have; and a listener that only
//! looks like one.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use super::{
    daemon::{Daemon, free},
    process::appears,
};

/// One server on a port that it keeps over restarts.
#[derive(Debug)]
pub struct Redis {
    directory: TempDir,
    addr: SocketAddr,
    more: Vec<String>,
    access: Access,
    daemon: Option<Daemon>,
}

/// How clients get in.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Access {
    Open,
    Password,
    User,
    Tls,
}

/// The password of a server that has one; with signs that a URL must escape.
pub const PASSWORD: &str = "pass/word@1";
/// The same as part of a URL.
const ESCAPED: &str = "pass%2Fword%401";

impl Redis {
    /// One that lets everybody in, and keeps its data over a restart.
    pub async fn start() -> Self {
        Self::with(Access::Open, &[]).await
    }

    /// One that asks for [`PASSWORD`].
    pub async fn with_password() -> Self {
        Self::with(Access::Password, &["--requirepass", PASSWORD]).await
    }

    /// One that speaks TLS alone, with a certificate of its own for 127.0.0.1 and localhost.
    pub async fn with_tls() -> Self {
        Self::with(Access::Tls, &["--tls-auth-clients", "no"]).await
    }

    /// One that lets in the user `labgate` alone, with [`PASSWORD`] and no more than these rights.
    pub async fn with_rights(rights: &str) -> Self {
        let user = format!("labgate on >{PASSWORD} {rights}");
        let mut words = vec!["--user", "default", "off", "--user"];
        words.extend(user.split(' '));
        Self::with(Access::User, &words).await
    }

    async fn with(access: Access, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let more = more.iter().map(|&word| word.to_owned()).collect();
        let mut redis = Self { directory, addr: free(), more, access, daemon: None };
        redis.run().await;
        redis
    }

    /// Where it listens.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The value of `store` in `[session]`.
    pub fn store(&self) -> String {
        let (addr, port) = (self.addr, self.addr.port());
        match self.access {
            Access::Open => format!("{{ redis = \"redis://{addr}/0\" }}"),
            Access::Password => format!("{{ redis = \"redis://:{ESCAPED}@{addr}/0\" }}"),
            Access::User => format!("{{ redis = \"redis://labgate:{ESCAPED}@{addr}/0\" }}"),
            Access::Tls => {
                let ca = self.file("ca.pem");
                format!("{{ redis = \"rediss://localhost:{port}\", ca = \"{}\" }}", ca.display())
            },
        }
    }

    /// The value of `store` that names its socket in the file system.
    pub fn store_by_socket(&self) -> String {
        format!("{{ redis = \"unix://{}\" }}", self.file("socket").display())
    }

    /// It takes no more writes, or takes them again.
    pub fn set_full(&self, full: bool) {
        let most = if full { "1" } else { "0" };
        assert_eq!(self.cli(&["config", "set", "maxmemory", most]), "OK");
    }

    /// It answers nobody, without closing a connection, until [`Self::resume`].
    pub fn pause(&self) {
        self.daemon().signal("STOP");
    }

    /// It answers again, late.
    pub fn resume(&self) {
        self.daemon().signal("CONT");
    }

    /// Ends it; connections to it are refused.
    pub fn stop(&mut self) {
        self.daemon = None;
    }

    /// Starts it again on the same port, with its data.
    pub async fn run(&mut self) {
        if self.access == Access::Tls && self.daemon.is_none() {
            certify(self.directory.path());
        }
        let root = self.directory.path().display();
        let mut command = server(self.directory.path());
        let port = self.addr.port().to_string();
        match self.access {
            Access::Tls => {
                command.args(["--port", "0", "--tls-port", &port]);
                command.arg("--tls-cert-file").arg(self.file("cert.pem"));
                command.arg("--tls-key-file").arg(self.file("key.pem"));
                command.arg("--tls-ca-cert-file").arg(self.file("ca.pem"));
            },
            Access::Open | Access::Password | Access::User => drop(command.args(["--port", &port])),
        }
        command.args(["--appendonly", "yes", "--unixsocket", &format!("{root}/socket")]);
        command.args(&self.more);
        self.daemon = Some(listening(&mut command, self.file("log"), self.addr).await);
        appears("an answer of Redis", async || self.is_up().then_some(())).await;
    }

    /// Starts it again on the same port, without its data.
    pub async fn run_empty(&mut self) {
        self.stop();
        // A server that was never written to has no such folder.
        drop(std::fs::remove_dir_all(self.file("appendonlydir")));
        self.run().await;
    }

    /// What `redis-cli` says to a command.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let mut command = cli(self.addr);
        match self.access {
            Access::Open => {},
            Access::Password => drop(command.env("REDISCLI_AUTH", PASSWORD)),
            Access::User => {
                command.env("REDISCLI_AUTH", PASSWORD).args(["--user", "labgate"]);
            },
            Access::Tls => drop(command.arg("--tls").arg("--cacert").arg(self.file("ca.pem"))),
        }
        said(command.args(arguments))
    }

    /// The names of everything that it keeps.
    pub fn keys(&self) -> Vec<String> {
        self.cli(&["--scan"]).lines().map(str::to_owned).collect()
    }

    fn is_up(&self) -> bool {
        // One that may not say so is up as well.
        let said = self.cli(&["ping"]);
        said == "PONG" || said.starts_with("NOPERM")
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("it runs")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// One master and two replicas, which ask for [`PASSWORD`], watched by three sentinels under the name `mymaster`.
#[derive(Debug)]
pub struct Sentinels {
    _directory: TempDir,
    servers: Vec<(SocketAddr, Option<Daemon>)>,
    watchers: Vec<(SocketAddr, Daemon)>,
}

impl Sentinels {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let root = |name: &str| folder(directory.path(), name);
        let master = free();
        let mut servers = Vec::new();
        for name in ["one", "two", "three"] {
            let addr = if servers.is_empty() { master } else { free() };
            let mut command = server(&root(name));
            command.args(["--port", &addr.port().to_string(), "--repl-diskless-sync-delay", "0"]);
            command.args(["--requirepass", PASSWORD, "--masterauth", PASSWORD]);
            if addr != master {
                command.args(["--replicaof", "127.0.0.1", &master.port().to_string()]);
            }
            let daemon = listening(&mut command, root(name).join("log"), addr).await;
            servers.push((addr, Some(daemon)));
        }
        let mut sentinels = Vec::new();
        for name in ["first", "second", "third"] {
            let (addr, root) = (free(), root(name));
            let config = root.join("sentinel.conf");
            let text = format!(
                "port {}\ndir {}\nsentinel monitor mymaster 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds mymaster 700\n\
                 sentinel failover-timeout mymaster 3000\nsentinel parallel-syncs mymaster 2\n\
                 sentinel auth-pass mymaster {PASSWORD}\n",
                addr.port(),
                root.display(),
                master.port(),
            );
            std::fs::write(&config, text).expect("a file");
            let mut command = Command::new("redis-server");
            let command = command.arg(&config).arg("--sentinel").arg("--bind").arg("127.0.0.1");
            sentinels.push((addr, listening(command, root.join("log"), addr).await));
        }
        let trio = Self { _directory: directory, servers, watchers: sentinels };
        appears("sentinels that know each other", async || trio.is_complete().then_some(())).await;
        trio
    }

    /// The value of `store` in `[session]`.
    pub fn store(&self) -> String {
        let hosts: Vec<_> = self.watchers.iter().map(|(addr, _)| addr.to_string()).collect();
        let hosts = hosts.join(",");
        format!("{{ redis = \"redis+sentinel://:{ESCAPED}@{hosts}/mymaster/0\" }}")
    }

    /// The master, as the first sentinel knows it.
    pub fn master(&self) -> SocketAddr {
        let told = self.ask(0, &["get-master-addr-by-name", "mymaster"]);
        let port = told.lines().nth(1).and_then(|port| port.parse().ok()).expect("a port");
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// Kills the master, and waits until all sentinels name another one.
    pub async fn fail_over(&mut self) {
        let old = self.master();
        let master = self.servers.iter_mut().find(|(addr, _)| *addr == old).expect("one of three");
        drop(master.1.take().expect("it runs"));
        appears("another master", async || {
            let new = self.master();
            let told = said(cli(new).env("REDISCLI_AUTH", PASSWORD).arg("role"));
            (new != old && told.starts_with("master")).then_some(())
        })
        .await;
    }

    fn is_complete(&self) -> bool {
        (0..3).all(|number| {
            let told = self.ask(number, &["master", "mymaster"]);
            let words: Vec<_> = told.lines().collect();
            let is = |name: &str, value: &str| words.windows(2).any(|pair| *pair == [name, value]);
            is("num-slaves", "2") && is("num-other-sentinels", "2") && is("flags", "master")
        })
    }

    fn ask(&self, number: usize, arguments: &[&str]) -> String {
        said(cli(self.watchers[number].0).arg("sentinel").args(arguments))
    }
}

/// Three masters and a replica of each.
#[derive(Debug)]
pub struct Cluster {
    _directory: TempDir,
    nodes: Vec<(SocketAddr, Option<Daemon>)>,
}

impl Cluster {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut nodes = Vec::new();
        for number in 0..6 {
            let (addr, bus) = (free(), free());
            let root = folder(directory.path(), &number.to_string());
            let mut command = server(&root);
            command.args(["--port", &addr.port().to_string(), "--cluster-enabled", "yes"]);
            command.args(["--cluster-port", &bus.port().to_string()]);
            command.args(["--cluster-node-timeout", "1500", "--repl-diskless-sync-delay", "0"]);
            let daemon = listening(&mut command, root.join("log"), addr).await;
            nodes.push((addr, Some(daemon)));
        }
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]).args(nodes.iter().map(|(addr, _)| addr.to_string()));
        let told = said(create.args(["--cluster-replicas", "1", "--cluster-yes"]));
        assert!(told.contains("All 16384 slots covered"), "{told}");
        let cluster = Self { _directory: directory, nodes };
        appears("replicas of all masters", async || {
            let nodes = said(cli(cluster.nodes[0].0).args(["cluster", "nodes"]));
            let linked = |addr: &SocketAddr| {
                let info = said(cli(*addr).args(["info", "replication"]));
                info.contains("role:master") || info.contains("master_link_status:up")
            };
            let replicas = nodes.lines().filter(|node| node.contains("slave")).count();
            (replicas == 3 && cluster.nodes.iter().all(|(addr, _)| linked(addr))).then_some(())
        })
        .await;
        cluster
    }

    /// The value of `store` in `[session]`.
    pub fn store(&self) -> String {
        let hosts: Vec<_> = self.nodes[..3].iter().map(|(addr, _)| addr.to_string()).collect();
        format!("{{ redis = \"redis+cluster://{}\" }}", hosts.join(","))
    }

    /// Kills one master, and waits until its replica has taken its place.
    pub async fn fail_over(&mut self) {
        let running = |nodes: &[(SocketAddr, Option<Daemon>)]| {
            let running = nodes.iter().filter(|(_, daemon)| daemon.is_some());
            running.map(|(addr, _)| *addr).collect::<Vec<_>>()
        };
        let victim = self
            .nodes
            .iter_mut()
            .find(|(addr, daemon)| daemon.is_some() && role(*addr) == "master");
        drop(victim.expect("a master").1.take());
        let left = running(&self.nodes);
        appears("a whole cluster", async || {
            let masters = left.iter().filter(|addr| role(**addr) == "master").count();
            let whole = |addr: &SocketAddr| {
                said(cli(*addr).args(["cluster", "info"])).contains("cluster_state:ok")
            };
            (masters == 3 && left.iter().all(whole)).then_some(())
        })
        .await;
    }

    /// The names of everything that all masters keep.
    pub fn keys(&self) -> Vec<String> {
        let running = self.nodes.iter().filter(|(_, daemon)| daemon.is_some());
        let masters = running.filter(|(addr, _)| role(*addr) == "master");
        let keys = masters.map(|(addr, _)| said(cli(*addr).arg("--scan")));
        keys.flat_map(|keys| keys.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }
}

/// Takes connections and answers everything with bytes that no Redis says.
#[derive(Debug)]
pub struct Garbage(JoinHandle<()>);

impl Garbage {
    /// In the place of a Redis that has gone.
    pub async fn at(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.expect("the port of one that has gone");
        Self(tokio::spawn(async move {
            // Ends with this task.
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut asked = [0; 4096];
                    while let Ok(1..) = stream.read(&mut asked).await {
                        for junk in JUNK {
                            drop(stream.write_all(junk).await);
                            sleep(Duration::from_millis(1)).await;
                        }
                    }
                });
            }
        }))
    }

    /// Leaves the port.
    pub async fn end(self) {
        self.0.abort();
        drop(self.0.await);
    }
}

/// Right beginnings without a right end, and no beginning at all.
const JUNK: [&[u8]; 5] = [
    b"*3\r\n$99999\r\nHTTP/1.1 200 OK\r\n",
    b"\xff\xfe\x00",
    b":not a number\r\n",
    b"!\r\n",
    b"\r\n",
];

/// `redis-server` with its files below `root`.
fn server(root: &Path) -> Command {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--dir"]).arg(root);
    command
}

async fn listening(command: &mut Command, log: PathBuf, addr: SocketAddr) -> Daemon {
    let mut daemon = Daemon::start(command, log);
    assert!(daemon.listens(addr).await, "{}", daemon.said());
    daemon
}

fn cli(addr: SocketAddr) -> Command {
    let mut command = Command::new("timeout");
    command.args(["5", "redis-cli", "-h", "127.0.0.1", "-p", &addr.port().to_string()]);
    command
}

/// Standard output and error, without the last line break.
fn said(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("redis-cli: tests/run installs it");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

fn role(addr: SocketAddr) -> String {
    said(cli(addr).arg("role")).lines().next().unwrap_or_default().to_owned()
}

fn folder(root: &Path, name: &str) -> PathBuf {
    let folder = root.join(name);
    // It may be there already.
    std::fs::create_dir_all(&folder).expect("a directory");
    folder
}

/// An authority that nobody else knows, and a certificate of it with its key.
fn certify(root: &Path) {
    let mut authority = CertificateParams::new([]).expect("no names");
    // With the same name, OpenSSL would take what it signs for self-signed.
    authority.distinguished_name.push(DnType::CommonName, "an authority of labgate's tests");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(authority, key).expect("an authority");
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let (server, key) = (CertificateParams::new(names).expect("names"), KeyPair::generate());
    let key = key.expect("a key");
    let server = server.signed_by(&key, &authority).expect("a certificate");
    let files =
        [("ca.pem", authority.pem()), ("cert.pem", server.pem()), ("key.pem", key.serialize_pem())];
    for (name, text) in files {
        std::fs::write(root.join(name), text).expect("a file");
    }
}

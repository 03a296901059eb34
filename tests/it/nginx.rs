//! labgate before a real nginx that serves and takes files, asked with curl: the everyday of a front door.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use labgate::demo::gitlab::CLIENT_SECRET;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Browser, HOST, Process, appears, get, labgate};

/// Bytes of the large file and of the upload.
const LARGE: usize = 100 << 20;
/// What labgate may take more at its most than before, in KiB; a quarter of what goes through.
const ROOM: u64 = 24 * 1024;

/// A running nginx, whose files are below `directory`.
struct Nginx {
    directory: TempDir,
    addr: SocketAddr,
    child: Option<Child>,
}

impl Nginx {
    /// Starts one that serves `files/` and takes `PUT` below `/up/`.
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["files", "files/up", "body"] {
            std::fs::create_dir(directory.path().join(name)).expect("a directory");
        }
        let addr = free();
        let config = format!(
            "daemon off; master_process off; pid {root}/pid; error_log stderr; worker_processes 1;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; client_max_body_size 0; client_body_temp_path {root}/body;\n\
             proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n\
             server {{ listen {addr}; root {root}/files;\n\
             location /up/ {{ dav_methods PUT; }} }} }}\n",
            root = directory.path().display(),
        );
        std::fs::write(directory.path().join("nginx.conf"), config).expect("a file");
        std::fs::write(directory.path().join("files/index.html"), "from nginx\n").expect("a file");
        let mut nginx = Self { directory, addr, child: None };
        nginx.run().await;
        nginx
    }

    async fn run(&mut self) {
        let root = self.directory.path();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("nginx");
        command.env("PATH", format!("{path}:/usr/sbin:/sbin")).arg("-p").arg(root).arg("-c");
        let command = command.arg(root.join("nginx.conf")).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("nginx: tests/run installs it"));
        appears("nginx", async || TcpStream::connect(self.addr).await.ok()).await;
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join("files").join(name)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An address that is free now, and taken soon.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound")
}

/// labgate before nginx and beside its own development GitLab, each a process.
struct Door {
    nginx: Nginx,
    gitlab: SocketAddr,
    labgate: Process,
    addr: SocketAddr,
    _gitlab: Process,
}

impl Door {
    async fn open() -> Self {
        let nginx = Nginx::start().await;
        let callback = format!("https://{HOST}/oauth2/callback");
        let arguments = ["dev-gitlab", "--listen", "127.0.0.1:0", "--redirect-uri", &callback];
        let process = Process::start(&mut labgate(&arguments, &[]));
        let line = process.line("The development GitLab is at http://").await;
        let gitlab =
            line.rsplit('/').next().and_then(|addr| addr.parse().ok()).expect("an address");
        let upstream = nginx.addr;
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\npublic_url = \"https://{HOST}\"\n\
             [gitlab.main]\nbase_url = \"http://{gitlab}\"\nclient_id = \"labgate-demo\"\nclient_secret = \"{CLIENT_SECRET}\"\n\
             [session]\nkeys = [\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"]\n\
             [[route]]\nhost = \"{HOST}\"\npath = \"/files\"\nupstream = \"http://{upstream}\"\nallow = \"signed-in\"\n\
             [[route]]\nhost = \"{HOST}\"\npath = \"/up\"\nupstream = \"http://{upstream}\"\nallow = [{{ group = \"acme\" }}]\n"
        );
        std::fs::create_dir(nginx.file("files")).expect("a directory");
        std::fs::write(nginx.file("files/a.txt"), "a file\n").expect("a file");
        let labgate = Process::with(&config, &[]);
        let (addr, _) = labgate.addresses().await;
        Self { nginx, gitlab, labgate, addr, _gitlab: process }
    }

    /// The session cookie of `user`, signed in by hand.
    async fn signed_in(&self, user: &str) -> String {
        let mut browser = Browser::new(self.addr, self.gitlab, &format!("http://{}", self.gitlab));
        let page = browser.sign_in("/files/a.txt", user).await;
        assert_eq!((page.status, page.text().as_str()), (200, "a file\n"));
        format!("__Host-labgate={}", browser.cookie("__Host-labgate").expect("a session"))
    }

    /// What curl says of `https://HOST/PATH` with these arguments: `-w` and standard output.
    fn curl(&self, path: &str, arguments: &[&str]) -> String {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "60", "--noproxy", "*"]);
        // In the clear, as behind a proxy that ends TLS.
        let host = format!("Host: {HOST}");
        let hosts = arguments.iter().any(|argument| argument.starts_with("Host: "));
        if !hosts {
            command.args(["-H", &host]);
        }
        let url = format!("http://{}{path}", self.addr);
        let output =
            command.args(arguments).arg(url).output().expect("curl: tests/run installs it");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "curl {path} {arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn status(&self, path: &str, arguments: &[&str]) -> String {
        let told = ["-o", "/dev/null", "-w", "%{http_code}"];
        self.curl(path, &[&told, arguments].concat())
    }
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("coreutils");
    let text = String::from_utf8_lossy(&output.stdout);
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// 100 MB in which no two blocks are alike, so that a lost or doubled one shows.
fn large(path: &Path) {
    let bytes: Vec<u8> = (0..LARGE / 8).flat_map(|number| (number as u64).to_le_bytes()).collect();
    std::fs::write(path, bytes).expect("a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_stranger_gets_the_right_answer() {
    let door = Door::open().await;
    let navigation = ["-H", "Accept: text/html"];
    let headers =
        door.curl("/files/a.txt?x=1", &[&["-i"][..], &navigation].concat()).to_lowercase();
    assert!(headers.starts_with("http/1.1 302"), "{headers}");
    let sign_in = format!("location: https://{HOST}/oauth2/sign_in?rd=%2ffiles%2fa.txt%3fx%3d1");
    assert!(headers.contains(&sign_in), "{headers}");
    let answer = door.curl("/files/a.txt", &["-i", "-H", "Sec-Fetch-Mode: cors"]);
    assert!(
        answer.starts_with("HTTP/1.1 401") && answer.contains("application/problem+json"),
        "{answer}"
    );
    assert!(answer.contains(&format!("\"sign_in\":\"https://{HOST}/oauth2/sign_in")), "{answer}");
    assert!(answer.to_lowercase().contains("www-authenticate: bearer"), "{answer}");
    for (path, arguments, expected) in [
        ("/files/a.txt", &["-X", "POST", "-d", "x"][..], "401"),
        ("/files/a.txt", &["-H", "Host: other.example"], "421"),
        ("/oauth2/sign_in", &["-H", "Host: other.example"], "421"),
        ("/elsewhere", &[], "404"),
        ("/filesystem", &[], "404"),
        ("/oauth2/nothing", &[], "404"),
        ("/up/x", &["-T", "/dev/null"], "401"),
    ] {
        assert_eq!(door.status(path, arguments), expected, "{path} {arguments:?}");
    }
    let cookie = door.signed_in("carol").await;
    for (path, arguments, expected) in [
        ("/files/a.txt", &[][..], "200"),
        ("/files/none.txt", &[], "404"),
        ("/files/a.txt", &["-H", "Range: bytes=2-5"], "206"),
        ("/files/a.txt", &["--http2-prior-knowledge"], "200"),
        // In no group.
        ("/up/x", &["-T", "/dev/null"], "403"),
    ] {
        let arguments = [&["-b", cookie.as_str()][..], arguments].concat();
        assert_eq!(door.status(path, &arguments), expected, "{path} {arguments:?}");
    }
    assert!(!door.nginx.file("up/x").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_go_both_ways_with_flat_memory() {
    let door = Door::open().await;
    let cookie = door.signed_in("alice").await;
    let (source, target) =
        (door.nginx.file("files/large"), door.nginx.directory.path().join("got"));
    large(&source);
    door.curl("/files/a.txt", &["-b", &cookie]);
    let before = door.labgate.memory("VmRSS:");
    let (from, to) = (source.to_str().expect("text"), target.to_str().expect("text"));
    let told = door.curl("/files/large", &["-b", &cookie, "-o", to, "-w", "%{http_code}"]);
    assert_eq!(told, "200");
    assert_eq!(sha256(&target), sha256(&source));
    // Slow clients make labgate wait, not hoard.
    door.curl(
        "/files/large",
        &["-b", &cookie, "-o", to, "--limit-rate", "50M", "-r", "0-26214399"],
    );
    assert_eq!(std::fs::metadata(&target).expect("a file").len(), 25 << 20);
    // With a length, and in chunks.
    for (name, arguments) in [
        ("sized", &["-T", from][..]),
        ("chunked", &["-T", from, "-H", "Transfer-Encoding: chunked"]),
    ] {
        let path = format!("/up/{name}");
        let arguments = [&["-b", cookie.as_str()][..], arguments].concat();
        assert_eq!(door.status(&path, &arguments), "201", "{name}");
        assert_eq!(sha256(&door.nginx.file(&format!("up/{name}"))), sha256(&source), "{name}");
    }
    let most = door.labgate.memory("VmHWM:");
    assert!(most < before + ROOM, "{before} KiB before, {most} KiB at most");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_alive_connection_outlives_a_restart_of_nginx() {
    let mut door = Door::open().await;
    let cookie = door.signed_in("alice").await;
    let mut stream = TcpStream::connect(door.addr).await.expect("a connection");
    assert_eq!(asked(&mut stream, "/files/a.txt", &cookie).await, 200);
    for _ in 0..3 {
        // labgate's idle connection to nginx is dead, which no client may notice.
        door.nginx.stop();
        door.nginx.run().await;
        assert_eq!(asked(&mut stream, "/files/a.txt", &cookie).await, 200);
    }
    door.nginx.stop();
    assert_eq!(asked(&mut stream, "/files/a.txt", &cookie).await, 502);
    door.nginx.run().await;
    assert_eq!(asked(&mut stream, "/files/a.txt", &cookie).await, 200);
    assert_eq!(get(door.gitlab, "/-/dev/hits").await.status, 200);
}

/// The status of a GET on a connection that stays open.
async fn asked(stream: &mut TcpStream, path: &str, cookie: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let answer = async {
        let (mut read, mut byte) = (Vec::new(), [0]);
        while !read.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).await.expect("a byte");
            read.extend(byte);
        }
        let head = String::from_utf8(read).expect("text");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.and_then(|length| length.parse().ok()).expect("a length");
        stream.read_exact(&mut vec![0; length]).await.expect("a body");
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    };
    tokio::time::timeout(Duration::from_secs(20), answer).await.expect("in time")
}

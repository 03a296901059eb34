//! The real binary as a child process: its output as it comes, signals, and its end, by pid, whatever becomes of the test.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;

/// A running command.
pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    directory: Option<TempDir>,
}

/// `labgate ARGUMENTS` with nothing but `env` in its environment, not yet started.
pub fn labgate(arguments: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_labgate"));
    command.args(arguments).env_clear().envs(env.iter().copied()).stdin(Stdio::null());
    command
}

/// What a command that ends by itself said: exit code, standard output, standard error.
pub fn outcome(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("a process");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// `labgate check` of a configuration.
pub fn check(text: &str, env: &[(&str, &str)]) -> (i32, String, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("labgate.toml");
    std::fs::write(path, text).expect("a file");
    let mut command = labgate(&["check", "--config", "labgate.toml"], env);
    outcome(command.current_dir(directory.path()))
}

/// Waits until `probe` has an answer, for half a minute.
pub async fn appears<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

impl Process {
    /// Starts `command`.
    pub fn start(command: &mut Command) -> Self {
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("a process");
        let lines = Arc::default();
        gather(child.stdout.take().expect("piped"), &lines);
        gather(child.stderr.take().expect("piped"), &lines);
        Self { child, lines, directory: None }
    }

    /// `labgate run` with the configuration at `path`.
    pub fn serve(path: &Path, env: &[(&str, &str)]) -> Self {
        let path = path.to_str().expect("text");
        Self::start(&mut labgate(&["run", "--config", path], env))
    }

    /// `labgate run` with this configuration, in a file of its own.
    pub fn with(config: &str, env: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("labgate.toml");
        std::fs::write(&path, config).expect("a file");
        let mut process = Self::serve(&path, env);
        process.directory = Some(directory);
        process
    }

    /// The file of its configuration.
    pub fn path(&self) -> PathBuf {
        let directory = self.directory.as_ref().expect("started with a configuration");
        directory.path().join("labgate.toml")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has said so far, on both outputs.
    pub fn said(&self) -> String {
        self.lines.lock().expect("no panic").join("\n")
    }

    /// The log lines in JSON so far.
    pub fn log(&self) -> Vec<Value> {
        let lines = self.lines.lock().expect("no panic");
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The first log line that `wanted` holds for.
    pub async fn logged(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = async || self.log().into_iter().find(|line| wanted(line));
        let (said, pid) = (|| self.said(), self.pid());
        appears(&format!("{what} from {pid}, which said: {}", said()), found).await
    }

    /// The first line that contains `text`.
    pub async fn line(&self, text: &str) -> String {
        let found = async || {
            let lines = self.lines.lock().expect("no panic");
            lines.iter().find(|line| line.contains(text)).cloned()
        };
        appears(text, found).await
    }

    /// Where clients and operators connect to.
    pub async fn addresses(&self) -> (SocketAddr, SocketAddr) {
        let line = self.logged("its start", |line| line["message"] == "labgate serves").await;
        let at = |key: &str| line[key].as_str().expect("text").parse().expect("an address");
        (at("listen"), at("admin"))
    }

    /// Where Envoy asks.
    pub async fn ext_authz(&self) -> SocketAddr {
        let line = self.logged("its start", |line| line["message"] == "labgate serves").await;
        line["ext_authz"].as_str().expect("it is on").parse().expect("an address")
    }

    /// Sends the signal of this name, such as `HUP`.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} {}", self.pid());
        let status = Command::new("sh").args(["-c", &kill]).status().expect("a shell");
        assert!(status.success(), "{kill}");
    }

    /// Ends it at once, as `kill -9` does, and waits for that.
    pub fn kill(&mut self) {
        // One that has ended already is no error.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Whether it has ended by now, with what code; -1 for a signal.
    pub fn code(&mut self) -> Option<i32> {
        let status = self.child.try_wait().expect("our child");
        status.map(|status| status.code().unwrap_or(-1))
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> i32 {
        appears("the end of the process", async || self.code()).await
    }

    /// Resident memory in KiB: `VmRSS` now or `VmHWM` at most.
    pub fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("proc");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
        let digits: String = line.chars().filter(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn gather(from: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = Arc::clone(lines);
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            lines.lock().expect("no panic").push(line);
        }
    });
}

const PATIENCE: Duration = Duration::from_secs(30);

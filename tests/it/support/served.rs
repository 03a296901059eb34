//! `labgate run` as a process of its own, for what a test can't do to the process that it runs in.

use std::{net::SocketAddr, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};

use super::wire::PATIENCE;

/// A running labgate; killed when dropped.
#[derive(Debug)]
pub struct Served {
    child: Child,
    pub addr: SocketAddr,
    pub admin: SocketAddr,
    log: JoinHandle<Vec<String>>,
    _folder: tempfile::TempDir,
}

impl Served {
    /// Runs labgate with the configuration `text`, after shell commands such as `ulimit -n 256`.
    pub async fn start(text: &str, before: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("labgate.toml");
        std::fs::write(&path, text).expect("a file");
        let script = format!("{before}\nexec \"$0\" run --config \"$1\"");
        let mut child = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_labgate")])
            .arg(&path)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a process");
        let stderr = child.stderr.take().expect("a pipe");
        let mut lines = BufReader::new(stderr).lines();
        let serves = timeout(PATIENCE, async {
            loop {
                let line =
                    lines.next_line().await.expect("text").expect("it serves before it ends");
                if line.contains("labgate serves") {
                    return line;
                }
            }
        });
        let line = serves.await.expect("it serves in time");
        let serves: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let find = |name: &str| {
            let value = serves.get(name).or_else(|| serves["fields"].get(name));
            value
                .and_then(|value| value.as_str()?.parse().ok())
                .unwrap_or_else(|| panic!("no {name}: {line}"))
        };
        let (addr, admin) = (find("listen"), find("admin"));
        // Read on, or the pipe fills up.
        let log = tokio::spawn(async move {
            let mut log = Vec::new();
            while let Ok(Some(line)) = lines.next_line().await {
                log.push(line);
            }
            log
        });
        Self { child, addr, admin, log, _folder: folder }
    }

    /// Sends a signal by name.
    pub async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().await;
        assert!(sent.expect("kill").success());
    }

    /// Seconds of CPU time that it has used.
    pub fn cpu(&self) -> f64 {
        let pid = self.child.id().expect("it runs");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("Linux");
        let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u32 = ticks.map(|ticks| ticks.parse::<u32>().expect("a number")).sum();
        f64::from(ticks) / 100.0
    }

    /// Waits for its end; the exit code, and what it said on standard error.
    pub async fn ended(mut self) -> (Option<i32>, String) {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("an end in time");
        let log = self.log.await.expect("a log").join("\n");
        (status.expect("a status").code(), log)
    }
}

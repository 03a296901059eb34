//! `labgate demo` as people run it: the binary as a child process, and what it says.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// A running demo, killed when dropped.
pub struct Demo {
    child: Child,
    output: BufReader<ChildStdout>,
    /// What it printed up to the line with the URL and everything after it, up to the last one.
    pub said: String,
    /// Its base URL, without a final slash.
    pub url: String,
    /// Where its development GitLab is.
    pub gitlab: String,
}

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Demo {
    /// Starts it with these arguments and waits for its URL.
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_labgate"))
            .arg("demo")
            .args(arguments)
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary of this build");
        let output = BufReader::new(child.stdout.take().expect("its output is piped"));
        let (said, url, gitlab) = (String::new(), String::new(), String::new());
        let mut demo = Self { child, output, said, url, gitlab };
        while demo.gitlab.is_empty() {
            demo.read_line();
        }
        assert!(!demo.url.is_empty(), "no line says what to open:\n{}", demo.said);
        demo
    }

    /// A path of it.
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Sends Ctrl-C's signal; returns how it ended, how long that took, and what it had to complain of all the time.
    pub fn interrupt(mut self) -> (ExitStatus, Duration, String) {
        let began = Instant::now();
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(sent.expect("kill").success());
        let ended = self.child.wait().expect("an exit status");
        let took = began.elapsed();
        let mut complaints = String::new();
        let mut errors = self.child.stderr.take().expect("its complaints are piped");
        errors.read_to_string(&mut complaints).expect("text");
        (ended, took, complaints)
    }

    fn read_line(&mut self) {
        let mut line = String::new();
        let read = self.output.read_line(&mut line).expect("text");
        assert!(read > 0, "the demo ended early, having said:\n{}", self.said);
        if let Some(url) = line.strip_prefix("Open ") {
            self.url = url.trim().trim_end_matches('/').to_owned();
        }
        if let Some((_, rest)) = line.split_once("development GitLab is at ") {
            self.gitlab = rest.trim_end().trim_end_matches('/').to_owned();
        }
        self.said.push_str(&line);
    }
}

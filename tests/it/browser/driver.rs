//! A Chromium that a test drives: chromedriver and browser as child processes, both ended with the [`Chromium`] that holds them.
//!
//! Every command fails the test by itself, with what it was looking for and what the page showed instead.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use fantoccini::{
    Client, ClientBuilder, Locator,
    wd::{Capabilities, WebDriverCompatibleCommand, WindowHandle},
};
use http::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::{ParseError, Url};

/// How long a page may take to become what a test waits for, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running browser with an empty profile.
pub struct Chromium {
    client: Client,
    _ends: Ends,
}

/// Ends the driver and the browser, also when the test panics.
struct Ends {
    driver: Child,
    browser: Option<u64>,
    profile: TempDir,
}

impl Drop for Ends {
    fn drop(&mut self) {
        if let Some(pid) = self.browser {
            let killed = Command::new("kill").args(["-9", &pid.to_string()]).output();
            drop(killed);
        }
        drop(self.driver.kill());
        drop(self.driver.wait());
        // The browser's processes end one after the other and may still write.
        let deadline = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir_all(self.profile.path()).is_err() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// One line of the browser's console.
#[derive(Debug)]
pub struct Complaint {
    /// Who says it: `security` for violations of a policy, `network`, `javascript`, `console-api`.
    pub source: String,
    pub message: String,
}

impl Chromium {
    /// Starts one.
    pub async fn start() -> Self {
        let (mut ends, port) = driver();
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            &format!("--user-data-dir={}", ends.profile.path().display()),
        ];
        let capabilities = json!({
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments, "binary": chromium() },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let capabilities: Capabilities =
            serde_json::from_value(capabilities).expect("capabilities are an object");
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap_or_else(|error| panic!("Chromium does not start (Debian: chromium): {error}"));
        ends.browser = client.capabilities().and_then(|all| all.get("goog:processID")?.as_u64());
        assert!(ends.browser.is_some(), "chromedriver does not say which process Chromium is");
        Self { client, _ends: ends }
    }

    /// Opens `url` and waits until it has loaded.
    pub async fn open(&self, url: &str) {
        self.client.goto(url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    /// Waits until the address is `url`.
    pub async fn arrives(&self, url: &str) {
        self.shows(&format!("the address {url}"), async || self.url().await == url).await;
    }

    /// Waits until the main heading is `heading`.
    pub async fn heading(&self, heading: &str) {
        let script = "return document.querySelector('h1')?.textContent?.trim() ?? ''";
        self.shows(&format!("the heading {heading:?}"), async || self.run(script).await == heading)
            .await;
    }

    /// Waits until the page's text contains `text`.
    pub async fn says(&self, text: &str) {
        self.shows(&format!("the text {text:?}"), async || self.text().await.contains(text)).await;
    }

    /// Clicks the link or button with this text as a person does, once it is there.
    pub async fn click(&self, text: &str) {
        self.shows(&format!("something to click on, {text:?}"), async || self.clicked(text).await)
            .await;
    }

    async fn clicked(&self, text: &str) -> bool {
        let path = format!("//*[self::a or self::button][normalize-space()=\"{text}\"]");
        match self.client.find(Locator::XPath(&path)).await {
            Ok(found) => found.click().await.is_ok(),
            Err(_) => false,
        }
    }

    /// Goes through the development GitLab as `user`: the person, and consent where it is asked for.
    pub async fn sign_in_at_gitlab(&self, user: &str, landing: &str) {
        self.click(user).await;
        self.consent(landing).await;
    }

    /// Allows access where that is asked for, and waits until `landing` is there.
    pub async fn consent(&self, landing: &str) {
        self.shows(&format!("{landing} or the question for consent"), async || {
            self.url().await == landing || self.clicked("Authorize").await
        })
        .await;
        self.arrives(landing).await;
    }

    /// Back, as by the browser's button.
    pub async fn back(&self) {
        self.client.back().await.expect("back");
    }

    /// Loads the page again.
    pub async fn reload(&self) {
        self.client.refresh().await.expect("a reload");
    }

    /// The address.
    pub async fn url(&self) -> String {
        let url = self.client.current_url().await;
        url.map_or_else(|error| error.to_string(), |url| url.to_string())
    }

    /// What can be read on the page.
    pub async fn text(&self) -> String {
        let text = self.run("return document.body?.innerText ?? ''").await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// What a script returns; nothing while the page is being replaced.
    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap_or_default()
    }

    /// Types into the element that a CSS selector finds, and submits.
    pub async fn enter(&self, selector: &str, text: &str) {
        let field = self.client.find(Locator::Css(selector)).await.expect(selector);
        field.send_keys(&format!("{text}\n")).await.expect("typed text");
    }

    /// Clicks on what opens another tab, turns to that, and tells which it was before.
    pub async fn click_to_new_tab(&self, text: &str) -> WindowHandle {
        let before = self.client.window().await.expect("a tab");
        let known = self.client.windows().await.expect("tabs");
        self.click(text).await;
        let opened = async || {
            let now = self.client.windows().await.expect("tabs");
            now.into_iter().find(|tab| !known.contains(tab))
        };
        self.shows("another tab", async || opened().await.is_some()).await;
        self.client.switch_to_window(opened().await.expect("it is there")).await.expect("a tab");
        before
    }

    /// Opens a tab and returns to it what is typed next; the tab before stays open.
    pub async fn new_tab(&self) -> WindowHandle {
        let before = self.client.window().await.expect("a tab");
        let tab = self.client.new_window(true).await.expect("another tab");
        self.client.switch_to_window(tab.handle).await.expect("the other tab");
        before
    }

    /// Turns to another tab and tells which it was before.
    pub async fn switch(&self, tab: WindowHandle) -> WindowHandle {
        let before = self.client.window().await.expect("a tab");
        self.client.switch_to_window(tab).await.expect("the other tab");
        before
    }

    /// Forgets all cookies, as another person's browser would not have them.
    pub async fn forget_cookies(&self) {
        self.tell("Network.clearBrowserCookies", json!({})).await;
    }

    /// The console's lines since the last call.
    pub async fn complaints(&self) -> Vec<Complaint> {
        let lines = self.client.issue_cmd(ConsoleLines).await.expect("the console's lines");
        let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let lines = lines.as_array().expect("a list of lines");
        let lines = lines.iter().filter(|line| line["level"] != "DEBUG");
        lines
            .map(|line| Complaint { source: text(line, "source"), message: text(line, "message") })
            .collect()
    }

    /// A command of Chromium's own protocol.
    pub async fn tell(&self, command: &'static str, parameters: Value) -> Value {
        let answer = self.client.issue_cmd(DevTools { command, parameters }).await;
        answer.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// The whole page as it looks now, as PNG.
    pub async fn picture(&self) -> Vec<u8> {
        let parameters = json!({ "format": "png", "captureBeyondViewport": true });
        let answer = self.tell("Page.captureScreenshot", parameters).await;
        STANDARD.decode(answer["data"].as_str().expect("a picture")).expect("base64")
    }

    async fn shows(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds().await {
            if Instant::now() > deadline {
                let (url, text) = (self.url().await, self.text().await);
                panic!("waited for {what}, but {url} says:\n{text}");
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
}

/// A running chromedriver and its port.
fn driver() -> (Ends, u16) {
    let profile = tempfile::tempdir().expect("a directory for the profile");
    let driver = Command::new("chromedriver")
        .arg("--port=0")
        // What a killed browser leaves behind goes with the profile.
        .env("TMPDIR", profile.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("chromedriver does not start (Debian: chromium-driver): {error}")
        });
    let mut ends = Ends { driver, browser: None, profile };
    let output = BufReader::new(ends.driver.stdout.take().expect("its output is piped"));
    let mut said = String::new();
    for line in output.lines().map_while(Result::ok) {
        let port = line
            .rsplit_once("on port ")
            .and_then(|(_, port)| port.trim_end_matches('.').parse().ok());
        if let (true, Some(port)) = (line.contains("successfully"), port) {
            return (ends, port);
        }
        writeln!(said, "{line}").expect("a String takes everything");
    }
    panic!("chromedriver did not say its port, but:\n{said}");
}

/// Debian's name for it, or the one that others use.
fn chromium() -> &'static str {
    let found = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    let found = found.into_iter().find(|path| Path::new(path).exists());
    found.expect("there is no Chromium here (Debian: chromium)")
}

/// chromedriver's way to Chromium's own protocol.
#[derive(Debug)]
struct DevTools {
    command: &'static str,
    parameters: Value,
}

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        let body = json!({ "cmd": self.command, "params": self.parameters });
        (Method::POST, Some(body.to_string()))
    }
}

/// chromedriver's way to the console.
#[derive(Debug)]
struct ConsoleLines;

impl WebDriverCompatibleCommand for ConsoleLines {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(json!({ "type": "browser" }).to_string()))
    }
}

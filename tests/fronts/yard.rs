//! labgate with its GitLab and two applications, and a front proxy before them.

use labgate::demo::upstream::{self, SampleApp};
use serde_json::Value;

use super::front::{Front, Kind};
use crate::support::{Answer, Browser, Lab, Setup, free};

/// Everything that a test of a front proxy talks to.
pub struct Yard {
    pub lab: Lab,
    /// The application behind `/status` and at `wiki.example.test`.
    pub other: SampleApp,
    pub front: Front,
}

/// The applications by path and host, and who may use them; `OTHER` stands for the second one's URL.
pub const ROUTES: &str = r#"
[[route]]
upstream = "UPSTREAM"
allow = "public"
[[route]]
path = "/private"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
path = "/echo"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
path = "/echo/open"
upstream = "UPSTREAM"
allow = "public"
[[route]]
path = "/ws"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
path = "/team"
upstream = "UPSTREAM"
allow = [{ group = "acme" }]
[[route]]
path = "/status"
upstream = "OTHER"
allow = "public"
[[route]]
host = "wiki.example.test"
path = "/"
upstream = "OTHER"
allow = "signed-in"
"#;

/// What the lab needs before a front proxy on this machine.
pub fn setup() -> Setup {
    let ext_authz = free();
    let asked = format!("trusted_proxies = [\"127.0.0.0/8\"]\next_authz = \"{ext_authz}\"\n");
    Setup::default().server(&asked)
}

/// Another application.
pub async fn other() -> SampleApp {
    SampleApp::start(upstream::Options::default()).await.expect("a sample app")
}

impl Yard {
    /// The usual one.
    pub async fn open(kind: Kind) -> Self {
        Self::with(kind, setup()).await
    }

    /// One whose labgate differs.
    pub async fn with(kind: Kind, setup: Setup) -> Self {
        let other = other().await;
        let lab = setup.routes(&ROUTES.replace("OTHER", &other.url())).start().await;
        let front = Front::start(kind, &lab.config, lab.app.addr()).await;
        Self { lab, other, front }
    }

    /// One that a browser on this machine can open, in the clear, and its URL.
    pub async fn on_localhost(kind: Kind) -> (Self, String) {
        let (other, addr) = (other().await, free());
        let url = format!("http://localhost:{}", addr.port());
        let setup = setup().public_url(&url).routes(&ROUTES.replace("OTHER", &other.url()));
        let lab = setup.start().await;
        let front = Front::start_at(kind, &lab.config, lab.app.addr(), addr).await;
        (Self { lab, other, front }, url)
    }

    /// A browser without cookies, before the proxy.
    pub fn browser(&self) -> Browser {
        let gitlab = &self.lab.gitlab;
        Browser::new(self.front.addr, gitlab.addr(), gitlab.external_url())
    }

    /// A browser in which `user` is signed in.
    pub async fn signed_in(&self, user: &str) -> Browser {
        let mut browser = self.browser();
        let page = browser.sign_in("/private", user).await;
        assert_eq!(page.status, 200, "{user}: {}\n{}", page.text(), self.front.said());
        browser
    }

    /// Requests that have reached an application.
    pub fn reached(&self) -> u64 {
        self.lab.sample.hits() + self.other.hits()
    }
}

/// The headers of a request as the application got it, names in lower case.
pub fn echoed(answer: &Answer) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let pairs = answer.json()["headers"].as_array().cloned().unwrap_or_default();
    assert!(!pairs.is_empty(), "no echo: {}", answer.text());
    pairs.iter().map(|pair| (text(&pair[0]).to_lowercase(), text(&pair[1]))).collect()
}

/// The one value of a header that the application got.
pub fn value<'a>(headers: &'a [(String, String)], name: &str) -> &'a str {
    let found: Vec<_> = headers.iter().filter(|(other, _)| other == name).collect();
    let [(_, value)] = found.as_slice() else { panic!("{name}: {found:?}") };
    value
}

//! The lab: a development GitLab, the sample app and labgate in one process on free ports, with a clock that tests can turn.
//!
//! labgate listens in the clear and believes that browsers see `https://app.example.test`, as behind a proxy that ends TLS; clients
//! connect to its address whatever the host is called.

mod browser;
mod client;
pub mod http2;
mod process;
mod wire;

use std::{net::SocketAddr, sync::Arc};

use labgate::{
    app::App,
    clock::Clock,
    config,
    demo::{
        gitlab::{self, DevGitlab, Keys},
        upstream::{self, SampleApp},
    },
    gate::Plan,
    session::{KeyRing, Random},
};
use tokio::{runtime::Handle, sync::OnceCell};

pub use self::{
    browser::Browser,
    client::{Answer, send},
    http2::Http2,
    process::Process,
    wire::{Message, PATIENCE, Tap, Wire, eventually},
};

/// The host of the lab's public URL.
pub const HOST: &str = "app.example.test";

/// Everything that a test talks to.
pub struct Lab {
    pub gitlab: DevGitlab,
    pub sample: SampleApp,
    pub app: App,
    pub clock: Clock,
    /// The configuration as text; start another labgate with parts of it.
    pub config: String,
}

/// How a lab differs from the usual one.
#[derive(Default)]
pub struct Setup {
    server: String,
    gitlab: String,
    session: String,
    identity: String,
    routes: Option<String>,
    more: String,
    public_url: Option<String>,
    upstream: Option<String>,
    base_path: String,
    workers: usize,
}

impl Setup {
    /// Lines added to `[server]`.
    pub fn server(mut self, lines: &str) -> Self {
        self.server.push_str(lines);
        self
    }

    /// Lines added to `[gitlab.main]`.
    pub fn gitlab(mut self, lines: &str) -> Self {
        self.gitlab.push_str(lines);
        self
    }

    /// Lines added to `[session]`.
    pub fn session(mut self, lines: &str) -> Self {
        self.session.push_str(lines);
        self
    }

    /// Lines added to `[identity]`.
    pub fn identity(mut self, lines: &str) -> Self {
        self.identity.push_str(lines);
        self
    }

    /// Routes instead of the usual ones; `UPSTREAM` stands for the sample app's URL.
    pub fn routes(mut self, tables: &str) -> Self {
        self.routes = Some(tables.into());
        self
    }

    /// Further tables; `UPSTREAM` and `GITLAB` stand for the URLs.
    pub fn more(mut self, tables: &str) -> Self {
        self.more.push_str(tables);
        self
    }

    /// Another public URL; empty for none.
    pub fn public_url(mut self, url: &str) -> Self {
        self.public_url = Some(url.into());
        self
    }

    /// Another application than the sample app.
    pub fn upstream(mut self, url: &str) -> Self {
        self.upstream = Some(url.into());
        self
    }

    /// A relative URL root for the development GitLab.
    pub fn base_path(mut self, path: &str) -> Self {
        self.base_path = path.into();
        self
    }

    /// So many worker threads; one by default.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Starts it all.
    pub async fn start(self) -> Lab {
        let clock = Clock::system();
        let public_url = self.public_url.unwrap_or_else(|| format!("https://{HOST}"));
        let redirect = match public_url.as_str() {
            "" => format!("http://{HOST}/oauth2/callback"),
            url => format!("{url}/oauth2/callback"),
        };
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let gitlab = DevGitlab::start(gitlab::Options {
            listen: free,
            redirect_uris: vec![redirect, "https://wiki.example.test/oauth2/callback".into()],
            clock: clock.clone(),
            keys: Some(keys().await),
            base_path: self.base_path,
            ..gitlab::Options::default()
        })
        .await
        .expect("a development GitLab");
        let options = upstream::Options { listen: free, or_other_port: false, force_public: false };
        let sample = SampleApp::start(options).await.expect("a sample app");
        let key = KeyRing::generate(&Random::system()).expect("random numbers");
        let public = match public_url.as_str() {
            "" => String::new(),
            url => format!("public_url = \"{url}\""),
        };
        let (id, secret) = (gitlab::CLIENT_ID, gitlab::CLIENT_SECRET);
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n{public}\n{}\n\
             [gitlab.main]\nbase_url = \"GITLAB\"\nclient_id = \"{id}\"\n{}\n{}\n\
             [session]\nkeys = [\"{}\"]\n{}\n[identity]\n{}\n{}\n{}\n",
            self.server,
            match self.gitlab.contains("client_secret") {
                true => String::new(),
                false => format!("client_secret = \"{secret}\""),
            },
            self.gitlab,
            key.as_str(),
            self.session,
            self.identity,
            self.routes.as_deref().unwrap_or(ROUTES),
            self.more,
        );
        let upstream = self.upstream.unwrap_or_else(|| sample.url());
        let config = config.replace("GITLAB", gitlab.external_url()).replace("UPSTREAM", &upstream);
        let app = run(&config, &clock, self.workers.max(1));
        Lab { gitlab, sample, app, clock, config }
    }
}

impl Lab {
    /// The usual lab.
    pub async fn start() -> Self {
        Setup::default().start().await
    }

    /// A browser without cookies.
    pub fn browser(&self) -> Browser {
        Browser::new(self.app.addr(), self.gitlab.addr())
    }

    /// A browser in which `user` is signed in.
    pub async fn signed_in(&self, user: &str) -> Browser {
        let mut browser = self.browser();
        let page = browser.sign_in("/private", user).await;
        assert_eq!(page.status, 200, "{user} can't sign in: {}", page.text());
        browser
    }

    /// A second labgate with the same configuration, such as a replica or a restart.
    pub fn replica(&self) -> App {
        run(&self.config, &self.clock, 1)
    }

    /// The answer to one GET of the admin listener.
    pub async fn admin(&self, path: &str) -> Answer {
        let request = http::Request::get(path).header("host", "admin").body(String::new());
        send(self.app.admin_addr(), request.expect("a request")).await
    }

    /// The value of one metric, labels included in `series`; zero if it is not there.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.admin("/metrics").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }
}

impl Lab {
    /// The value of a metric that counts.
    pub async fn count(&self, series: &str) -> u64 {
        let text = self.admin("/metrics").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().expect("a whole number"))
    }
}

/// labgate with the configuration `text`.
pub fn run(text: &str, clock: &Clock, workers: usize) -> App {
    let config: config::Config = toml::from_str(text).expect("the lab's configuration");
    let env = |_: &str| None;
    let (plan, problems) = Plan::draw(&config, &env);
    let plan = plan.unwrap_or_else(|| panic!("the lab's configuration: {problems:#?}"));
    App::start(plan, clock.clone(), &Handle::current(), workers, &env).expect("labgate")
}

/// Signing keys, made once for all labs: that takes a moment.
async fn keys() -> Keys {
    static KEYS: OnceCell<Arc<Keys>> = OnceCell::const_new();
    let make = || async { Arc::new(Keys::generate().await.expect("keys")) };
    Keys::clone(KEYS.get_or_init(make).await)
}

/// The usual routes: those of the demo, and a guarded echo.
const ROUTES: &str = r#"
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
path = "/ws"
upstream = "UPSTREAM"
allow = "signed-in"
[[route]]
path = "/team"
upstream = "UPSTREAM"
allow = [{ group = "acme" }]
[[route]]
path = "/maintainers"
upstream = "UPSTREAM"
allow = [{ group = "acme/ops", role = "maintainer" }]
"#;

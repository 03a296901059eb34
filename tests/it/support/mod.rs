//! The lab: a development GitLab, the sample app and labgate in one process on free ports, with a clock that tests can turn.
//!
//! labgate listens in the clear and believes that browsers see `https://app.example.test`, as behind a proxy that ends TLS; clients
//! connect to its address whatever the host is called.

mod balancer;
mod browser;
mod client;
pub mod daemon;
pub mod envoy;
mod front;
pub mod http2;
mod process;
pub mod redis;
pub mod replicas;
mod served;
mod wire;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

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
use tokio::{
    runtime::Handle,
    sync::OnceCell,
    time::{Instant, sleep},
};

pub use self::{
    browser::{Browser, Page},
    client::{Answer, send, send_raw},
    daemon::{Daemon, free},
    front::Arrived,
    http2::Http2,
    process::{Process, appears, check, labgate, outcome},
    served::Served,
    wire::{Message, PATIENCE, Tap, Wire},
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

/// The lab with labgate as a process of its own, which follows the clock of the machine.
pub struct House {
    pub gitlab: DevGitlab,
    pub sample: SampleApp,
    pub labgate: Process,
    pub addr: SocketAddr,
    pub admin: SocketAddr,
    /// The configuration that it was started with.
    pub config: String,
    /// The file that holds it.
    pub path: PathBuf,
}

/// What stands around labgate, and the configuration that fits it.
struct Site {
    gitlab: DevGitlab,
    sample: SampleApp,
    clock: Clock,
    config: String,
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
    external_url: Option<String>,
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

    /// What the development GitLab calls itself; `INTERNAL` stands for where it listens.
    pub fn external_url(mut self, url: &str) -> Self {
        self.external_url = Some(url.into());
        self
    }

    /// So many worker threads; one by default.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Starts it all.
    pub async fn start(self) -> Lab {
        let workers = self.workers.max(1);
        let Site { gitlab, sample, clock, config } = self.furnish().await;
        let app = run(&config, &clock, workers);
        Lab { gitlab, sample, app, clock, config }
    }

    /// Starts it all, labgate as a process with `env` alone in its environment.
    pub async fn process(self, env: &[(&str, &str)]) -> House {
        let Site { gitlab, sample, config, .. } = self.furnish().await;
        let labgate = Process::with(&config, env);
        let (addr, admin) = labgate.addresses().await;
        House { gitlab, sample, addr, admin, config, path: labgate.path(), labgate }
    }

    async fn furnish(self) -> Site {
        let clock = Clock::system();
        let public_url = self.public_url.unwrap_or_else(|| format!("https://{HOST}"));
        let redirect = match public_url.as_str() {
            "" => format!("http://{HOST}/oauth2/callback"),
            url => format!("{url}/oauth2/callback"),
        };
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let gitlab = DevGitlab::start(gitlab::Options {
            listen: free,
            redirect_uris: vec![
                redirect,
                "https://wiki.example.test/oauth2/callback".into(),
                "https://auth.example.test/oauth2/callback".into(),
            ],
            clock: clock.clone(),
            keys: Some(keys().await),
            base_path: self.base_path,
            external_url: self.external_url,
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
            // A busy machine must not look like a GitLab that does not answer.
            match self.session.contains("recheck_timeout") {
                true => self.session,
                false => format!("recheck_timeout = \"20s\"\n{}", self.session),
            },
            self.identity,
            self.routes.as_deref().unwrap_or(ROUTES),
            self.more,
        );
        let upstream = self.upstream.unwrap_or_else(|| sample.url());
        let config = config
            .replace("GITLAB", gitlab.external_url())
            .replace("INTERNAL", &gitlab.url())
            .replace("UPSTREAM", &upstream);
        Site { gitlab, sample, clock, config }
    }
}

impl House {
    /// A browser without cookies.
    pub fn browser(&self) -> Browser {
        Browser::new(self.addr, self.gitlab.addr(), self.gitlab.external_url())
    }

    /// A browser in which `user` is signed in.
    pub async fn signed_in(&self, user: &str) -> Browser {
        let mut browser = self.browser();
        let page = browser.sign_in("/private", user).await;
        assert_eq!(page.status, 200, "{user} can't sign in: {}", page.text());
        browser
    }

    /// The answer to one GET of the admin listener.
    pub async fn admin(&self, path: &str) -> Answer {
        get(self.admin, path).await
    }

    /// Writes another configuration into the file.
    pub fn write(&self, config: &str) {
        std::fs::write(&self.path, config).expect("a file");
    }
}

/// The answer to one GET, whatever the host.
pub async fn get(addr: SocketAddr, path: &str) -> Answer {
    let request = http::Request::get(path).header("host", addr.to_string()).body(String::new());
    send(addr, request.expect("a request")).await
}

impl Lab {
    /// The usual lab.
    pub async fn start() -> Self {
        Setup::default().start().await
    }

    /// A browser without cookies.
    pub fn browser(&self) -> Browser {
        Browser::new(self.app.addr(), self.gitlab.addr(), self.gitlab.external_url())
    }

    /// A browser in which `user` is signed in.
    pub async fn signed_in(&self, user: &str) -> Browser {
        let mut browser = self.browser();
        let page = browser.sign_in("/private", user).await;
        assert_eq!(page.status, 200, "{user} can't sign in: {}", page.text());
        browser
    }

    /// The callback URL, with a code that is not redeemed yet, that GitLab sends `user` to from `authorize`.
    pub async fn callback(&self, authorize: &str, user: &str) -> String {
        // Another browser knows nothing of the state, so that there the answer is refused before it is used.
        let page = self.browser().sign_in(authorize, user).await;
        assert_eq!(page.status, 400, "{}", page.text());
        page.url.into()
    }

    /// A second labgate with the same configuration, such as a replica or a restart.
    pub fn replica(&self) -> App {
        run(&self.config, &self.clock, 1)
    }

    /// The answer to one GET of the admin listener.
    pub async fn admin(&self, path: &str) -> Answer {
        get(self.app.admin_addr(), path).await
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

/// Asks again and again until `holds`, half a minute at most.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Signing keys, made once for all labs: that takes a moment.
pub async fn keys() -> Keys {
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

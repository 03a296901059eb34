//! Every page, in light and dark, on a desktop and on a phone: nothing is cut off sideways, and the browser complains of nothing.

use std::{fs, path::PathBuf};

use labgate::{
    accept,
    app::App,
    clock::Clock,
    config::Config,
    demo::{
        gitlab::{self, Application, Command, DevGitlab, Endpoint, Fault, UserState},
        upstream::{self, SampleApp},
    },
    gate::Plan,
    session::{KeyRing, Random},
};
use serde_json::json;
use tokio::runtime::Handle;

use super::{
    demo::Demo,
    driver::{Chromium, Complaint},
};

/// Width, height, and whether it is a phone.
const SCREENS: [(&str, u16, u16, bool); 2] =
    [("desktop", 1280, 800, false), ("phone", 390, 844, true)];

/// Takes pictures of what a browser shows.
struct Album<'a> {
    chromium: &'a Chromium,
    directory: Option<PathBuf>,
}

impl<'a> Album<'a> {
    fn new(chromium: &'a Chromium) -> Self {
        let directory = std::env::var_os("LABGATE_SCREENSHOTS").map(PathBuf::from);
        if let Some(directory) = &directory {
            fs::create_dir_all(directory).expect("LABGATE_SCREENSHOTS is a directory");
        }
        Self { chromium, directory }
    }

    /// The page of this heading, once it is there, on each screen and in both schemes.
    async fn take(&self, name: &str, heading: &str) {
        let Self { chromium, directory } = self;
        chromium.heading(heading).await;
        for (screen, width, height, mobile) in SCREENS {
            let metrics = json!({
                "width": width, "height": height, "mobile": mobile, "deviceScaleFactor": 1,
            });
            chromium.tell("Emulation.setDeviceMetricsOverride", metrics).await;
            for scheme in ["light", "dark"] {
                let scheme_only = [json!({ "name": "prefers-color-scheme", "value": scheme })];
                let media = json!({ "features": scheme_only });
                chromium.tell("Emulation.setEmulatedMedia", media).await;
                let wide = chromium.run("return document.documentElement.scrollWidth").await;
                assert!(wide.as_u64() <= Some(width.into()), "{name} is {wide} wide on a {screen}");
                let picture = chromium.picture().await;
                assert!(picture.starts_with(b"\x89PNG"), "{name} is no picture");
                if let Some(directory) = directory {
                    let file = directory.join(format!("{name}-{screen}-{scheme}.png"));
                    fs::write(file, picture).expect("a file in LABGATE_SCREENSHOTS");
                }
            }
        }
        chromium.tell("Emulation.clearDeviceMetricsOverride", json!({})).await;
        let complaints = chromium.complaints().await;
        // That a page has the status 403 is what the page says itself.
        let told = |line: &Complaint| {
            line.source == "network" && line.message.contains("responded with a status of")
        };
        assert!(complaints.iter().all(told), "{name}: {complaints:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_labgate_look_right_everywhere() {
    let stage = Stage::set().await;
    let chromium = Chromium::start().await;
    let album = Album::new(&chromium);
    let at = |path: &str| format!("http://127.0.0.1:{}{path}", stage.port);

    chromium.open(&at("/private/reports?year=2026")).await;
    album.take("sign-in", "Sign in").await;
    chromium.open(&at("/oauth2/sign_out")).await;
    album.take("sign-out-nobody", "Sign out").await;
    for (name, url, heading) in [
        ("404", at("/nowhere"), "There is nothing here"),
        ("404-gitlab", at("/oauth2/start?gitlab=nope"), "That GitLab isn't used here"),
        ("405", at("/posted"), "That can't be done here"),
        ("421", format!("http://localhost:{}/", stage.port), "Nothing is served under this name"),
        ("400-state", at("/oauth2/callback?code=c&state=stale"), "This sign-in can't be finished"),
        ("502-app", at("/down"), "The application isn't answering"),
    ] {
        chromium.open(&url).await;
        album.take(name, heading).await;
    }

    chromium.open(&at("/private")).await;
    chromium.click("Continue with Partners\u{2019} GitLab").await;
    chromium.click("carol").await;
    chromium.heading("Authorize labgate?").await;
    chromium.click("Deny").await;
    album.take("403-denied", "You were not signed in").await;
    stage.partners.fail(Fault::json(Endpoint::Token, 20, 503, &json!({})));
    chromium.open(&at("/oauth2/start?gitlab=partners&rd=/private")).await;
    chromium.click("Authorize").await;
    album.take("503-gitlab", "GitLab can't be reached").await;
    stage.partners.clear_faults();
    chromium.forget_cookies().await;
    chromium.open(&at("/oauth2/start?gitlab=partners&rd=/private")).await;
    chromium.click("alice").await;
    album.take("gitlab-terms", "Terms of service").await;

    chromium.forget_cookies().await;
    chromium.open(&at("/misset")).await;
    chromium.click("bob").await;
    chromium.click("Authorize").await;
    album.take("502-client", "This site isn't set up right at GitLab").await;

    chromium.open(&at("/ops")).await;
    chromium.consent(&at("/ops")).await;
    album.take("refused", "You don't have access").await;
    let post = "<form method=post action=TARGET><button>A prize</button></form>";
    let post = post.replace("TARGET", &at("/oauth2/sign_out"));
    chromium.open(&format!("data:text/html,{post}")).await;
    chromium.click("A prize").await;
    album.take("403-cross-site", "This came from another site").await;
    chromium.open(&at("/ops")).await;
    chromium.says("bob at GitLab").await;
    chromium.click("Sign in as someone else").await;
    chromium.sign_in_at_gitlab(LONG, &at("/ops")).await;
    album.take("refused-long", "You don't have access").await;
    chromium.click("Sign out").await;
    album.take("sign-out", "Sign out").await;
    chromium.click("Sign out").await;
    album.take("signed-out", "Signed out").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_the_demo_look_right_everywhere() {
    let demo = Demo::start(&[]);
    let chromium = Chromium::start().await;
    let album = Album::new(&chromium);

    chromium.open(&demo.at("/")).await;
    album.take("demo-home-stranger", "Home").await;
    chromium.open(&demo.at("/no/such/page")).await;
    album.take("demo-404", "No such page").await;
    chromium.open(&format!("{}/", demo.gitlab)).await;
    album.take("gitlab-home", "Development GitLab").await;
    chromium.open(&demo.at("/team")).await;
    album.take("gitlab-chooser", "Who are you today?").await;
    chromium.click("dave").await;
    chromium.says("blocked").await;
    album.take("gitlab-blocked", "Who are you today?").await;
    chromium.click("alice").await;
    album.take("gitlab-consent", "Authorize labgate demo?").await;
    chromium.consent(&demo.at("/team")).await;
    album.take("demo-team", "Hello, alice").await;
    chromium.open(&demo.at("/")).await;
    album.take("demo-home", "Hello, alice").await;
    chromium.open(&demo.at("/live")).await;
    chromium.says("hello from the browser").await;
    album.take("demo-live", "Hello, alice").await;
    chromium.open(&format!("{}/", demo.gitlab)).await;
    album.take("gitlab-home-alice", "Development GitLab").await;
    let bad = "/oauth/authorize?client_id=labgate-demo&response_type=code&redirect_uri=http://x/";
    chromium.open(&format!("{}{bad}", demo.gitlab)).await;
    album.take("gitlab-error", "An error has occurred").await;
}

/// A username as long as GitLab allows for people with much to say.
const LONG: &str =
    "maximiliane-friederike-von-und-zu-hohenstein-schwarzenberg-example-of-a-long-one";

/// labgate before two GitLabs and an application, with a route for each page.
struct Stage {
    port: u16,
    partners: DevGitlab,
    _main: DevGitlab,
    _sample: SampleApp,
    _app: App,
}

impl Stage {
    async fn set() -> Self {
        let free = ([127, 0, 0, 1], 0).into();
        let listener = accept::bind(free).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let (main, partners) = (gitlab(port).await, gitlab(port).await);
        main.command(Command::AddUser { username: LONG.into(), email: None, bot: false })
            .expect("another person");
        partners.set_state("alice", UserState::TermsNotAccepted).expect("alice");
        let options = upstream::Options { listen: free, or_other_port: false, force_public: false };
        let sample = SampleApp::start(options).await.expect("a sample app");
        let key = KeyRing::generate(&Random::system()).expect("random numbers");
        let config = CONFIG
            .replace("PORT", &port.to_string())
            .replace("MAIN", main.external_url())
            .replace("PARTNERS", partners.external_url())
            .replace("SAMPLE", &sample.url())
            .replace("KEY", key.as_str());
        let config: Config = toml::from_str(&config).expect("the configuration");
        let (plan, problems) = Plan::draw(&config, &|_| None);
        let plan = plan.unwrap_or_else(|| panic!("{problems:#?}"));
        let app = App::start_on(listener, plan, Clock::system(), &Handle::current(), 1, &|_| None);
        Self { port, partners, _main: main, _sample: sample, _app: app.expect("labgate") }
    }
}

async fn gitlab(port: u16) -> DevGitlab {
    let callback = format!("http://127.0.0.1:{port}/oauth2/callback");
    let applications =
        ["labgate", "misset"].map(|id| Application::new(id, "its-secret", &[&callback]));
    let options =
        gitlab::Options { applications: applications.into(), ..gitlab::Options::default() };
    DevGitlab::start(options).await.expect("a development GitLab")
}

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
public_url = "http://127.0.0.1:PORT"
[gitlab.main]
base_url = "MAIN"
client_id = "labgate"
client_secret = "its-secret"
label = "GitLab"
[gitlab.partners]
base_url = "PARTNERS"
client_id = "labgate"
client_secret = "its-secret"
label = "Partners’ GitLab"
[gitlab.misset]
base_url = "MAIN"
client_id = "misset"
client_secret = "another-secret"
label = "GitLab, misset"
[session]
keys = ["KEY"]
[[route]]
host = "127.0.0.1"
path = "/private"
gitlab = ["main", "partners"]
upstream = "SAMPLE"
allow = "signed-in"
[[route]]
host = "127.0.0.1"
path = "/ops"
gitlab = ["main"]
upstream = "SAMPLE"
allow = [
    { group = "acme/ops", role = "maintainer" },
    { group = "acme/web/platform-engineering/infrastructure/observability", role = "owner" },
    { user = "root" },
]
[[route]]
host = "127.0.0.1"
path = "/misset"
gitlab = ["misset"]
upstream = "SAMPLE"
allow = "signed-in"
[[route]]
host = "127.0.0.1"
path = "/down"
upstream = "http://127.0.0.1:9"
allow = "public"
[[route]]
host = "127.0.0.1"
path = "/posted"
methods = ["POST"]
upstream = "SAMPLE"
allow = "public"
"#;

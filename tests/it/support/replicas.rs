//! Several labgates with the same keys and store behind one balancer: as processes, or in this process with a clock that can be turned.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use labgate::{
    app::App,
    demo::{gitlab::DevGitlab, upstream::SampleApp},
};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::{
    Browser, Lab, Process, Setup, Site, appears, balancer::Balancer, daemon::free, get, run,
};

/// Processes behind a balancer; GitLab and the sample app are in this process. They follow the clock of the machine.
pub struct Replicas {
    pub gitlab: DevGitlab,
    _sample: SampleApp,
    pub labgates: Vec<Replica>,
    pub balancer: Balancer,
}

/// One of them, on ports that it keeps over restarts.
pub struct Replica {
    pub process: Process,
    pub addr: SocketAddr,
    pub admin: SocketAddr,
    pub config: String,
}

/// A lab whose labgate has twins, all of them behind a balancer.
pub struct Twins {
    pub lab: Lab,
    pub others: Vec<App>,
    pub balancer: Balancer,
}

/// Which balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    Nginx,
    Haproxy,
}

impl Setup {
    /// Starts so many processes, with `store` as in `[session]`.
    pub async fn replicas(self, count: usize, store: &str, before: Before) -> Replicas {
        let Site { gitlab, sample, config, .. } =
            self.session(&format!("store = {store}\n")).furnish().await;
        let mut labgates = Vec::new();
        for _ in 0..count {
            labgates.push(Replica::start(&config).await);
        }
        let addresses: Vec<_> = labgates.iter().map(|one| (one.addr, one.admin)).collect();
        let balancer = match before {
            Before::Haproxy => Balancer::haproxy(&addresses).await,
            Before::Nginx => {
                let addresses: Vec<_> = addresses.iter().map(|(addr, _)| *addr).collect();
                Balancer::nginx(&addresses).await
            },
        };
        Replicas { gitlab, _sample: sample, labgates, balancer }
    }

    /// Starts so many labgates in this process, with `store` as in `[session]`.
    pub async fn twins(self, count: usize, store: &str) -> Twins {
        let lab = self.session(&format!("store = {store}\n")).start().await;
        let others: Vec<_> = (1..count).map(|_| run(&lab.config, &lab.clock, 1)).collect();
        let all: Vec<_> = [&lab.app].into_iter().chain(&others).map(App::addr).collect();
        let balancer = Balancer::nginx(&all).await;
        Twins { lab, others, balancer }
    }
}

impl Replica {
    async fn start(config: &str) -> Self {
        let (addr, admin) = (free(), free());
        let config = config
            .replace("listen = \"127.0.0.1:0\"", &format!("listen = \"{addr}\""))
            .replace("admin = \"127.0.0.1:0\"", &format!("admin = \"{admin}\""));
        let process = Process::with(&config, &[]);
        process.addresses().await;
        Self { process, addr, admin, config }
    }

    /// Starts it anew on the same ports; the process before must have ended, or is killed.
    pub async fn again(&mut self) {
        self.process.kill();
        self.process = Process::with(&self.config, &[]);
        self.process.addresses().await;
    }

    /// The value of one metric, labels included in `series`; zero if it is not there.
    pub async fn count(&self, series: &str) -> u64 {
        let text = get(self.admin, "/metrics").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().expect("a whole number"))
    }
}

impl Replicas {
    /// A browser without cookies, before the balancer.
    pub fn browser(&self) -> Browser {
        Browser::new(self.balancer.addr, self.gitlab.addr(), self.gitlab.external_url())
    }

    /// A browser in which `user` is signed in.
    pub async fn signed_in(&self, user: &str) -> Browser {
        signed_in(self.browser(), user).await
    }

    /// The value of one metric over all that run.
    pub async fn total(&self, series: &str) -> u64 {
        let mut total = 0;
        for labgate in &self.labgates {
            total += labgate.count(series).await;
        }
        total
    }

    /// Ends each in good order and starts it anew, one after the other.
    pub async fn roll(&mut self) {
        for labgate in &mut self.labgates {
            labgate.process.signal("TERM");
            assert_eq!(labgate.process.ended().await, 0);
            labgate.again().await;
            let admin = labgate.admin;
            let green = async || (get(admin, "/readyz").await.status == 200).then_some(());
            appears("a green replica", green).await;
        }
    }
}

impl Twins {
    /// A browser without cookies, before the balancer.
    pub fn browser(&self) -> Browser {
        let gitlab = &self.lab.gitlab;
        Browser::new(self.balancer.addr, gitlab.addr(), gitlab.external_url())
    }

    /// A browser in which `user` is signed in.
    pub async fn signed_in(&self, user: &str) -> Browser {
        signed_in(self.browser(), user).await
    }

    /// Where each of them listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        [&self.lab.app].into_iter().chain(&self.others).map(App::addr).collect()
    }

    /// The value of one metric over all of them.
    pub async fn total(&self, series: &str) -> u64 {
        let mut total = 0;
        for app in [&self.lab.app].into_iter().chain(&self.others) {
            let text = get(app.admin_addr(), "/metrics").await.text();
            let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
            total += line.map_or(0, |value| value.parse::<u64>().expect("a whole number"));
        }
        total
    }
}

async fn signed_in(mut browser: Browser, user: &str) -> Browser {
    let page = browser.sign_in("/private", user).await;
    assert_eq!(page.status, 200, "{user} can't sign in: {}", page.text());
    browser
}

/// Browsers that ask again and again until they are told to stop.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    browsers: JoinSet<Tally>,
}

/// What they met.
#[derive(Debug, Default)]
pub struct Tally {
    /// How often each status came.
    pub statuses: BTreeMap<u16, u64>,
    /// The longest that an answer took.
    pub slowest: Duration,
}

impl Load {
    /// Each of `browsers` asks for `path` every `pause`.
    pub fn start(browsers: Vec<Browser>, path: &'static str, pause: Duration) -> Self {
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        for mut browser in browsers {
            let stopped = stop.subscribe();
            tasks.spawn(async move {
                let mut tally = Tally::default();
                while !*stopped.borrow() {
                    let (status, took) = asked(&mut browser, path).await;
                    *tally.statuses.entry(status).or_default() += 1;
                    tally.slowest = tally.slowest.max(took);
                    sleep(pause).await;
                }
                tally
            });
        }
        Self { stop, browsers: tasks }
    }

    /// Lets them finish, and adds up.
    pub async fn end(self) -> Tally {
        self.stop.send_replace(true);
        let mut all = Tally::default();
        for tally in self.browsers.join_all().await {
            all.slowest = all.slowest.max(tally.slowest);
            for (status, count) in tally.statuses {
                *all.statuses.entry(status).or_default() += count;
            }
        }
        all
    }
}

impl Tally {
    /// Panics unless every answer was a 200.
    pub fn assert_all_served(&self) {
        assert!(self.statuses.get(&200).is_some_and(|count| *count > 0), "{self:?}");
        assert_eq!(self.statuses.len(), 1, "{self:?}");
    }
}

/// The status of one answer, and how long it took.
pub async fn asked(browser: &mut Browser, path: &str) -> (u16, Duration) {
    let began = Instant::now();
    (browser.xhr(path).await.status.as_u16(), began.elapsed())
}

/// The statuses of so many requests at once, each from a tab of its own with the same cookies.
pub async fn at_once(browser: &Browser, path: &'static str, count: usize) -> Vec<u16> {
    let mut all = JoinSet::new();
    for _ in 0..count {
        let mut tab = browser.clone();
        all.spawn(async move { tab.xhr(path).await.status.as_u16() });
    }
    all.join_all().await
}

//! How fast hooks may come: so many of one GitLab, and so few wrong tokens from one address that guessing one is hopeless.
//!
//! Whoever has used up the guesses is not compared any more, right or wrong: otherwise only the wrong ones would be slow. What GitLab sent too fast is not
//! read, but remembered: see [`Pace::lost`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The paces of a process; shared by all its gates.
#[derive(Default)]
pub(super) struct Pace(Mutex<Paces>);

#[derive(Default)]
struct Paces {
    hooks: BTreeMap<String, Bucket>,
    guesses: HashMap<IpAddr, Bucket>,
    lost: BTreeSet<String>,
    told: Option<Instant>,
}

/// What is left of an allowance that grows back.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// An allowance: so many at once, and so many a second after that.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    most: f64,
    a_second: f64,
}

impl Pace {
    /// Lets one hook of `gitlab` through, or says how long to wait.
    pub(super) fn hook(&self, gitlab: &str) -> Result<(), Duration> {
        let mut paces = self.lock();
        let Some(bucket) = paces.hooks.get_mut(gitlab) else {
            paces.hooks.insert(gitlab.to_owned(), Bucket::new(HOOKS).minus_one());
            return Ok(());
        };
        bucket.fill(HOOKS);
        let taken = bucket.wait(HOOKS);
        match taken {
            Ok(()) => *bucket = bucket.minus_one(),
            Err(_) => drop(paces.lost.insert(gitlab.to_owned())),
        }
        taken
    }

    /// The GitLabs of which hooks were not let through since this was last answered; once in a while at most.
    pub(super) fn lost(&self) -> BTreeSet<String> {
        let mut paces = self.lock();
        if paces.lost.is_empty() || paces.told.is_some_and(|told| told.elapsed() < TELL) {
            return BTreeSet::new();
        }
        paces.told = Some(Instant::now());
        std::mem::take(&mut paces.lost)
    }

    /// Whether `client` may still try a token, or how long it must wait.
    pub(super) fn may_guess(&self, client: IpAddr) -> Result<(), Duration> {
        let mut paces = self.lock();
        let key = paces.key(client);
        let Some(bucket) = paces.guesses.get_mut(&key) else { return Ok(()) };
        bucket.fill(GUESSES);
        bucket.wait(GUESSES)
    }

    /// Counts a wrong token of `client`.
    pub(super) fn guessed(&self, client: IpAddr) {
        let mut paces = self.lock();
        if paces.guesses.len() >= MOST {
            paces.guesses.retain(|_, bucket| {
                bucket.fill(GUESSES);
                bucket.left < GUESSES.most
            });
        }
        let key = paces.key(client);
        let bucket = paces.guesses.entry(key).or_insert_with(|| Bucket::new(GUESSES));
        bucket.fill(GUESSES);
        *bucket = bucket.minus_one();
    }

    fn lock(&self) -> MutexGuard<'_, Paces> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Paces {
    /// Who shares an allowance: a network of IPv6, which one customer has; and all who come when too many are remembered.
    fn key(&self, client: IpAddr) -> IpAddr {
        let key = match client.to_canonical() {
            IpAddr::V6(addr) => {
                let [a, b, c, d, ..] = addr.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            },
            addr @ IpAddr::V4(_) => addr,
        };
        let is_full = self.guesses.len() >= MOST && !self.guesses.contains_key(&key);
        if is_full { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { key }
    }
}

impl Bucket {
    fn new(allowance: Allowance) -> Self {
        Self { left: allowance.most, at: Instant::now() }
    }

    fn fill(&mut self, allowance: Allowance) {
        let now = Instant::now();
        let grown = now.duration_since(self.at).as_secs_f64() * allowance.a_second;
        *self = Self { left: allowance.most.min(self.left + grown), at: now };
    }

    fn wait(&self, allowance: Allowance) -> Result<(), Duration> {
        if self.left >= 1.0 {
            return Ok(());
        }
        Err(Duration::from_secs_f64(((1.0 - self.left) / allowance.a_second).ceil().max(1.0)))
    }

    fn minus_one(self) -> Self {
        Self { left: (self.left - 1.0).max(0.0), ..self }
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Pace")
    }
}

/// Hooks of one GitLab: a nightly synchronisation of groups comes all at once.
const HOOKS: Allowance = Allowance { most: 500.0, a_second: 50.0 };

/// Wrong tokens of one address.
const GUESSES: Allowance = Allowance { most: 10.0, a_second: 0.1 };

/// Addresses that are remembered at most.
const MOST: usize = 1024;

/// How often lost hooks are told of.
const TELL: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_then_a_steady_pace_and_each_gitlab_has_its_own() {
        let pace = Pace::default();
        let burst = (0..1000).filter(|_| pace.hook("main").is_ok()).count();
        assert_eq!(burst, 500);
        assert_eq!(pace.hook("main"), Err(Duration::from_secs(1)));
        assert!(pace.hook("other").is_ok());
        advance(Duration::from_secs(2)).await;
        assert_eq!((0..1000).filter(|_| pace.hook("main").is_ok()).count(), 100);
        advance(Duration::from_hours(1)).await;
        assert_eq!((0..1000).filter(|_| pace.hook("main").is_ok()).count(), 500);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_lost_is_told_once_and_not_all_the_time() {
        let pace = Pace::default();
        assert!(pace.lost().is_empty());
        assert_eq!((0..501).filter(|_| pace.hook("main").is_err()).count(), 1);
        assert_eq!(pace.lost(), BTreeSet::from(["main".to_owned()]));
        assert!(pace.hook("main").is_err());
        assert!(pace.lost().is_empty(), "it has just been told");
        advance(TELL).await;
        assert_eq!(pace.lost().len(), 1, "the one that was lost meanwhile");
        advance(TELL).await;
        assert!(pace.lost().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_tokens_use_up_an_address_and_no_other() {
        let pace = Pace::default();
        let (v4, v6) = (addr("192.0.2.1"), addr("2001:db8::1"));
        for client in [v4, v6] {
            for _ in 0..10 {
                assert!(pace.may_guess(client).is_ok());
                pace.guessed(client);
            }
            assert_eq!(pace.may_guess(client), Err(Duration::from_secs(10)));
        }
        assert!(pace.may_guess(addr("::ffff:192.0.2.1")).is_err(), "the same in other words");
        assert!(pace.may_guess(addr("2001:db8::ffff:2")).is_err(), "the same network");
        assert!(pace.may_guess(addr("2001:db8:0:1::1")).is_ok());
        assert!(pace.may_guess(addr("192.0.2.2")).is_ok());
        advance(Duration::from_secs(10)).await;
        assert!(pace.may_guess(v4).is_ok());
        pace.guessed(v4);
        assert!(pace.may_guess(v4).is_err(), "one in ten seconds");
    }

    #[tokio::test(start_paused = true)]
    async fn many_addresses_take_little_room_and_are_no_way_round() {
        let pace = Pace::default();
        let client = |number: u32| IpAddr::V4(number.into());
        (0..100_000).for_each(|number| pace.guessed(client(number)));
        assert!(pace.lock().guesses.len() <= MOST + 1);
        assert!(pace.may_guess(client(200_000)).is_err(), "the others share one allowance");
        advance(Duration::from_hours(1)).await;
        pace.guessed(client(1));
        assert!(pace.lock().guesses.len() <= 2, "full ones are forgotten");
    }
}

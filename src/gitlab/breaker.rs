//! Whether calls are worth while: a circuit breaker, so that nobody waits for what can't come.
//!
//! ```text
//! closed ──3 failures in a row, or "too many requests"──▶ open ──pause over: one call──▶ open (answer awaited)
//!    ▲                                                                                      │
//!    └─────────────────────────────────any answer────────────────────────────────────────────┘
//! ```
//!
//! The pause doubles from one second to half a minute; one that GitLab named is kept, a minute at most.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Failures in a row that open the circuit.
const FAILURES: u32 = 3;
/// The first pause.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause of our own.
const LONGEST: Duration = Duration::from_secs(30);
/// The longest pause that GitLab may ask for.
const LONGEST_ASKED: Duration = Duration::from_mins(1);
/// How long the one call after a pause may take before another is let through.
const TRIAL: Duration = Duration::from_secs(11);

/// What a call says of GitLab's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It answers.
    Up,
    /// It can't be reached, or says itself that it is down.
    Down,
    /// It asks whoever called to come back later, perhaps when.
    Limited(Option<Duration>),
    /// It asks one account to come back later, whoever else calls.
    OneAccount,
    /// Nothing, such as a fault in one answer.
    Unclear,
}

#[derive(Debug, Default)]
pub(super) struct Breaker {
    state: Mutex<State>,
    opened: Notify,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    pause: Duration,
    /// Set while open: when the next call may be tried.
    retry: Option<Instant>,
    /// GitLab named this moment; other answers don't shorten it.
    asked: bool,
}

impl Breaker {
    /// Whether the circuit is open.
    pub(super) fn is_open(&self) -> bool {
        self.lock().retry.is_some()
    }

    /// Lets a call through, or says how long to wait.
    pub(super) fn admit(&self) -> Result<(), Duration> {
        let now = Instant::now();
        let mut state = self.lock();
        match state.retry {
            Some(retry) if now < retry => Err(retry.duration_since(now)),
            Some(_) => {
                // Time, not a guard, gives the trial back: the call may be dropped without a verdict.
                state.retry = Some(now + TRIAL);
                state.asked = false;
                Ok(())
            },
            None => Ok(()),
        }
    }

    /// How long until a call is let through again, zero if at once.
    pub(super) fn wait(&self) -> Duration {
        let retry = self.lock().retry;
        retry.map_or(Duration::ZERO, |retry| retry.saturating_duration_since(Instant::now()))
    }

    /// Waits for the circuit to open.
    pub(super) async fn opened(&self) {
        while !self.is_open() {
            self.opened.notified().await;
        }
    }

    /// Counts what a call has shown.
    pub(super) fn note(&self, verdict: Verdict) {
        let now = Instant::now();
        let mut state = self.lock();
        match verdict {
            // A late answer to a call from before the pause doesn't end it.
            Verdict::Up if state.asked && state.retry.is_some_and(|retry| now < retry) => {},
            Verdict::Up => *state = State::default(),
            Verdict::Down | Verdict::Limited(None) => state.fail(now),
            Verdict::Limited(Some(pause)) => {
                state.retry = Some(now + pause.min(LONGEST_ASKED));
                state.asked = true;
            },
            Verdict::OneAccount | Verdict::Unclear => {},
        }
        if state.retry.is_some() {
            self.opened.notify_one();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fail(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES || self.asked {
            return;
        }
        self.pause = (self.pause * 2).clamp(FIRST, LONGEST);
        self.retry = Some(now + self.pause);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn opens_after_three_failures_and_lets_one_call_through_after_each_pause() {
        let breaker = Breaker::default();
        breaker.note(Verdict::Down);
        breaker.note(Verdict::Down);
        assert!(!breaker.is_open());
        breaker.note(Verdict::Down);
        assert_eq!(breaker.admit(), Err(FIRST));
        advance(FIRST).await;
        assert_eq!(breaker.admit(), Ok(()));
        assert_eq!(breaker.admit(), Err(TRIAL), "one at a time");
        assert!(breaker.is_open(), "still known to be down");
        breaker.note(Verdict::Down);
        assert_eq!(breaker.admit(), Err(FIRST * 2));
        advance(FIRST * 2).await;
        assert_eq!(breaker.admit(), Ok(()));
        breaker.note(Verdict::Up);
        assert!(!breaker.is_open());
        assert_eq!(breaker.admit(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_never_reports_gives_way() {
        let breaker = Breaker::default();
        (0..3).for_each(|_| breaker.note(Verdict::Down));
        advance(FIRST).await;
        assert_eq!(breaker.admit(), Ok(()));
        advance(TRIAL).await;
        assert_eq!(breaker.admit(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn successes_between_failures_keep_it_closed() {
        let breaker = Breaker::default();
        for _ in 0..10 {
            breaker.note(Verdict::Down);
            breaker.note(Verdict::Down);
            breaker.note(Verdict::Up);
        }
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_gitlab_asked_for_is_kept_but_bounded() {
        let breaker = Breaker::default();
        breaker.note(Verdict::Limited(Some(Duration::from_hours(24))));
        assert_eq!(breaker.admit(), Err(LONGEST_ASKED));
        breaker.note(Verdict::Up);
        assert!(breaker.admit().is_err(), "an older call's answer doesn't end it");
        advance(LONGEST_ASKED).await;
        assert_eq!(breaker.admit(), Ok(()));
        breaker.note(Verdict::Up);
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_stops_growing() {
        let breaker = Breaker::default();
        (0..40).for_each(|_| breaker.note(Verdict::Down));
        assert_eq!(breaker.wait(), LONGEST);
    }
}

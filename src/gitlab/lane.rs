//! What calls to GitLab are for, and what each kind may take up, so that strangers, who can begin sign-ins and send tokens, take nothing from those who are signed in.
//!
//! ```text
//! lane       turns      fails at once while        what its calls show
//! Code       24 of 48   GitLab's or own is open    counts for sign-ins alone
//! Newcomer   24 of 48   GitLab's or own is open    counts for sign-ins alone; 429 is one account's limit: nothing
//! Stranger   16 of 48   GitLab's or own is open    counts for strangers alone; 429 is a pause for this lane, unless GitLab says that it is one account's
//! Token      the same   GitLab's or own is open    counts for tokens alone; 429 is one account's limit: nothing
//! Person     48         GitLab's is open           counts for GitLab; 429 is one account's limit: nothing
//! Renewal    48         GitLab's or own is open    counts for GitLab; 429 for this lane alone
//! Public     48         GitLab's or own is open    counts for GitLab; 429 for this lane alone
//! ```
//!
//! Strangers' lanes together leave eight turns to the others, and one sign-in may put all its questions at once.
//! Calls about tokens are so many in a second, those of lane Stranger so many in a minute as well where GitLab counts calls of nobody it knows by address.
//! GitLab counts calls by account or by address, so a 429 never speaks for all of them. How long a circuit stays open is the breaker's.

use std::time::Duration;

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{
    CallError,
    breaker::{Breaker, Verdict},
    pace::Pace,
};

/// Calls to one GitLab at a time.
pub(super) const CALLS: usize = 48;
/// Those of sign-ins among them.
pub(super) const SIGN_IN_CALLS: usize = 24;
/// Those about tokens among them.
const TOKEN_CALLS: usize = 16;
/// How long a call may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long strangers' tokens wait after a 429 that names no time.
const UNNAMED: Duration = Duration::from_mins(1);

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Trades in the code of a sign-in; any stranger can cause it.
    Code,
    /// Asks about somebody who signs in, with their token.
    Newcomer,
    /// Asks whether GitLab knows a token that came with a request; any stranger can cause it, and it counts for labgate's address.
    Stranger,
    /// Asks about a token that GitLab has known lately.
    Token,
    /// Asks about somebody who is signed in, with their token.
    Person,
    /// Renews or revokes tokens.
    Renewal,
    /// Reads what everybody may.
    Public,
}

/// The turns and circuits of one GitLab.
#[derive(Debug)]
pub(super) struct Lanes {
    turns: Semaphore,
    sign_in_turns: Semaphore,
    token_turns: Semaphore,
    token_pace: Pace,
    stranger_pace: Option<Pace>,
    gitlab: Breaker,
    sign_ins: Breaker,
    strangers: Breaker,
    tokens: Breaker,
    renewals: Breaker,
    public: Breaker,
}

/// Leave to call; gives its place back when dropped.
pub(super) struct Turn<'a> {
    _of_its_kind: Option<SemaphorePermit<'a>>,
    _of_all: SemaphorePermit<'a>,
}

impl Lane {
    /// That of the first question about a token.
    pub(super) fn of_token(is_new: bool) -> Self {
        if is_new { Self::Stranger } else { Self::Token }
    }

    fn is_token(self) -> bool {
        matches!(self, Self::Stranger | Self::Token)
    }

    fn is_sign_in(self) -> bool {
        matches!(self, Self::Code | Self::Newcomer)
    }

    /// Whether anybody can cause its calls.
    fn is_of_strangers(self) -> bool {
        self.is_sign_in() || self.is_token()
    }
}

impl Lanes {
    /// All free, with at most `token_calls` calls about tokens in a second, and in a minute at most `unknown_calls` about tokens that GitLab does not know.
    pub(super) fn new(token_calls: usize, unknown_calls: Option<usize>) -> Self {
        Self {
            token_turns: Semaphore::new(TOKEN_CALLS),
            token_pace: Pace::new(token_calls, Duration::from_secs(1)),
            stranger_pace: unknown_calls.map(|most| Pace::new(most, Duration::from_mins(1))),
            strangers: Breaker::default(),
            tokens: Breaker::default(),
            turns: Semaphore::new(CALLS),
            sign_in_turns: Semaphore::new(SIGN_IN_CALLS),
            gitlab: Breaker::default(),
            sign_ins: Breaker::default(),
            renewals: Breaker::default(),
            public: Breaker::default(),
        }
    }

    /// Whether GitLab is known to be out of reach.
    pub(super) fn is_down(&self) -> bool {
        self.gitlab.is_open()
    }

    /// Waits until GitLab is known to be out of reach.
    pub(super) async fn went_down(&self) {
        self.gitlab.opened().await;
    }

    /// How long until a call of `lane` may be tried, zero if at once.
    pub(super) fn wait(&self, lane: Lane) -> Duration {
        let own = self.own(lane).map_or(Duration::ZERO, Breaker::wait);
        own.max(self.gitlab.wait())
    }

    /// Says how long to wait, if a call of `lane` would not be let through now.
    pub(super) fn check(&self, lane: Lane) -> Result<(), Duration> {
        let wait = self.wait(lane);
        // The one call after a pause is not left to strangers.
        let left_to_others = lane.is_of_strangers() && self.gitlab.is_open();
        if wait.is_zero() && !left_to_others { Ok(()) } else { Err(wait) }
    }

    /// Lets a call of `lane` through, or says how long to wait.
    pub(super) fn admit(&self, lane: Lane) -> Result<(), Duration> {
        self.check(lane)?;
        if !lane.is_of_strangers() {
            self.gitlab.admit()?;
        }
        self.own(lane).map_or(Ok(()), Breaker::admit)
    }

    /// A turn, if one comes up in time; that says nothing of GitLab.
    pub(super) async fn turn(&self, lane: Lane) -> Result<Turn<'_>, CallError> {
        let turn = async {
            // First, so that no turn is held while waiting for the other.
            let kind = match lane {
                Lane::Code | Lane::Newcomer => Some(&self.sign_in_turns),
                Lane::Stranger | Lane::Token => Some(&self.token_turns),
                Lane::Person | Lane::Renewal | Lane::Public => None,
            };
            let of_its_kind = match kind {
                Some(turns) => Some(turns.acquire().await.map_err(|_| CallError::Busy)?),
                None => None,
            };
            if let (Lane::Stranger, Some(pace)) = (lane, &self.stranger_pace) {
                // Before the other pace, or those who are sent away would take moments of those who are known.
                pace.turn(Duration::ZERO).await.map_err(CallError::Spent)?;
            }
            if lane.is_token() {
                self.token_pace.turn(PATIENCE).await.map_err(|_| CallError::Busy)?;
            }
            let of_all = self.turns.acquire().await.map_err(|_| CallError::Busy)?;
            Ok(Turn { _of_its_kind: of_its_kind, _of_all: of_all })
        };
        timeout(PATIENCE, turn).await.unwrap_or(Err(CallError::Busy))
    }

    /// GitLab has counted a call of `lane` for the token's account, so it leaves its place in the minute to a stranger.
    pub(super) fn was_known(&self, lane: Lane) {
        if let (Lane::Stranger, Some(pace)) = (lane, &self.stranger_pace) {
            pace.give_back();
        }
    }

    /// Counts what a call of `lane` has shown.
    pub(super) fn note(&self, lane: Lane, verdict: Verdict) {
        match (lane, verdict) {
            (_, Verdict::OneAccount)
            | (Lane::Person | Lane::Newcomer | Lane::Token, Verdict::Limited(_)) => {},
            (Lane::Stranger, Verdict::Limited(wait)) => {
                self.strangers.note(Verdict::Limited(wait.or(Some(UNNAMED))));
            },
            (Lane::Stranger, verdict) => self.strangers.note(verdict),
            (Lane::Token, verdict) => self.tokens.note(verdict),
            (Lane::Code | Lane::Newcomer, verdict) => self.sign_ins.note(verdict),
            (Lane::Renewal, Verdict::Limited(_)) => self.renewals.note(verdict),
            (Lane::Public, Verdict::Limited(_)) => self.public.note(verdict),
            (Lane::Person | Lane::Renewal | Lane::Public, verdict) => {
                self.gitlab.note(verdict);
                if verdict == Verdict::Up {
                    // Strangers notice with the others that it is back.
                    self.sign_ins.note(verdict);
                    self.strangers.note(verdict);
                    self.tokens.note(verdict);
                }
                if let Some(own) = self.own(lane) {
                    // Whatever came, it was no 429.
                    own.note(Verdict::Up);
                }
            },
        }
    }

    fn own(&self, lane: Lane) -> Option<&Breaker> {
        match lane {
            Lane::Code | Lane::Newcomer => Some(&self.sign_ins),
            Lane::Stranger => Some(&self.strangers),
            Lane::Token => Some(&self.tokens),
            Lane::Person => None,
            Lane::Renewal => Some(&self.renewals),
            Lane::Public => Some(&self.public),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANES: [Lane; 7] = [
        Lane::Code,
        Lane::Newcomer,
        Lane::Stranger,
        Lane::Token,
        Lane::Person,
        Lane::Renewal,
        Lane::Public,
    ];

    /// The lanes that are let through after five calls of `lane` have shown `verdict`.
    fn open_after(lane: Lane, verdict: Verdict) -> Vec<Lane> {
        let lanes = Lanes::new(1000, None);
        (0..5).for_each(|_| lanes.note(lane, verdict));
        LANES.into_iter().filter(|lane| lanes.check(*lane).is_ok()).collect()
    }

    #[test]
    fn the_limit_of_one_account_stops_nobody() {
        for lane in LANES {
            assert_eq!(open_after(lane, Verdict::OneAccount), LANES, "{lane:?}");
        }
    }

    #[test]
    fn a_limit_stops_at_most_its_own_kind_of_calls() {
        let but = |shut: &[Lane]| -> Vec<_> {
            LANES.into_iter().filter(|lane| !shut.contains(lane)).collect()
        };
        for wait in [None, Some(Duration::from_mins(1))] {
            let limited = |lane| open_after(lane, Verdict::Limited(wait));
            assert_eq!(limited(Lane::Code), but(&[Lane::Code, Lane::Newcomer]));
            assert_eq!(limited(Lane::Newcomer), LANES);
            assert_eq!(limited(Lane::Stranger), but(&[Lane::Stranger]));
            assert_eq!(limited(Lane::Token), LANES);
            assert_eq!(limited(Lane::Person), LANES);
            assert_eq!(limited(Lane::Renewal), but(&[Lane::Renewal]));
            assert_eq!(limited(Lane::Public), but(&[Lane::Public]));
        }
    }

    #[test]
    fn what_strangers_can_cause_shuts_out_strangers_alone() {
        for lane in [Lane::Code, Lane::Newcomer] {
            let open = open_after(lane, Verdict::Down);
            let others = [Lane::Stranger, Lane::Token, Lane::Person, Lane::Renewal, Lane::Public];
            assert_eq!(open, others);
        }
        for lane in [Lane::Stranger, Lane::Token] {
            let open = open_after(lane, Verdict::Down);
            let others: Vec<_> = LANES.into_iter().filter(|other| *other != lane).collect();
            assert_eq!(open, others);
        }
        for lane in [Lane::Person, Lane::Renewal, Lane::Public] {
            assert_eq!(open_after(lane, Verdict::Down), []);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_call_after_a_pause_is_not_left_to_strangers() {
        let lanes = Lanes::new(1000, None);
        (0..3).for_each(|_| lanes.note(Lane::Person, Verdict::Down));
        tokio::time::advance(lanes.wait(Lane::Person)).await;
        assert!(lanes.admit(Lane::Code).is_err());
        assert!(lanes.admit(Lane::Person).is_ok());
        assert!(lanes.admit(Lane::Person).is_err(), "one at a time");
        lanes.note(Lane::Person, Verdict::Up);
        assert!(lanes.admit(Lane::Code).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_of_one_lane_is_over_in_time() {
        let lanes = Lanes::new(1000, None);
        lanes.note(Lane::Renewal, Verdict::Limited(Some(Duration::from_secs(20))));
        assert_eq!(lanes.admit(Lane::Renewal), Err(Duration::from_secs(20)));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(lanes.admit(Lane::Renewal).is_ok());
        assert!(lanes.admit(Lane::Renewal).is_err(), "one at a time");
        lanes.note(Lane::Renewal, Verdict::Unclear);
        assert!(lanes.admit(Lane::Renewal).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_leave_turns_to_others() {
        let lanes = Lanes::new(1000, None);
        let mut taken = Vec::new();
        for (lane, kin, most) in [
            (Lane::Code, Lane::Newcomer, SIGN_IN_CALLS),
            (Lane::Token, Lane::Stranger, TOKEN_CALLS),
            (Lane::Person, Lane::Renewal, 8),
        ] {
            for _ in 0..most {
                taken.push(lanes.turn(lane).await.unwrap());
            }
            assert!(lanes.turn(kin).await.is_err(), "{lane:?}");
        }
        drop(taken);
        assert!(lanes.turn(Lane::Code).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_pause_for_a_429_even_if_it_names_no_time() {
        for (named, pause) in [(None, 60), (Some(7), 7), (Some(3600), 60)] {
            let lanes = Lanes::new(1000, None);
            lanes.note(Lane::Stranger, Verdict::Limited(named.map(Duration::from_secs)));
            let pause = Duration::from_secs(pause);
            assert_eq!(lanes.admit(Lane::Stranger), Err(pause));
            assert_eq!(lanes.admit(Lane::Token), Ok(()));
            lanes.note(Lane::Person, Verdict::Up);
            assert_eq!(lanes.admit(Lane::Stranger), Err(pause), "GitLab is there, but counts");
            tokio::time::advance(pause).await;
            assert_eq!(lanes.admit(Lane::Stranger), Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_have_so_many_calls_in_a_minute_and_who_is_known_has_more() {
        let lanes = Lanes::new(1000, Some(3));
        let spent = async || match lanes.turn(Lane::Stranger).await {
            Err(CallError::Spent(wait)) => Some(wait),
            _ => None,
        };
        for _ in 0..10 {
            assert_eq!(spent().await, None);
            lanes.was_known(Lane::Stranger);
            lanes.was_known(Lane::Token);
        }
        for _ in 0..3 {
            assert_eq!(spent().await, None);
        }
        assert_eq!(spent().await, Some(Duration::from_mins(1)));
        for lane in LANES.into_iter().filter(|lane| *lane != Lane::Stranger) {
            assert!(lanes.turn(lane).await.is_ok(), "{lane:?}");
            lanes.was_known(lane);
        }
        assert_eq!(spent().await, Some(Duration::from_mins(1)), "nobody else gives back");
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!(spent().await, None);
    }
}

//! Flights to GitLab, one per session at a time: who joins one that is under way or has landed, and who begins a new one.
//!
//! ```text
//! under way ─────────────▶ everybody joins
//! landed: Renewed ───────▶ for a minute, older copies of the session join; with a word too old, they fly on as the newer copy
//!         Ended, Spent ──▶ for a minute
//!         Unheard ───────▶ for five seconds, or as long as GitLab asked for, a minute at most
//! lost (its task died) ──▶ a new one begins
//! took off before a mark ▶ a new one begins, behind it if it is under way: two at once would spend one refresh token twice
//! ```
//!
//! After that the store alone counts: what it has lost must be asked for again. What happens on a flight is the refresher's.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::Outcome;
use crate::{
    clock::Timestamp,
    session::{Deadlines, Freshness, Session, SessionId},
};

/// The flights of a process, under way or just landed.
#[derive(Debug, Default)]
pub struct Flights(Mutex<HashMap<SessionId, Flight>>);

/// Where a flight lands, and when: ages count from there.
type Landing = Option<(Instant, Outcome)>;

#[derive(Clone, Debug)]
struct Flight {
    waiting: Waiting,
    took_off: TakeOff,
}

/// When a flight began to ask GitLab.
type TakeOff = Arc<OnceLock<Instant>>;

/// A flight to make; lands with its outcome, or is lost when dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    /// The copy of the session to fly with.
    pub(super) session: Arc<Session>,
    landing: watch::Sender<Landing>,
    took_off: TakeOff,
    behind: Option<Waiting>,
}

impl Ticket {
    /// Waits until the flight before it has landed, and flies with what that brought; gives its outcome if nothing is left to ask.
    pub(super) async fn take_off(&mut self) -> Option<Outcome> {
        if let Some(before) = self.behind.take() {
            match before.landing().await {
                Some(Outcome::Renewed(new)) if new.generation > self.session.generation => {
                    self.session = new;
                },
                Some(over @ (Outcome::Ended | Outcome::Late(_))) => return Some(over),
                Some(Outcome::Renewed(_) | Outcome::Spent(_) | Outcome::Unheard(_)) | None => {},
            }
        }
        self.took_off.get_or_init(Instant::now);
        None
    }

    pub(super) fn land(self, outcome: Outcome) {
        self.landing.send_replace(Some((Instant::now(), outcome)));
    }
}

impl Flights {
    /// What to wait for, and the flight to make if none serves `session`, of which a mark was learnt at `marked`.
    pub(super) fn join(
        &self,
        session: &Arc<Session>,
        marked: Option<Instant>,
        now: Timestamp,
        deadlines: &Deadlines,
    ) -> (Waiting, Option<Ticket>) {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = flights.get(&session.id);
        let serves = |flight: &&Flight| flight.serves(session, marked, now, deadlines);
        if let Some(flight) = known.filter(serves) {
            return (flight.waiting.clone(), None);
        }
        let newer = known.and_then(|flight| flight.newer_than(session));
        let behind = known.and_then(Flight::under_way);
        sweep(&mut flights);
        let (landing, landed) = watch::channel(None);
        let took_off = TakeOff::default();
        let waiting = Waiting { landing: landed, since: Instant::now() };
        let flight = Flight { waiting: waiting.clone(), took_off: took_off.clone() };
        flights.insert(session.id, flight);
        let session = newer.unwrap_or_else(|| session.clone());
        (waiting, Some(Ticket { session, landing, took_off, behind }))
    }

    /// The newest copy of `session`, one that is in the air included if it lands within `patience`.
    pub(super) async fn newest(&self, session: Arc<Session>, patience: Duration) -> Arc<Session> {
        let Some(waiting) = self.known(&session.id) else { return session };
        match waiting.outcome(patience).await {
            Some(Outcome::Renewed(new) | Outcome::Late(new))
                if new.generation > session.generation =>
            {
                new
            },
            _ => session,
        }
    }

    fn known(&self, id: &SessionId) -> Option<Waiting> {
        let flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.get(id).map(|flight| flight.waiting.clone())
    }
}

impl Flights {
    /// Waits until none is under way, for `patience` at most.
    pub async fn landed(&self, patience: Duration) {
        let under_way = {
            let flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let flights = flights.values().map(|flight| flight.waiting.clone());
            flights.collect::<Vec<_>>()
        };
        let all = async {
            for flight in under_way {
                flight.outcome(patience).await;
            }
        };
        // The patience of all of them together.
        drop(timeout(patience, all).await);
    }
}

impl Flight {
    /// Whether this flight answers for `session` too, instead of a new one.
    fn serves(
        &self,
        session: &Session,
        marked: Option<Instant>,
        now: Timestamp,
        deadlines: &Deadlines,
    ) -> bool {
        let asked_before = self.asked_before(marked);
        let Some((landed, outcome)) = &*self.waiting.landing.borrow() else {
            return !asked_before && !self.is_lost();
        };
        let age = landed.elapsed();
        match outcome {
            Outcome::Renewed(_) | Outcome::Unheard(_) if asked_before => false,
            // The mark and the word are of one second.
            Outcome::Renewed(new) if marked.is_some() => {
                age < REMEMBERED
                    && new.generation >= session.generation
                    && is_fresh(new, now, deadlines)
            },
            Outcome::Renewed(new) if new.generation > session.generation => {
                age < REMEMBERED && is_fresh(new, now, deadlines)
            },
            // One that brought a good word but no new tokens is not repeated at once.
            Outcome::Renewed(new) => {
                new.generation == session.generation
                    && age < RETRY
                    && now.since(new.checked) < RETRY
                    && is_fresh(new, now, deadlines)
            },
            Outcome::Ended | Outcome::Late(_) => age < REMEMBERED,
            // An old copy of the cookie says nothing of newer tokens.
            Outcome::Spent(generation) => age < REMEMBERED && *generation >= session.generation,
            Outcome::Unheard(again) => age < again.unwrap_or(RETRY).clamp(RETRY, REMEMBERED),
        }
    }

    /// The copy that this flight has brought, if it is newer; the tokens of an older one are dead.
    fn newer_than(&self, session: &Session) -> Option<Arc<Session>> {
        match &*self.waiting.landing.borrow() {
            Some((_, Outcome::Renewed(new))) if new.generation > session.generation => {
                Some(new.clone())
            },
            _ => None,
        }
    }

    /// Whether GitLab was asked before a mark that was learnt at `marked`; one that waits for its turn will ask after it.
    fn asked_before(&self, marked: Option<Instant>) -> bool {
        marked.zip(self.took_off.get()).is_some_and(|(marked, took_off)| *took_off <= marked)
    }

    /// What to wait for, if it has not landed.
    fn under_way(&self) -> Option<Waiting> {
        let is_under_way = self.waiting.landing.borrow().is_none() && !self.is_lost();
        is_under_way.then(|| self.waiting.clone())
    }

    /// Whether its task has died on the way.
    fn is_lost(&self) -> bool {
        self.waiting.landing.has_changed().is_err()
    }

    /// Whether nobody can profit from it any more.
    fn is_over(&self) -> bool {
        let landed = self.waiting.landing.borrow().as_ref().map(|(landed, _)| landed.elapsed());
        landed.map_or_else(|| self.is_lost(), |age| age >= REMEMBERED)
    }
}

/// A flight to wait for, or not.
#[derive(Clone, Debug)]
pub struct Waiting {
    landing: watch::Receiver<Landing>,
    since: Instant,
}

impl Waiting {
    /// What came of it, if it comes within `patience`.
    pub async fn outcome(self, patience: Duration) -> Option<Outcome> {
        timeout(patience, self.landing()).await.ok().flatten()
    }

    /// What came of it; none if it was lost.
    async fn landing(mut self) -> Option<Outcome> {
        let landed = self.landing.wait_for(Option::is_some).await.ok()?;
        landed.as_ref().map(|(_, outcome)| outcome.clone())
    }

    /// What came of it, if it has landed already.
    pub fn landed(&self) -> Option<Outcome> {
        self.landing.borrow().as_ref().map(|(_, outcome)| outcome.clone())
    }

    /// How long ago it began.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }
}

/// Whether GitLab's word on it is good enough for a request.
pub(super) fn is_fresh(session: &Session, now: Timestamp, deadlines: &Deadlines) -> bool {
    matches!(session.freshness(now, deadlines), Freshness::Good | Freshness::Due)
}

/// Forgets flights that are over; runs when the map has grown by half since the last time.
fn sweep(flights: &mut HashMap<SessionId, Flight>) {
    if flights.len() == flights.capacity() {
        flights.retain(|_, flight| !flight.is_over());
    }
}

/// How long late requests with an old cookie get what a flight brought.
const REMEMBERED: Duration = Duration::from_mins(1);

/// How soon GitLab is asked again about a session on which it gave no word.
const RETRY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::{
        super::tests::{DEADLINES, NOW, session},
        *,
    };

    /// Seconds for which a flight answers for a session of generation 1.
    async fn serves_for(flight: &Flight) -> u64 {
        let mut seconds = 0;
        while seconds < 3600 && flight.serves(&session(1), None, NOW, &DEADLINES) {
            advance(Duration::from_secs(1)).await;
            seconds += 1;
        }
        seconds
    }

    async fn landed_serves_for(outcome: Outcome) -> u64 {
        serves_for(&flight(watch::channel(Some((Instant::now(), outcome))).1)).await
    }

    fn flight(landing: watch::Receiver<Landing>) -> Flight {
        Flight { waiting: Waiting { landing, since: Instant::now() }, took_off: TakeOff::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_flight_brought_is_remembered_for_a_while_and_never_for_good() {
        let (_sender, under_way) = watch::channel(None);
        assert_eq!(serves_for(&flight(under_way)).await, 3600, "it is under way");
        assert_eq!(landed_serves_for(Outcome::Renewed(session(2))).await, 60);
        assert_eq!(landed_serves_for(Outcome::Renewed(session(1))).await, 5, "nothing newer");
        assert_eq!(landed_serves_for(Outcome::Renewed(session(0))).await, 0, "of an older copy");
        assert_eq!(landed_serves_for(Outcome::Ended).await, 60);
        assert_eq!(landed_serves_for(Outcome::Late(session(2))).await, 60);
        assert_eq!(landed_serves_for(Outcome::Spent(1)).await, 60);
        assert_eq!(landed_serves_for(Outcome::Spent(0)).await, 0, "of an older copy");
        for (asked_for, seconds) in [(None, 5), (Some(1), 5), (Some(30), 30), (Some(3600), 60)] {
            let asked_for = asked_for.map(Duration::from_secs);
            assert_eq!(landed_serves_for(Outcome::Unheard(asked_for)).await, seconds);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ages_count_from_the_landing() {
        let (flights, old) = (Flights::default(), session(1));
        let (_, ticket) = flights.join(&old, None, NOW, &DEADLINES);
        advance(Duration::from_secs(59)).await;
        let (late, _) = flights.join(&old, None, NOW, &DEADLINES);
        assert_eq!(late.age(), Duration::from_secs(59), "that of a flight counts from its begin");
        ticket.unwrap().land(Outcome::Renewed(session(2)));
        advance(Duration::from_secs(59)).await;
        assert!(flights.join(&old, None, NOW, &DEADLINES).1.is_none());
        advance(Duration::from_secs(1)).await;
        assert!(flights.join(&old, None, NOW, &DEADLINES).1.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flight_that_is_lost_makes_room_for_another() {
        let (flights, old) = (Flights::default(), session(1));
        let (waiting, ticket) = flights.join(&old, None, NOW, &DEADLINES);
        assert!(flights.join(&old, None, NOW, &DEADLINES).1.is_none(), "it is under way");
        drop(ticket);
        assert!(waiting.outcome(Duration::from_secs(1)).await.is_none());
        assert!(flights.join(&old, None, NOW, &DEADLINES).1.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn lost_and_landed_flights_are_swept() {
        let flights = Flights::default();
        for _ in 0..10_000 {
            let (_, ticket) = flights.join(&session(1), None, NOW, &DEADLINES);
            drop(ticket);
        }
        assert!(flights.0.lock().unwrap().len() < 5000);
        for _ in 0..10_000 {
            let (_, ticket) = flights.join(&session(1), None, NOW, &DEADLINES);
            ticket.unwrap().land(Outcome::Ended);
            advance(Duration::from_secs(1)).await;
        }
        assert!(flights.0.lock().unwrap().len() < 5000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_word_too_old_is_asked_for_again_with_the_newer_copy() {
        let flights = Flights::default();
        let old = session(1);
        let newer = Arc::new(Session { generation: 2, ..Session::clone(&old) });
        let (_, ticket) = flights.join(&old, None, NOW, &DEADLINES);
        ticket.unwrap().land(Outcome::Renewed(newer));
        assert!(flights.join(&old, None, NOW, &DEADLINES).1.is_none());
        let later = NOW + DEADLINES.recheck + Duration::from_secs(1);
        let (_, ticket) = flights.join(&old, None, later, &DEADLINES);
        assert_eq!(ticket.unwrap().session.generation, 2, "its tokens are alive");
    }

    #[tokio::test(start_paused = true)]
    async fn a_word_that_is_not_good_is_asked_for_again_however_soon() {
        let (flights, old) = (Flights::default(), session(1));
        let (_, ticket) = flights.join(&old, None, NOW, &DEADLINES);
        ticket.unwrap().land(Outcome::Renewed(session(1)));
        assert!(flights.join(&old, None, NOW, &DEADLINES).1.is_none());
        let short = Deadlines { recheck: Duration::from_secs(2), ..DEADLINES };
        let later = NOW + Duration::from_secs(4);
        assert!(flights.join(&old, None, later, &short).1.is_some(), "older than `recheck`");
        let (_, ticket) = flights.join(&session(2), None, NOW, &DEADLINES);
        ticket.unwrap().land(Outcome::Renewed(session(2)));
        let back = NOW - Duration::from_mins(10);
        assert!(
            flights.join(&session(2), None, back, &DEADLINES).1.is_some(),
            "the clock went back"
        );
    }

    /// A newer copy of the same session.
    fn renewed(old: &Session, generation: u32) -> Arc<Session> {
        Arc::new(Session { generation, ..old.clone() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_word_from_before_a_mark_answers_nobody_and_one_from_after_it_does() {
        let (flights, old) = (Flights::default(), session(1));
        let (_, ticket) = flights.join(&old, None, NOW, &DEADLINES);
        let mut ticket = ticket.unwrap();
        assert!(ticket.take_off().await.is_none());
        ticket.land(Outcome::Renewed(renewed(&old, 2)));
        let marked = Some(Instant::now());
        let (_, ticket) = flights.join(&old, marked, NOW, &DEADLINES);
        let mut ticket = ticket.expect("GitLab must be asked again");
        assert_eq!(ticket.session.generation, 2, "its tokens are alive");
        advance(Duration::from_millis(1)).await;
        assert!(ticket.take_off().await.is_none());
        assert!(flights.join(&old, marked, NOW, &DEADLINES).1.is_none(), "it is under way");
        ticket.land(Outcome::Renewed(renewed(&old, 3)));
        for copy in [1, 2, 3] {
            let copy = renewed(&old, copy);
            assert!(flights.join(&copy, marked, NOW, &DEADLINES).1.is_none(), "asked after it");
        }
        advance(REMEMBERED).await;
        assert!(flights.join(&old, marked, NOW, &DEADLINES).1.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn no_word_from_before_a_mark_is_no_answer_either() {
        let (flights, old) = (Flights::default(), session(1));
        let (_, ticket) = flights.join(&old, None, NOW, &DEADLINES);
        let mut ticket = ticket.unwrap();
        ticket.take_off().await;
        ticket.land(Outcome::Unheard(None));
        assert!(flights.join(&old, None, NOW, &DEADLINES).1.is_none());
        assert!(flights.join(&old, Some(Instant::now()), NOW, &DEADLINES).1.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn of_one_session_one_flight_is_in_the_air_and_one_at_most_waits_behind_it() {
        let (flights, old) = (Flights::default(), session(1));
        let (_, first) = flights.join(&old, None, NOW, &DEADLINES);
        let mut first = first.unwrap();
        first.take_off().await;
        let (waiting, second) = flights.join(&old, Some(Instant::now()), NOW, &DEADLINES);
        let mut second = second.expect("the first one asked too early");
        for _ in 0..3 {
            advance(Duration::from_secs(1)).await;
            let mark = Some(Instant::now());
            assert!(flights.join(&old, mark, NOW, &DEADLINES).1.is_none(), "it has yet to ask");
        }
        let early = timeout(Duration::from_secs(5), second.take_off()).await;
        assert!(early.is_err(), "two refreshes at once");
        // Cut off, the wait is over; a task would go on.
        let (_, third) = flights.join(&old, Some(Instant::now()), NOW, &DEADLINES);
        assert!(third.is_none());
        first.land(Outcome::Renewed(renewed(&old, 2)));
        assert!(second.take_off().await.is_none());
        second.land(Outcome::Renewed(renewed(&old, 3)));
        let outcome = waiting.outcome(Duration::from_secs(1)).await;
        assert!(matches!(outcome, Some(Outcome::Renewed(new)) if new.generation == 3));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_behind_a_flight_flies_with_what_it_brought() {
        for (brought, flies) in [
            (Outcome::Renewed(session(2)), Some(2)),
            (Outcome::Unheard(None), Some(1)),
            (Outcome::Spent(1), Some(1)),
            (Outcome::Ended, None),
            (Outcome::Late(session(2)), None),
        ] {
            let (flights, old) = (Flights::default(), session(1));
            let (_, first) = flights.join(&old, None, NOW, &DEADLINES);
            let mut first = first.unwrap();
            first.take_off().await;
            let (_, second) = flights.join(&old, Some(Instant::now()), NOW, &DEADLINES);
            let mut second = second.unwrap();
            first.land(brought.clone());
            let over = second.take_off().await;
            let generation = over.is_none().then_some(second.session.generation);
            assert_eq!(generation, flies, "{brought:?}");
        }
    }
}

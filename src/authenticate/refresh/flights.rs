//! Flights to GitLab, one per session at a time: who joins one that is under way or has landed, and who begins a new one.
//!
//! ```text
//! under way ─────────────▶ everybody joins
//! landed: Renewed ───────▶ for a minute, older copies of the session join; with a word too old, they fly on as the newer copy
//!         Ended, Spent ──▶ for a minute
//!         Unheard ───────▶ for five seconds, or as long as GitLab asked for, a minute at most
//! lost (its task died) ──▶ a new one begins
//! ```
//!
//! After that the store alone counts: what it has lost must be asked for again. What happens on a flight is the refresher's.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
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
struct Flight(watch::Receiver<Landing>);

/// A flight to make; lands with its outcome, or is lost when dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    /// The copy of the session to fly with.
    pub(super) session: Arc<Session>,
    landing: watch::Sender<Landing>,
}

impl Ticket {
    pub(super) fn land(self, outcome: Outcome) {
        self.landing.send_replace(Some((Instant::now(), outcome)));
    }
}

impl Flights {
    /// What to wait for, and the flight to make if none serves `session`.
    pub(super) fn join(
        &self,
        session: &Arc<Session>,
        now: Timestamp,
        deadlines: &Deadlines,
    ) -> (Waiting, Option<Ticket>) {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = flights.get(&session.id);
        if let Some(flight) = known.filter(|flight| flight.serves(session, now, deadlines)) {
            return (Waiting(flight.0.clone()), None);
        }
        let newer = known.and_then(|flight| flight.newer_than(session));
        sweep(&mut flights);
        let (landing, landed) = watch::channel(None);
        flights.insert(session.id, Flight(landed.clone()));
        let session = newer.unwrap_or_else(|| session.clone());
        (Waiting(landed), Some(Ticket { session, landing }))
    }
}

impl Flights {
    /// Waits until none is under way, for `patience` at most.
    pub async fn landed(&self, patience: Duration) {
        let under_way = {
            let flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let flights = flights.values().map(|flight| Waiting(flight.0.clone()));
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
    fn serves(&self, session: &Session, now: Timestamp, deadlines: &Deadlines) -> bool {
        let Some((landed, outcome)) = &*self.0.borrow() else { return !self.is_lost() };
        let age = landed.elapsed();
        match outcome {
            Outcome::Renewed(new) if new.generation > session.generation => {
                age < REMEMBERED && is_fresh(new, now, deadlines)
            },
            // One that brought a good word but no new tokens is not repeated at once.
            Outcome::Renewed(new) => {
                new.generation == session.generation
                    && age < RETRY
                    && now.since(new.checked) < RETRY
            },
            Outcome::Ended => age < REMEMBERED,
            // An old copy of the cookie says nothing of newer tokens.
            Outcome::Spent(generation) => age < REMEMBERED && *generation >= session.generation,
            Outcome::Unheard(again) => age < again.unwrap_or(RETRY).clamp(RETRY, REMEMBERED),
        }
    }

    /// The copy that this flight has brought, if it is newer; the tokens of an older one are dead.
    fn newer_than(&self, session: &Session) -> Option<Arc<Session>> {
        match &*self.0.borrow() {
            Some((_, Outcome::Renewed(new))) if new.generation > session.generation => {
                Some(new.clone())
            },
            _ => None,
        }
    }

    /// Whether its task has died on the way.
    fn is_lost(&self) -> bool {
        self.0.has_changed().is_err()
    }

    /// Whether nobody can profit from it any more.
    fn is_over(&self) -> bool {
        let landed = self.0.borrow().as_ref().map(|(landed, _)| landed.elapsed());
        landed.map_or_else(|| self.is_lost(), |age| age >= REMEMBERED)
    }
}

/// A flight to wait for, or not.
#[derive(Debug)]
pub struct Waiting(watch::Receiver<Landing>);

impl Waiting {
    /// What came of it, if it comes within `patience`.
    pub async fn outcome(mut self, patience: Duration) -> Option<Outcome> {
        let landed = timeout(patience, self.0.wait_for(Option::is_some)).await.ok()?;
        landed.ok()?.as_ref().map(|(_, outcome)| outcome.clone())
    }

    /// What came of it, if it has landed already.
    pub fn landed(&self) -> Option<Outcome> {
        self.0.borrow().as_ref().map(|(_, outcome)| outcome.clone())
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
        while seconds < 3600 && flight.serves(&session(1), NOW, &DEADLINES) {
            advance(Duration::from_secs(1)).await;
            seconds += 1;
        }
        seconds
    }

    async fn landed_serves_for(outcome: Outcome) -> u64 {
        serves_for(&Flight(watch::channel(Some((Instant::now(), outcome))).1)).await
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_flight_brought_is_remembered_for_a_while_and_never_for_good() {
        let (_sender, under_way) = watch::channel(None);
        assert_eq!(serves_for(&Flight(under_way)).await, 3600, "it is under way");
        assert_eq!(landed_serves_for(Outcome::Renewed(session(2))).await, 60);
        assert_eq!(landed_serves_for(Outcome::Renewed(session(1))).await, 5, "nothing newer");
        assert_eq!(landed_serves_for(Outcome::Renewed(session(0))).await, 0, "of an older copy");
        assert_eq!(landed_serves_for(Outcome::Ended).await, 60);
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
        let (_, ticket) = flights.join(&old, NOW, &DEADLINES);
        advance(Duration::from_secs(59)).await;
        ticket.unwrap().land(Outcome::Renewed(session(2)));
        advance(Duration::from_secs(59)).await;
        assert!(flights.join(&old, NOW, &DEADLINES).1.is_none());
        advance(Duration::from_secs(1)).await;
        assert!(flights.join(&old, NOW, &DEADLINES).1.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flight_that_is_lost_makes_room_for_another() {
        let (flights, old) = (Flights::default(), session(1));
        let (waiting, ticket) = flights.join(&old, NOW, &DEADLINES);
        assert!(flights.join(&old, NOW, &DEADLINES).1.is_none(), "it is under way");
        drop(ticket);
        assert!(waiting.outcome(Duration::from_secs(1)).await.is_none());
        assert!(flights.join(&old, NOW, &DEADLINES).1.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn lost_and_landed_flights_are_swept() {
        let flights = Flights::default();
        for _ in 0..10_000 {
            let (_, ticket) = flights.join(&session(1), NOW, &DEADLINES);
            drop(ticket);
        }
        assert!(flights.0.lock().unwrap().len() < 5000);
        for _ in 0..10_000 {
            let (_, ticket) = flights.join(&session(1), NOW, &DEADLINES);
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
        let (_, ticket) = flights.join(&old, NOW, &DEADLINES);
        ticket.unwrap().land(Outcome::Renewed(newer));
        assert!(flights.join(&old, NOW, &DEADLINES).1.is_none());
        let later = NOW + DEADLINES.recheck + Duration::from_secs(1);
        let (_, ticket) = flights.join(&old, later, &DEADLINES);
        assert_eq!(ticket.unwrap().session.generation, 2, "its tokens are alive");
    }
}

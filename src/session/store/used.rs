//! Tickets that were used, each remembered until it is over: here for this process, in Redis for all replicas.
//!
//! ```text
//! {prefix}t:{id as 32 hexadecimal digits}    string  "1"; set once, ends by itself
//! ```
//!
//! Nothing but the store can prove that a ticket comes for the first time. So when Redis can't be asked, or memory is full, the answer is an error,
//! and whoever asks must refuse.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use super::{Store, Unavailable};
use crate::{clock::Timestamp, session::TicketId};

/// The tickets that this process has seen used.
#[derive(Debug, Default)]
pub(super) struct Used(Mutex<Tickets>);

#[derive(Debug, Default)]
struct Tickets {
    ends: HashMap<TicketId, Timestamp>,
    order: VecDeque<TicketId>,
}

impl Store {
    /// Uses the ticket `id`, which is over at `until`; false if it was used before.
    ///
    /// # Errors
    /// When nobody can say.
    pub async fn spend(
        &self,
        id: &TicketId,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<bool, Unavailable> {
        if !self.used.spend(id, until, now)? {
            return Ok(false);
        }
        match self.remote.load_full() {
            None => Ok(true),
            Some(remote) => remote.spend(id, until, now).await,
        }
    }
}

#[cfg(feature = "redis")]
impl super::Remote {
    /// Uses the ticket `id` for all replicas.
    pub(super) async fn spend(
        &self,
        id: &TicketId,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<bool, Unavailable> {
        let key = self.key_of(&format!("t:{:032x}", u128::from_be_bytes(*id)));
        let lasts = until.since(now).as_secs().max(1);
        let set = redis::cmd("SET").arg(key).arg("1").arg("NX").arg("EX").arg(lasts).to_owned();
        let set: Option<String> = self.count("spend", self.link.run(&set).await)?;
        Ok(set.is_some())
    }
}

impl Used {
    fn spend(&self, id: &TicketId, until: Timestamp, now: Timestamp) -> Result<bool, Unavailable> {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.forget(now);
        if tickets.ends.contains_key(id) {
            return Ok(false);
        }
        if tickets.ends.len() >= MOST {
            return Err(Unavailable("too many tickets were used within a minute".into()));
        }
        tickets.ends.insert(*id, until);
        tickets.order.push_back(*id);
        Ok(true)
    }
}

impl Tickets {
    /// Forgets some that are over; all tickets last equally long, so that the first are over first.
    fn forget(&mut self, now: Timestamp) {
        for _ in 0..SWEEP {
            let ends = &self.ends;
            let is_over = |id: &mut TicketId| ends.get(id).is_none_or(|until| *until <= now);
            let Some(id) = self.order.pop_front_if(is_over) else { return };
            self.ends.remove(&id);
        }
    }
}

/// Tickets remembered at most, about 4 MB; each takes a session and its browser.
const MOST: usize = 1 << 16;

/// How many are forgotten at once: more than are added, and never a long pause.
const SWEEP: usize = 4;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::session::{StoreLimits, tests::NOW};

    fn id(number: u64) -> TicketId {
        u128::from(number).to_be_bytes()
    }

    #[tokio::test]
    async fn a_ticket_is_used_once_until_it_is_over() {
        let store = Store::memory(StoreLimits::default());
        let until = NOW + Duration::from_mins(1);
        assert_eq!(store.spend(&id(1), until, NOW).await, Ok(true));
        assert_eq!(store.spend(&id(1), until, NOW).await, Ok(false));
        assert_eq!(store.spend(&id(2), until, NOW).await, Ok(true));
        let last = NOW + Duration::from_secs(59);
        assert_eq!(store.spend(&id(1), until, last).await, Ok(false));
    }

    #[test]
    fn of_many_at_once_one_uses_it() {
        let used = Used::default();
        let won = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..50)
                .map(|_| scope.spawn(|| used.spend(&id(7), NOW + Duration::from_mins(1), NOW)))
                .collect();
            let all = threads.into_iter().map(|one| one.join().unwrap());
            all.filter(|won| *won == Ok(true)).count()
        });
        assert_eq!(won, 1);
    }

    #[test]
    fn when_memory_is_full_nothing_is_proven_until_some_are_over() {
        let used = Used::default();
        let until = NOW + Duration::from_mins(1);
        for number in 0..MOST as u64 {
            assert_eq!(used.spend(&id(number), until, NOW), Ok(true));
        }
        let one_more = id(MOST as u64);
        assert!(used.spend(&one_more, until, NOW).is_err());
        assert_eq!(used.spend(&id(3), until, NOW), Ok(false), "what is known stays known");
        assert_eq!(used.spend(&one_more, until + Duration::from_mins(1), until), Ok(true));
    }
}

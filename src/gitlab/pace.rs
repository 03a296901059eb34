//! So many calls in any second or minute: each call gets the first moment that the ones before it leave free, and waits for it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// The moments of the last calls, some of them yet to come; the oldest first.
#[derive(Debug)]
pub(super) struct Pace {
    most: usize,
    within: Duration,
    calls: Mutex<VecDeque<Instant>>,
}

impl Pace {
    /// At most `most` calls in any time as long as `within`, at least one.
    pub(super) fn new(most: usize, within: Duration) -> Self {
        Self { most: most.max(1), within, calls: Mutex::default() }
    }

    /// Waits for the call's moment; says at once how long that would take, if it is longer than `patience`.
    pub(super) async fn turn(&self, patience: Duration) -> Result<(), Duration> {
        sleep_until(self.book(patience)?).await;
        Ok(())
    }

    /// Makes room for a call: one that was made does not count.
    pub(super) fn give_back(&self) {
        self.lock().pop_back();
    }

    fn book(&self, patience: Duration) -> Result<Instant, Duration> {
        let mut calls = self.lock();
        let now = Instant::now();
        let free = match calls.front() {
            Some(oldest) if calls.len() >= self.most => now.max(*oldest + self.within),
            Some(_) | None => now,
        };
        let wait = free.duration_since(now);
        if wait > patience {
            return Err(wait);
        }
        if calls.len() >= self.most {
            calls.pop_front();
        }
        calls.push_back(free);
        Ok(free)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Instant>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn no_second_has_more_calls_than_it_may() {
        let pace = Pace::new(3, SECOND);
        let began = Instant::now();
        let mut moments = Vec::new();
        for _ in 0..10 {
            assert!(pace.turn(Duration::from_secs(5)).await.is_ok());
            moments.push(began.elapsed().as_millis());
        }
        for (early, late) in moments.iter().zip(moments.iter().skip(3)) {
            assert!(late - early >= 1000, "{moments:?}");
        }
        assert_eq!(moments.iter().filter(|at| **at < 1000).count(), 3);
        advance(Duration::from_hours(1)).await;
        assert!(pace.turn(Duration::ZERO).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_is_free_for_another() {
        let pace = Pace::new(2, SECOND);
        for _ in 0..10 {
            assert!(pace.turn(Duration::ZERO).await.is_ok());
            pace.give_back();
        }
        for _ in 0..2 {
            assert!(pace.turn(Duration::ZERO).await.is_ok());
        }
        assert_eq!(pace.turn(Duration::ZERO).await, Err(SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_too_long_takes_no_turn() {
        let pace = Pace::new(1, SECOND);
        assert!(pace.turn(Duration::ZERO).await.is_ok());
        for _ in 0..100 {
            assert_eq!(pace.turn(Duration::from_millis(900)).await, Err(SECOND));
        }
        assert!(pace.turn(SECOND).await.is_ok(), "those who left take no place");
    }
}

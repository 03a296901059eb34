//! So many calls in any second: each call gets the first moment that the ones before it leave free, and waits for it.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// The moments of the last calls, some of them yet to come; the oldest first.
#[derive(Debug)]
pub(super) struct Pace {
    most: usize,
    calls: Mutex<VecDeque<Instant>>,
}

impl Pace {
    /// At most `most` calls in any second, at least one.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), calls: Mutex::default() }
    }

    /// Waits for the call's moment; false at once if that would take longer than `patience`.
    pub(super) async fn turn(&self, patience: Duration) -> bool {
        let Some(moment) = self.book(patience) else { return false };
        sleep_until(moment).await;
        true
    }

    fn book(&self, patience: Duration) -> Option<Instant> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let free = match calls.front() {
            Some(oldest) if calls.len() >= self.most => now.max(*oldest + SECOND),
            Some(_) | None => now,
        };
        if free.duration_since(now) > patience {
            return None;
        }
        if calls.len() >= self.most {
            calls.pop_front();
        }
        calls.push_back(free);
        Some(free)
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_second_has_more_calls_than_it_may() {
        let pace = Pace::new(3);
        let began = Instant::now();
        let mut moments = Vec::new();
        for _ in 0..10 {
            assert!(pace.turn(Duration::from_secs(5)).await);
            moments.push(began.elapsed().as_millis());
        }
        for (early, late) in moments.iter().zip(moments.iter().skip(3)) {
            assert!(late - early >= 1000, "{moments:?}");
        }
        assert_eq!(moments.iter().filter(|at| **at < 1000).count(), 3);
        advance(Duration::from_hours(1)).await;
        assert!(pace.turn(Duration::ZERO).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_too_long_takes_no_turn() {
        let pace = Pace::new(1);
        assert!(pace.turn(Duration::ZERO).await);
        for _ in 0..100 {
            assert!(!pace.turn(Duration::from_millis(900)).await);
        }
        assert!(pace.turn(Duration::from_secs(1)).await, "those who left take no place");
    }
}

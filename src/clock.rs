//! Wall-clock time as a value: `Timestamp` is passed as an argument everywhere below the gate, `Clock` is the one place that asks for it.
//!
//! Tests hand the gate a clock they can turn; deadlines inside a process use `tokio::time` instead.

use std::{
    fmt,
    ops::{Add, Sub},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// A moment in whole seconds since the Unix epoch; differences below zero saturate at zero.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `seconds` after the Unix epoch.
    pub const fn from_unix(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Whole seconds since the Unix epoch.
    pub const fn unix(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was, zero if it lies ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later.as_secs()))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(earlier.as_secs()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// Tells the time: the system's, shifted by as many seconds as a test has turned it.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    turned: Arc<AtomicI64>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// The present moment.
    #[expect(clippy::disallowed_methods, reason = "the one place that asks for the date")]
    pub fn now(&self) -> Timestamp {
        let system = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
        Timestamp(system.saturating_add_signed(self.turned.load(Ordering::Relaxed)))
    }

    /// Turns this clock and all its clones by `seconds`, backwards if negative; for tests of deadlines.
    pub fn turn(&self, seconds: i64) {
        self.turned.fetch_add(seconds, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_saturate() {
        let early = Timestamp::from_unix(10);
        let late = early + Duration::from_secs(5);
        assert_eq!(late.since(early), Duration::from_secs(5));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(early - Duration::from_secs(20), Timestamp::from_unix(0));
    }

    #[test]
    fn a_turned_clock_is_turned_for_all_its_clones() {
        let clock = Clock::system();
        let other = clock.clone();
        let before = other.now();
        clock.turn(3600);
        assert!(other.now().since(before) >= Duration::from_hours(1));
    }
}

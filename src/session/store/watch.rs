//! Watches over the connection to Redis: connects, tries a write each second, and after trouble writes again what may be missing.

use std::{
    sync::Weak,
    time::{Duration, Instant},
};

use redis::cmd;
use tokio::time::{sleep, timeout};

use super::{Unavailable, remote::Remote};

/// Runs until the store is gone.
pub(super) async fn run(remote: Weak<Remote>) {
    let mut told: Option<Instant> = None;
    while let Some(remote) = remote.upgrade() {
        match look(&remote).await {
            Ok(()) => {
                if let Some(away) = remote.link.works() {
                    let seconds = away.as_secs();
                    tracing::info!(seconds, "the session store is there again");
                    told = None;
                }
                remote.means.metrics.store_up(true);
                if remote.link.was_suspect() {
                    remote.write_again().await;
                } else {
                    remote.forget_written();
                }
            },
            Err(error) => {
                remote.link.breaks(&error);
                remote.means.metrics.store_up(false);
                if told.is_none_or(|told| told.elapsed() >= TELL) {
                    told = Some(Instant::now());
                    tracing::warn!(
                        error = error.0,
                        "the session store can't be reached; sessions go on from their cookies"
                    );
                }
            },
        }
        sleep(PAUSE).await;
        drop(timeout(TICK, remote.link.failed.notified()).await);
    }
}

/// A write, since a server that only reads is of no use: the index loses what has ended.
async fn look(remote: &Remote) -> Result<(), Unavailable> {
    remote.link.connect().await?;
    let (index, now) = (remote.key_of("index"), remote.means.clock.now().unix());
    let sweep = cmd("ZREMRANGEBYSCORE").arg(index).arg("-inf").arg(now).to_owned();
    let swept = remote.link.probe::<u64>(&sweep).await;
    remote.count("sweep", swept).map(drop)
}

const TICK: Duration = Duration::from_secs(1);

/// How soon after a look another one comes, whatever has failed.
const PAUSE: Duration = Duration::from_millis(100);

/// How often an outage is told.
const TELL: Duration = Duration::from_secs(30);

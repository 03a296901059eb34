//! Watches over the connection to Redis: connects, tries a write each second, and after trouble writes again what may be missing.

use std::{
    sync::Weak,
    time::{Duration, Instant},
};

use redis::cmd;
use tokio::time::{sleep, timeout};

use super::{Unavailable, remote::Remote, written::Again};

/// Runs until the store is gone.
pub(super) async fn run(remote: Weak<Remote>) {
    let mut told: Option<Instant> = None;
    // Whether all marks that count were heard of up to the last look.
    let mut heard = false;
    while let Some(remote) = remote.upgrade() {
        match look(&remote).await {
            Ok(()) => {
                if let Some(away) = remote.link.works() {
                    let seconds = away.as_secs();
                    tracing::info!(seconds, "the session store is there again");
                    told = None;
                }
                let room = room(&remote).await;
                remote.link.takes(&room);
                remote.means.metrics.store_up(room.is_ok());
                if let Err(error) = room
                    && told.is_none_or(|told| told.elapsed() >= TELL)
                {
                    told = Some(Instant::now());
                    tracing::warn!(
                        error = error.0,
                        "the session store takes no writes; what is there counts, the rest stays in this process"
                    );
                }
                let back = if heard { HEAR } else { remote.means.marks.lasts() };
                heard = exchange_marks(&remote, back).await.is_ok();
                let again = if remote.link.was_suspect() { Again::All } else { Again::Missing };
                if remote.write_again(again).await.is_ok() {
                    remote.written.forget();
                }
            },
            Err(error) => {
                heard = false;
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

/// Whether it has room: one that is full lets things be removed, and nothing be added.
async fn room(remote: &Remote) -> Result<(), Unavailable> {
    let (key, now) = (remote.key_of("probe"), remote.means.clock.now().unix());
    let set = cmd("SET").arg(key).arg(now).arg("EX").arg(PROBE.as_secs()).to_owned();
    let set = remote.link.run::<()>(&set).await;
    remote.count("probe", set)
}

/// A write, since a server that only reads is of no use: the index loses what has ended.
async fn look(remote: &Remote) -> Result<(), Unavailable> {
    remote.link.connect().await?;
    let (index, now) = (remote.key_of("index"), remote.means.clock.now().unix());
    let sweep = cmd("ZREMRANGEBYSCORE").arg(index).arg("-inf").arg(now).to_owned();
    let swept = remote.link.probe::<u64>(&sweep).await;
    remote.count("sweep", swept).map(drop)
}

/// Tells the other replicas of marks, and hears of theirs of the last time, as far `back` as that goes. What fails is tried again at the next look.
async fn exchange_marks(remote: &Remote, back: Duration) -> Result<(), Unavailable> {
    let (key, now) = (remote.key_of("marks"), remote.means.clock.now());
    let lasts = remote.means.marks.lasts();
    let untold = std::mem::take(&mut *remote.lock_untold());
    for (index, mark) in untold.iter().enumerate() {
        let Some(sealed) = remote.sealed_mark(mark) else { continue };
        let add = cmd("ZADD").arg(&key).arg(mark.at.unix()).arg(sealed).to_owned();
        let keep = cmd("EXPIRE").arg(&key).arg(lasts.as_secs().max(1)).to_owned();
        let told = async {
            remote.link.run::<u64>(&add).await?;
            remote.link.run::<u64>(&keep).await
        };
        if let Err(error) = remote.count("mark", told.await) {
            let rest = untold.get(index..).unwrap_or_default();
            remote.lock_untold().extend_from_slice(rest);
            return Err(error);
        }
    }
    let over = cmd("ZREMRANGEBYSCORE").arg(&key).arg("-inf").arg((now - lasts).unix()).to_owned();
    remote.link.run::<u64>(&over).await?;
    let range = cmd("ZRANGEBYSCORE").arg(&key).arg((now - back).unix()).arg("+inf").to_owned();
    let heard: Vec<String> = remote.link.run(&range).await?;
    for mark in heard.iter().filter_map(|sealed| remote.opened_mark(sealed)) {
        remote.means.marks.merge(mark, now);
    }
    Ok(())
}

/// How far back a look for marks goes that follows another one: beyond what clocks differ by.
const HEAR: Duration = Duration::from_secs(90);

/// How long what was written to see whether that works stays there.
const PROBE: Duration = Duration::from_mins(1);

const TICK: Duration = Duration::from_secs(1);

/// How soon after a look another one comes, whatever has failed.
const PAUSE: Duration = Duration::from_millis(100);

/// How often an outage is told.
const TELL: Duration = Duration::from_secs(30);

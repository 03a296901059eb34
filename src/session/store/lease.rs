//! A turn to ask GitLab about a session, held in Redis: renewed while it is used, given back by its owner alone, and over by itself if the owner dies.

use std::{sync::Arc, time::Duration};

use redis::{Script, cmd};
use tokio::{task::AbortHandle, time::interval};

use super::{
    Lease, Turn,
    remote::{Remote, hash},
};
use crate::session::SessionId;

/// A turn that this process has.
#[derive(Debug)]
pub(super) struct Held {
    remote: Arc<Remote>,
    key: String,
    token: String,
    renewal: AbortHandle,
}

impl Remote {
    /// Whose turn it is to ask GitLab about the session `id`.
    pub(super) async fn turn(self: Arc<Self>, id: &SessionId) -> Turn {
        let Ok(token) = self.means.random.token() else { return Turn::Unknown };
        let key = self.key_of(&format!("l:{}", hash(id)));
        let lock = cmd("SET").arg(&key).arg(&token).arg("NX").arg("PX").arg(millis()).to_owned();
        let locked = self.link.run(&lock).await;
        match self.count::<Option<String>>("lock", locked) {
            Ok(Some(_)) => Turn::Mine(Lease(Some(Held::new(self, key, token)))),
            Ok(None) => Turn::Theirs,
            Err(_) => Turn::Unknown,
        }
    }
}

impl Held {
    fn new(remote: Arc<Remote>, key: String, token: String) -> Self {
        let renewal = renew(remote.clone(), key.clone(), token.clone());
        let renewal = remote.means.background.spawn(renewal).abort_handle();
        Self { remote, key, token, renewal }
    }

    /// Gives the turn back if it is still this process's.
    pub(super) async fn release(self) {
        self.renewal.abort();
        let script = Script::new(RELEASE);
        let released = self.remote.link.script::<u32>(&script, |call| {
            call.key(&self.key).arg(&self.token);
        });
        drop(self.remote.count("unlock", released.await));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

async fn renew(remote: Arc<Remote>, key: String, token: String) {
    let script = Script::new(RENEW);
    let mut tick = interval(LEASE / 4);
    tick.tick().await;
    loop {
        tick.tick().await;
        let renewed = remote.link.script::<u32>(&script, |call| {
            call.key(&key).arg(&token).arg(millis());
        });
        drop(renewed.await);
    }
}

fn millis() -> u64 {
    u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX)
}

/// ARGV: token.
const RELEASE: &str = "
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0";

/// ARGV: token, milliseconds.
const RENEW: &str = "
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0";

/// How long a turn lasts if its owner dies.
const LEASE: Duration = Duration::from_secs(5);

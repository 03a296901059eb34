//! The store in Redis, which all replicas share.
//!
//! ```text
//! {prefix}s:{hash of the id}   hash    r  "1" if it was ended, then nothing else
//!                                      g  generation of v        t  last seen, Unix seconds
//!                                      v  the session, sealed    w  what operators list of it, sealed
//! {prefix}l:{hash of the id}   string  whose turn it is to ask GitLab; five seconds, renewed while it is used
//! {prefix}index                zset    hashes of ids by their end, for lists
//! {prefix}marks                zset    marks of hooks, sealed, by their moment
//! {prefix}t:{id}               string  a ticket that was used: see `used`
//! {prefix}probe                string  a moment; whether there is room for it
//! ```
//!
//! Each script and command touches one key, so all of it works in a cluster. Every key ends by itself. Ids are random and only their hashes are
//! told; what is sealed is bound to its key and field, so nothing can be moved to where it means something else.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use redis::{Script, cmd};
use tokio::{
    sync::Semaphore,
    task::AbortHandle,
    time::{interval, timeout},
};

use super::{
    Listed, Means, Overlay, Put, RedisSettings, Unavailable,
    link::Link,
    memory::Memory,
    watch,
    written::{Again, Written},
};
use crate::{
    clock::Timestamp,
    session::{KeyRing, Mark, Purpose, Session, SessionId, Whom, codec, payload},
};

/// The store in Redis.
pub(super) struct Remote {
    pub(super) link: Link,
    pub(super) means: Means,
    keys: ArcSwap<KeyRing>,
    pub(super) local: Arc<Memory>,
    /// What this process has written lately, or could not: the watch writes it again when Redis is back.
    pub(super) written: Written,
    /// Marks that the other replicas have not been told of.
    pub(super) untold: Mutex<Vec<Mark>>,
    /// Writes beside requests, so that a slow Redis gathers no heap of them.
    beside: Arc<Semaphore>,
    watch: Mutex<Option<AbortHandle>>,
}

/// What Redis says of a session: an ended one, or the generation that it has and when it was seen.
type Look = (Option<String>, Option<u32>, Option<u64>);

impl Remote {
    /// A store at the place of `settings`; connects in the background.
    pub(super) fn start(settings: RedisSettings, means: Means, local: Arc<Memory>) -> Arc<Self> {
        let remote = Arc::new(Self {
            link: Link::new(settings),
            keys: ArcSwap::new(means.keys.clone()),
            local,
            written: Written::default(),
            untold: Mutex::default(),
            beside: Arc::new(Semaphore::new(BESIDE)),
            watch: Mutex::default(),
            means,
        });
        let watch = remote.means.background.spawn(watch::run(Arc::downgrade(&remote)));
        *remote.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch.abort_handle());
        remote
    }

    pub(super) fn is_at(&self, settings: &RedisSettings) -> bool {
        self.link.settings() == settings
    }

    /// Waits until a connection was tried.
    pub(super) async fn tried(&self) {
        self.link.tried().await;
    }

    /// Seals with `keys` from now on.
    pub(super) fn rekey(&self, keys: Arc<KeyRing>) {
        self.keys.store(keys);
    }

    /// What is wrong, if anything is.
    pub(super) fn trouble(&self) -> Option<String> {
        self.link.trouble()
    }

    /// What Redis knows beyond `best`, the newest copy that is known here, and when the session was last seen.
    pub(super) async fn get(
        self: &Arc<Self>,
        best: &Arc<Session>,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(Option<Overlay>, Option<Timestamp>), Unavailable> {
        let key = self.key(&best.id);
        let look = self.link.run(cmd("HMGET").arg(&key).arg("r").arg("g").arg("t")).await;
        let (revoked, generation, seen): Look = self.count("get", look)?;
        if revoked.is_some() {
            // It holds here as well, should Redis go away.
            self.local.revoke(best.id, until, now);
            return Ok((Some(Overlay::Revoked), None));
        }
        let seen = seen.map(Timestamp::from_unix);
        let overlay = match generation {
            Some(generation) if generation > best.generation => {
                // Whoever can write there could put an older copy in its place.
                let newer = self.fetch(&best.id).await?;
                let newer = newer.filter(|newer| newer.generation > best.generation);
                if let Some(newer) = &newer {
                    self.local.put(newer.clone(), until, now);
                }
                newer.map(Overlay::Newer)
            },
            Some(generation) if generation == best.generation => None,
            // Redis has lost it, or never knew it.
            Some(_) | None => {
                self.put_beside(best.clone(), until, now);
                None
            },
        };
        if seen.is_some_and(|seen| now.since(seen) >= SEEN) {
            self.see_beside(best.id, now);
        }
        Ok((overlay, seen))
    }

    /// The newest copy of the session of this alias, if it is there and can be read.
    pub(super) async fn named(&self, alias: &str) -> Option<Arc<Session>> {
        self.fetch_named(alias).await.ok().flatten()
    }

    /// The newest copy, if it is there and can be read: one that a removed key has sealed is as good as none.
    async fn fetch(&self, id: &SessionId) -> Result<Option<Arc<Session>>, Unavailable> {
        let found = self.fetch_named(&hash(id)).await?;
        Ok(found.filter(|session| session.id == *id))
    }

    async fn fetch_named(&self, alias: &str) -> Result<Option<Arc<Session>>, Unavailable> {
        let key = self.key_of(&format!("s:{alias}"));
        let sealed = self.link.run(cmd("HGET").arg(&key).arg("v")).await;
        let sealed: Option<String> = self.count("fetch", sealed)?;
        let open = |sealed: String| {
            let opened = self.keys.load().open(Purpose::Store, "session", &key, &sealed).ok()?;
            payload::decode(&opened.bytes).ok().filter(|session| hash(&session.id) == alias)
        };
        Ok(sealed.and_then(open).map(Arc::new))
    }

    /// Keeps `session` for all replicas.
    pub(super) async fn put(
        &self,
        session: &Arc<Session>,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Put, Unavailable> {
        self.written.begin(session.id);
        let (key, hash) = (self.key(&session.id), hash(&session.id));
        let (value, listed) = self.sealed(session, &key, until)?;
        let script = script(PUT);
        let put = self.link.script(&script, |call| {
            call.key(&key).arg(session.generation).arg(value).arg(listed);
            call.arg(session.seen.max(session.checked).unix()).arg(until.unix());
        });
        let index = self.key_of("index");
        let (enter, keep) = (cmd("ZADD").arg(&index).arg(until.unix()).arg(&hash).to_owned(), {
            let end = until.unix().max(now.unix()) + INDEX_SLACK;
            cmd("EXPIREAT").arg(&index).arg(end).to_owned()
        });
        let (put, entered) = tokio::join!(put, async {
            self.link.run::<()>(&enter).await?;
            self.link.run::<()>(&keep).await
        });
        drop(entered);
        let put = self.count("put", put)?;
        self.written.arrived(&session.id);
        match put {
            0 => Ok(Put::Stored),
            1 => Ok(Put::Older),
            _ => Ok(Put::Revoked),
        }
    }

    /// The same, beside whatever asks for it.
    pub(super) fn put_beside(
        self: &Arc<Self>,
        session: Arc<Session>,
        until: Timestamp,
        now: Timestamp,
    ) {
        let this = self.clone();
        self.beside(async move {
            drop(this.put(&session, until, now).await);
        });
    }

    fn see_beside(self: &Arc<Self>, id: SessionId, now: Timestamp) {
        let this = self.clone();
        self.beside(async move {
            let script = script(SEE);
            let key = this.key(&id);
            let seen = this.link.script::<()>(&script, |call| {
                call.key(key).arg(now.unix());
            });
            drop(this.count("seen", seen.await));
        });
    }

    /// Ends the session `id` for all replicas.
    pub(super) async fn revoke(&self, id: &SessionId, until: Timestamp) -> Result<(), Unavailable> {
        self.written.begin(*id);
        self.revoke_key(&hash(id), until).await?;
        self.written.arrived(id);
        Ok(())
    }

    async fn revoke_key(&self, hash: &str, until: Timestamp) -> Result<(), Unavailable> {
        let (script, key) = (script(REVOKE), self.key_of(&format!("s:{hash}")));
        let revoke = self.link.script::<()>(&script, |call| {
            call.key(key).arg(until.unix());
        });
        self.count("revoke", revoke.await)?;
        let index = self.key_of("index");
        self.link.run(cmd("ZREM").arg(index).arg(hash)).await
    }

    /// Has the watch tell the other replicas of `mark`.
    pub(super) fn tell(&self, mark: Mark) {
        let mut untold = self.lock_untold();
        if untold.len() >= UNTOLD {
            // Too many to name while Redis is away: all of that GitLab's.
            untold.retain(|other| other.gitlab != mark.gitlab);
            untold.push(Mark { whom: Whom::Everybody, ..mark });
        } else {
            untold.push(mark);
        }
        drop(untold);
        self.link.failed.notify_one();
    }

    /// `mark` as the other replicas read it.
    pub(super) fn sealed_mark(&self, mark: &Mark) -> Option<String> {
        let plain = serde_json::to_vec(mark).ok()?;
        let (keys, key) = (self.keys.load(), self.key_of("marks"));
        keys.seal(Purpose::Store, "mark", &key, &plain, &self.means.random).ok()
    }

    /// The mark in `sealed`, if one of the keys has sealed it.
    pub(super) fn opened_mark(&self, sealed: &str) -> Option<Mark> {
        let key = self.key_of("marks");
        let opened = self.keys.load().open(Purpose::Store, "mark", &key, sealed).ok()?;
        serde_json::from_slice(&opened.bytes).ok()
    }

    /// All sessions that have not ended, the last that began first.
    pub(super) async fn list(&self) -> Result<Vec<Listed>, Unavailable> {
        let (index, now) = (self.key_of("index"), self.means.clock.now().unix());
        let range =
            cmd("ZRANGEBYSCORE").arg(index).arg(now).arg("+inf").arg("WITHSCORES").to_owned();
        let hashes: Vec<(String, u64)> = self.link.run(&range).await?;
        let mut sessions = Vec::with_capacity(hashes.len());
        for some in hashes.chunks(AT_ONCE) {
            let listed = some.iter().map(|(hash, until)| self.listed(hash, *until));
            for listed in join_all(listed).await {
                sessions.extend(listed?);
            }
        }
        sessions.sort_by_key(|session| std::cmp::Reverse((session.since, session.seen)));
        Ok(sessions)
    }

    /// One of them; none if it ended meanwhile, or a key has sealed it that is gone.
    async fn listed(&self, hash: &str, until: u64) -> Result<Option<Listed>, Unavailable> {
        let key = self.key_of(&format!("s:{hash}"));
        let fields = cmd("HMGET").arg(&key).arg("w").arg("t").to_owned();
        let (sealed, seen): (Option<String>, Option<u64>) = self.link.run(&fields).await?;
        let listed = sealed.and_then(|sealed| self.open_listed(&key, &sealed));
        Ok(listed.map(|listed| Listed {
            seen: seen.map_or(listed.seen, Timestamp::from_unix),
            until: Timestamp::from_unix(until),
            ..listed
        }))
    }

    /// Ends a session that [`Self::list`] has told of.
    pub(super) async fn end(&self, listed: &Listed) -> Result<(), Unavailable> {
        let index = self.key_of("index");
        let all = cmd("ZRANGE").arg(index).arg(0).arg(-1).to_owned();
        let hashes: Vec<String> = self.link.run(&all).await?;
        for hash in hashes.iter().filter(|hash| hash.starts_with(&listed.id)) {
            self.revoke_key(hash, listed.until).await?;
        }
        Ok(())
    }

    /// Waits until everything has arrived.
    pub(super) async fn settle(&self, patience: Duration) {
        let settled = async {
            let mut tick = interval(Duration::from_millis(100));
            loop {
                tick.tick().await;
                let idle = self.beside.available_permits() == BESIDE;
                if idle && self.written.is_settled() && self.lock_untold().is_empty() {
                    return;
                }
            }
        };
        drop(timeout(patience, settled).await);
    }

    /// Writes again what may be missing; stops at the first that does not work.
    pub(super) async fn write_again(&self, again: Again) -> Result<(), Unavailable> {
        let now = self.means.clock.now();
        for id in self.written.lacking(again) {
            match self.local.entry(&id, now) {
                Some((Overlay::Revoked, until)) => self.revoke(&id, until).await?,
                Some((Overlay::Newer(session), until)) => {
                    self.put(&session, until, now).await?;
                },
                // Over meanwhile, or memory had no room; a cookie may still have it.
                None => self.written.drop(&id),
            }
        }
        Ok(())
    }

    pub(super) fn lock_untold(&self) -> std::sync::MutexGuard<'_, Vec<Mark>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` in the background unless too much runs there already; what is left out comes with a later request.
    fn beside(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Ok(place) = self.beside.clone().try_acquire_owned() {
            self.means.background.spawn(async move {
                work.await;
                drop(place);
            });
        }
    }

    fn sealed(
        &self,
        session: &Session,
        key: &str,
        until: Timestamp,
    ) -> Result<(String, String), Unavailable> {
        let (keys, random) = (self.keys.load(), &self.means.random);
        let unsealed = |_| Unavailable("a session can't be sealed".into());
        let plain = codec::most_for(session, ROOM).map_err(unsealed)?;
        let unsealed = |_| Unavailable("a session can't be sealed".into());
        let value = keys.seal(Purpose::Store, "session", key, &plain, random).map_err(unsealed)?;
        let listed = Listed {
            id: session.id.to_string(),
            username: session.identity.username.clone(),
            gitlab: session.identity.gitlab.clone(),
            kind: "browser".into(),
            since: session.created,
            seen: session.seen,
            until,
        };
        let plain = serde_json::to_vec(&listed).unwrap_or_default();
        let listed = keys.seal(Purpose::Store, "listed", key, &plain, random).map_err(unsealed)?;
        Ok((value, listed))
    }

    fn open_listed(&self, key: &str, sealed: &str) -> Option<Listed> {
        let opened = self.keys.load().open(Purpose::Store, "listed", key, sealed).ok()?;
        serde_json::from_slice(&opened.bytes).ok()
    }

    fn key(&self, id: &SessionId) -> String {
        self.key_of(&format!("s:{}", hash(id)))
    }

    pub(super) fn key_of(&self, name: &str) -> String {
        format!("{}{name}", self.link.settings().prefix)
    }

    pub(super) fn count<T>(
        &self,
        operation: &'static str,
        result: Result<T, Unavailable>,
    ) -> Result<T, Unavailable> {
        self.means.metrics.store_request(operation, result.is_ok());
        result
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some(watch) = &*self.watch.lock().unwrap_or_else(PoisonError::into_inner) {
            watch.abort();
        }
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Remote")
    }
}

/// The name of a session in Redis; what logs say of it is how this begins.
pub(super) fn hash(id: &SessionId) -> String {
    id.alias()
}

fn script(text: &str) -> Script {
    Script::new(text)
}

/// 0 stored, 1 older, 2 ended. ARGV: generation, session, listing, seen, end.
const PUT: &str = "
if redis.call('HEXISTS', KEYS[1], 'r') == 1 then return 2 end
local known = redis.call('HGET', KEYS[1], 'g')
if known and tonumber(known) >= tonumber(ARGV[1]) then return 1 end
redis.call('HSET', KEYS[1], 'g', ARGV[1], 'v', ARGV[2], 'w', ARGV[3])
local seen = redis.call('HGET', KEYS[1], 't')
if not seen or tonumber(seen) < tonumber(ARGV[4]) then redis.call('HSET', KEYS[1], 't', ARGV[4]) end
redis.call('EXPIREAT', KEYS[1], ARGV[5])
return 0";

/// ARGV: seen.
const SEE: &str = "
local seen = redis.call('HGET', KEYS[1], 't')
if seen and tonumber(seen) < tonumber(ARGV[1]) then redis.call('HSET', KEYS[1], 't', ARGV[1]) end";

/// A revocation never gets shorter. ARGV: end.
const REVOKE: &str = "
local ended, left = redis.call('HEXISTS', KEYS[1], 'r'), redis.call('PTTL', KEYS[1])
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'r', '1')
redis.call('EXPIREAT', KEYS[1], ARGV[1])
if ended == 1 and left > redis.call('PTTL', KEYS[1]) then redis.call('PEXPIRE', KEYS[1], left) end";

/// How exactly it is known when a session was last seen.
const SEEN: Duration = Duration::from_secs(15);

/// How many marks wait to be told.
const UNTOLD: usize = 1000;

/// How many writes run beside requests.
const BESIDE: usize = 256;

/// How many sessions are asked for at once when all are listed.
const AT_ONCE: usize = 100;

/// Bytes of sealed text that a session may have there.
const ROOM: usize = 7 * 1024;

/// Seconds by which the index outlives what is in it.
const INDEX_SLACK: u64 = 60;

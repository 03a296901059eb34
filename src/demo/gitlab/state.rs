//! What the development GitLab remembers: people, applications, grants, token rows, browser sessions and switches.
//!
//! One lock guards all of it, so a refresh is as atomic as GitLab's row lock makes it. An access token and its refresh token are one
//! row, as in GitLab's table, which has no `previous_refresh_token` column: revoking either kills both. Everything a stranger can
//! add to is capped; the oldest goes.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
};

use super::{
    applications::Application,
    hooks::{Hook, Messenger},
    keys::Keys,
    people::{Directory, User},
    seed,
    switches::Switches,
    token::Refreshes,
};
use crate::{
    clock::{Clock, Timestamp},
    demo::answer,
};

/// One development GitLab, shared by its connections and its handle.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) clock: Clock,
    /// The relative URL root, without a final slash; empty at the host's root.
    pub(super) base_path: String,
    /// What it calls itself: the `iss` of its tokens.
    pub(super) external_url: String,
    /// Whether strangers may reach it, so any `Host` is fine.
    pub(super) public: bool,
    pub(super) keys: RwLock<Keys>,
    pub(super) messenger: Messenger,
    world: Mutex<World>,
}

impl Instance {
    pub(super) fn new(
        clock: Clock,
        base_path: String,
        external_url: String,
        public: bool,
        keys: Keys,
    ) -> Self {
        let world = Mutex::new(World::new(clock.now()));
        let (keys, messenger) = (RwLock::new(keys), Messenger::start());
        Self { clock, base_path, external_url, public, keys, messenger, world }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keys(&self) -> Keys {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A path of this instance as a browser must ask for it.
    pub(super) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.base_path)
    }
}

/// Everything that changes.
#[derive(Debug)]
pub(super) struct World {
    pub(super) directory: Directory,
    pub(super) applications: Vec<Application>,
    pub(super) grants: Capped<Grant>,
    pub(super) tokens: Tokens,
    pub(super) personal: Vec<PersonalToken>,
    pub(super) browsers: Capped<Browser>,
    pub(super) switches: Switches,
    pub(super) jobs: Vec<Job>,
    pub(super) hooks: Vec<Hook>,
    pub(super) refreshes: Refreshes,
    pub(super) next_id: u64,
}

impl World {
    fn new(now: Timestamp) -> Self {
        let directory = seed::directory(now);
        let personal = directory.users.iter().map(|user| PersonalToken {
            token: format!("glpat-dev-{}", user.username),
            id: user.id,
            name: "development".to_owned(),
            user: user.id,
            scopes: vec!["read_api".to_owned(), "read_user".to_owned()],
            created_at: now,
            expires_at: None,
            revoked: false,
        });
        Self {
            personal: personal.collect(),
            directory,
            applications: Vec::new(),
            grants: Capped::new(10_000),
            tokens: Tokens::default(),
            browsers: Capped::new(10_000),
            switches: Switches::default(),
            jobs: Vec::new(),
            hooks: Vec::new(),
            refreshes: Refreshes::default(),
            next_id: 1000,
        }
    }

    /// A number that no user, group, project or token has yet.
    pub(super) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn application(&self, client_id: &str) -> Option<&Application> {
        self.applications.iter().find(|application| application.client_id == client_id)
    }

    /// The user if GitLab's claims code would find them: it looks among active users only.
    pub(super) fn active_user(&self, id: u64) -> Option<&User> {
        self.directory.user(id).filter(|user| user.state.is_active())
    }
}

/// An authorization code's meaning.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) client_id: String,
    pub(super) user: u64,
    pub(super) redirect_uri: String,
    pub(super) scopes: Vec<String>,
    pub(super) nonce: Option<String>,
    pub(super) challenge: Option<Challenge>,
    pub(super) created_at: Timestamp,
    pub(super) used: bool,
}

/// A code challenge (RFC 7636) and its method.
#[derive(Clone, Debug)]
pub(super) enum Challenge {
    Plain(String),
    S256(String),
}

/// A row of GitLab's token table: one access token and its refresh token.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) access_token: String,
    pub(super) refresh_token: String,
    pub(super) client_id: String,
    pub(super) user: u64,
    pub(super) scopes: Vec<String>,
    pub(super) expires_in: u64,
    pub(super) created_at: Timestamp,
    pub(super) revoked: bool,
}

impl Row {
    pub(super) fn expires_at(&self) -> u64 {
        self.created_at.unix().saturating_add(self.expires_in)
    }

    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        now.unix() >= self.expires_at()
    }

    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        !self.revoked && !self.is_expired(now)
    }

    pub(super) fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|granted| granted == scope)
    }
}

/// The token table.
#[derive(Debug)]
pub(super) struct Tokens {
    rows: Capped<Row>,
    by_refresh_token: Capped<String>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { rows: Capped::new(50_000), by_refresh_token: Capped::new(50_000) }
    }
}

impl Tokens {
    pub(super) fn insert(&mut self, row: Row) {
        self.by_refresh_token.insert(row.refresh_token.clone(), row.access_token.clone());
        self.rows.insert(row.access_token.clone(), row);
    }

    pub(super) fn by_access_token(&self, token: &str) -> Option<&Row> {
        self.rows.get(token)
    }

    pub(super) fn by_refresh_token(&self, token: &str) -> Option<&Row> {
        self.rows.get(self.by_refresh_token.get(token)?)
    }

    /// The row that either token belongs to.
    pub(super) fn by_either(&self, token: &str) -> Option<&Row> {
        self.by_access_token(token).or_else(|| self.by_refresh_token(token))
    }

    pub(super) fn revoke(&mut self, access_token: &str) {
        if let Some(row) = self.rows.get_mut(access_token) {
            row.revoked = true;
        }
    }

    /// Revokes all rows that `which` picks.
    pub(super) fn revoke_all(&mut self, which: impl Fn(&Row) -> bool) {
        self.rows.values_mut().filter(|row| which(row)).for_each(|row| row.revoked = true);
    }

    /// Whether a non-revoked row with exactly these scopes exists; expired ones count.
    pub(super) fn has_matching(&self, client_id: &str, user: u64, scopes: &[String]) -> bool {
        let set = |scopes: &[String]| scopes.iter().cloned().collect::<BTreeSet<_>>();
        let wanted = set(scopes);
        self.rows.values().any(|row| {
            !row.revoked
                && row.client_id == client_id
                && row.user == user
                && set(&row.scopes) == wanted
        })
    }
}

/// A personal access token, or that of a bot.
#[derive(Clone, Debug)]
pub(super) struct PersonalToken {
    pub(super) token: String,
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) user: u64,
    pub(super) scopes: Vec<String>,
    pub(super) created_at: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) revoked: bool,
}

/// A running CI job.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) token: String,
    pub(super) project_id: u64,
    /// Full path of the project.
    pub(super) path: String,
    /// Who started it.
    pub(super) user: u64,
    pub(super) ref_name: String,
    pub(super) tag: bool,
    pub(super) source: String,
}

/// A browser's session with GitLab itself.
#[derive(Clone, Debug)]
pub(super) struct Browser {
    pub(super) user: Option<u64>,
    /// Stands in every form, and must come back with it.
    pub(super) csrf: String,
}

/// A map that forgets its oldest entries.
#[derive(Debug)]
pub(super) struct Capped<V> {
    most: usize,
    entries: HashMap<String, V>,
    order: VecDeque<String>,
}

impl<V> Capped<V> {
    fn new(most: usize) -> Self {
        Self { most, entries: HashMap::new(), order: VecDeque::new() }
    }

    pub(super) fn insert(&mut self, key: String, value: V) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > self.most {
            if let Some(oldest) = self.order.pop_front() {
                self.entries.remove(&oldest);
            }
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&V> {
        self.entries.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    /// Takes an entry out; its place in the order stays until it is the oldest.
    pub(super) fn remove(&mut self, key: &str) -> Option<V> {
        self.entries.remove(key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values()
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.values_mut()
    }
}

/// 32 random bytes in hex, as GitLab makes its OAuth tokens.
pub(super) fn random_hex() -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system has randomness, as the signing keys needed it");
    answer::hex(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entries_go_first() {
        let mut capped = Capped::new(2);
        for key in ["a", "b", "c"] {
            capped.insert(key.to_owned(), ());
        }
        assert!(capped.get("a").is_none());
        assert!(capped.get("b").is_some() && capped.get("c").is_some());
    }
}

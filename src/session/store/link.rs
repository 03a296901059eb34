//! The connection to Redis: one that all requests share, found by URL, by sentinels or in a cluster, and given up at the first trouble.
//!
//! ```text
//! up ──a command fails or takes too long──▶ down: commands fail at once ──the watch connects and writes──▶ up
//! ```
//!
//! A command is never tried again here: a request has its cookie to go on with, and what matters is written again by the watch.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo, Pipeline, RedisConnectionInfo, RedisError, RedisFuture, RedisResult,
    ServerErrorKind, TlsCertificates, TlsMode, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use super::{
    Unavailable,
    settings::{Access, Place, RedisSettings},
};

/// The connection, when there is one.
pub(super) struct Link {
    settings: RedisSettings,
    state: Mutex<State>,
    /// Whether a connection was tried at all; the first requests wait for that.
    tried: watch::Sender<bool>,
    /// Wakes the watch when a command has failed.
    pub(super) failed: Notify,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    /// Grows with each connection, so that a late failure doesn't end a new one.
    number: u64,
    /// Whether the connection has failed since the watch last saw that all works: something may be missing there.
    suspect: bool,
    trouble: Option<Trouble>,
    /// What it says to a write although it can be read: it is full, say.
    refused: Option<String>,
}

struct Trouble {
    since: Instant,
    message: String,
}

/// A connection, cheap to clone.
#[derive(Clone)]
pub(super) enum Connection {
    /// To one server.
    One(MultiplexedConnection),
    /// To the nodes of a cluster.
    Many(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(one) => one.req_packed_command(command),
            Self::Many(many) => many.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(one) => one.req_packed_commands(commands, offset, count),
            Self::Many(many) => many.req_packed_commands(commands, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(one) => one.get_db(),
            Self::Many(many) => many.get_db(),
        }
    }
}

impl Link {
    pub(super) fn new(settings: RedisSettings) -> Self {
        Self {
            settings,
            state: Mutex::default(),
            tried: watch::Sender::new(false),
            failed: Notify::new(),
        }
    }

    pub(super) const fn settings(&self) -> &RedisSettings {
        &self.settings
    }

    /// Runs `command` although all may be in trouble, to see whether it still is.
    pub(super) async fn probe<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Unavailable> {
        let (connection, number) = {
            let state = self.lock();
            (state.connection.clone(), state.number)
        };
        let Some(mut connection) = connection else {
            return Err(Unavailable("no connection".into()));
        };
        let answer = timeout(PATIENCE, command.query_async(&mut connection)).await;
        self.judge(answer, number)
    }

    /// Runs `command`.
    pub(super) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Unavailable> {
        let (mut connection, number) = self.connection().await?;
        let answer = timeout(PATIENCE, command.query_async(&mut connection)).await;
        self.judge(answer, number)
    }

    /// Runs a script on one key.
    pub(super) async fn script<T: FromRedisValue>(
        &self,
        script: &redis::Script,
        fill: impl FnOnce(&mut redis::ScriptInvocation<'_>),
    ) -> Result<T, Unavailable> {
        let (mut connection, number) = self.connection().await?;
        let mut invocation = script.prepare_invoke();
        fill(&mut invocation);
        let answer = timeout(PATIENCE, invocation.invoke_async(&mut connection)).await;
        self.judge(answer, number)
    }

    fn judge<T>(
        &self,
        answer: Result<RedisResult<T>, tokio::time::error::Elapsed>,
        number: u64,
    ) -> Result<T, Unavailable> {
        let (error, works) = match answer {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => (brief(&error), is_refusal(&error)),
            Err(_) => ("no answer in time".into(), false),
        };
        let mut state = self.lock();
        state.suspect |= !works;
        // A cluster mends its connections itself, and most of it works on while one node is away.
        if state.number == number && !works && matches!(state.connection, Some(Connection::One(_)))
        {
            state.connection = None;
            state.note(&error);
        }
        drop(state);
        self.failed.notify_one();
        Err(Unavailable(error))
    }

    async fn connection(&self) -> Result<(Connection, u64), Unavailable> {
        let found = self.lock().ready();
        if let Some(found) = found {
            return Ok(found);
        }
        self.tried().await;
        let state = self.lock();
        let message = || {
            let trouble = state.trouble.as_ref();
            trouble.map_or_else(|| "not connected yet".into(), |trouble| trouble.message.clone())
        };
        state.ready().ok_or_else(|| Unavailable(message()))
    }

    /// Connects if there is no connection.
    pub(super) async fn connect(&self) -> Result<(), Unavailable> {
        if self.lock().connection.is_some() {
            return Ok(());
        }
        let made = timeout(CONNECT, self.open()).await;
        let made = match made {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(brief(&error)),
            Err(_) => Err("no connection in time".into()),
        };
        let mut state = self.lock();
        let result = match made {
            Ok(connection) => {
                state.number += 1;
                state.connection = Some(connection);
                Ok(())
            },
            Err(message) => {
                state.note(&message);
                Err(Unavailable(message))
            },
        };
        drop(state);
        if result.is_err() {
            self.tried.send_replace(true);
        }
        result
    }

    /// The watch has seen that all works; how long it did not, if so.
    pub(super) fn works(&self) -> Option<Duration> {
        let since = self.lock().trouble.take().map(|trouble| trouble.since.elapsed());
        self.tried.send_replace(true);
        since
    }

    /// The watch has seen whether it takes a write.
    pub(super) fn takes(&self, write: &Result<(), Unavailable>) {
        self.lock().refused = write.as_ref().err().map(|error| error.0.clone());
    }

    /// Waits until a connection was tried, for as long as that may take.
    pub(super) async fn tried(&self) {
        if *self.tried.borrow() {
            return;
        }
        let mut tried = self.tried.subscribe();
        // However that ends, the state tells.
        drop(timeout(CONNECT + PATIENCE, tried.wait_for(|tried| *tried)).await);
    }

    /// The watch has seen that it does not work.
    pub(super) fn breaks(&self, error: &Unavailable) {
        let mut state = self.lock();
        state.connection = None;
        state.suspect = true;
        state.note(&error.0);
        drop(state);
        self.tried.send_replace(true);
    }

    /// Whether the connection has failed since this was last asked.
    pub(super) fn was_suspect(&self) -> bool {
        std::mem::take(&mut self.lock().suspect)
    }

    /// What is wrong, if anything is.
    pub(super) fn trouble(&self) -> Option<String> {
        let state = self.lock();
        let trouble = state.trouble.as_ref().map(|trouble| trouble.message.clone());
        trouble.or_else(|| state.refused.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self) -> RedisResult<Connection> {
        let RedisSettings { place, access, ca, .. } = &self.settings;
        let certificates = TlsCertificates { client_tls: None, root_cert: ca.clone() };
        match place {
            Place::Single(url) => {
                let info = url.as_str().into_connection_info()?;
                let client = match info.addr() {
                    ConnectionAddr::TcpTls { .. } => Client::build_with_tls(info, certificates)?,
                    _ => Client::open(info)?,
                };
                let config = config();
                let made = client.get_multiplexed_async_connection_with_config(&config);
                Ok(Connection::One(made.await?))
            },
            Place::Sentinel { sentinels, master } => {
                let nodes = sentinels.iter().map(|node| access.address(node));
                let kind = SentinelServerType::Master;
                let mut builder = SentinelClientBuilder::new(nodes, master.clone(), kind)?
                    .set_client_to_redis_db(access.db);
                if access.tls {
                    builder = builder
                        .set_client_to_redis_tls_mode(TlsMode::Secure)
                        .set_client_to_redis_certificates(certificates.clone())
                        .set_client_to_sentinel_certificates(certificates);
                }
                // Sentinels that ask for a password are given the same one.
                if let Some(username) = &access.username {
                    builder = builder.set_client_to_redis_username(username);
                }
                if let Some(password) = &access.password {
                    builder = builder.set_client_to_redis_password(password.as_str());
                }
                let mut client = builder.build()?;
                let config = config();
                let made = client.get_async_connection_with_config(&config);
                Ok(Connection::One(made.await?))
            },
            Place::Cluster { nodes } => {
                let nodes = nodes.iter().map(|node| access.info(node));
                let mut builder = ClusterClient::builder(nodes.collect::<RedisResult<Vec<_>>>()?)
                    .connection_timeout(CONNECT)
                    .response_timeout(PATIENCE)
                    // What one node can't answer now, the next look asks again.
                    .retries(1);
                if access.tls {
                    builder = builder.certs(certificates).tls(TlsMode::Secure);
                }
                let made = builder.build()?.get_async_connection().await?;
                Ok(Connection::Many(made))
            },
        }
    }
}

impl State {
    fn ready(&self) -> Option<(Connection, u64)> {
        let connection = self.connection.as_ref().filter(|_| self.trouble.is_none())?;
        Some((connection.clone(), self.number))
    }

    fn note(&mut self, message: &str) {
        match &mut self.trouble {
            Some(trouble) => trouble.message = message.into(),
            none => *none = Some(Trouble { since: Instant::now(), message: message.into() }),
        }
    }
}

impl Access {
    fn address(&self, (host, port): &(String, u16)) -> ConnectionAddr {
        let (host, port) = (host.clone(), *port);
        match self.tls {
            true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host, port),
        }
    }

    fn info(&self, node: &(String, u16)) -> RedisResult<ConnectionInfo> {
        let mut redis = RedisConnectionInfo::default().set_db(self.db);
        if let Some(username) = &self.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = &self.password {
            redis = redis.set_password(password.as_str());
        }
        Ok(self.address(node).into_connection_info()?.set_redis_settings(redis))
    }
}

fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(PATIENCE))
}

/// Whether a server that works has said no to one command: it is full, say. One that has become a replica, or is loading, is of no use for others either.
fn is_refusal(error: &RedisError) -> bool {
    use ServerErrorKind as Server;

    match error.kind() {
        ErrorKind::Server(Server::ReadOnly | Server::MasterDown | Server::BusyLoading) => false,
        ErrorKind::Server(_) | ErrorKind::Extension => true,
        _ => false,
    }
}

/// What is wrong, without what was sent.
fn brief(error: &RedisError) -> String {
    match (error.kind(), error.code()) {
        (ErrorKind::Io, _) => error.to_string(),
        (_, Some(code)) => format!("{}: {code}", error.category()),
        (_, None) => error.category().to_owned(),
    }
}

/// How long one command may take; a request waits for one.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(1);

//! Where the store is, as `session.store` says: the URL of a Redis server, a group of sentinels, or a cluster.
//!
//! ```text
//! redis://[user:password@]host[:port][/db]                     rediss:// with TLS
//! unix:///path?db=0&pass=…
//! redis+sentinel://[user:password@]host:port,host:port/master[/db]     rediss+sentinel://
//! redis+cluster://[user:password@]host:port,host:port                  rediss+cluster://
//! ```

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

/// Where the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreSettings {
    /// In this process alone.
    Memory,
    /// In a Redis or Valkey that all replicas share.
    Redis(RedisSettings),
}

/// A Redis or Valkey; never printed, it holds a password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisSettings {
    pub(super) place: Place,
    pub(super) access: Access,
    /// What all keys begin with.
    pub(super) prefix: String,
    /// Certificate authorities in PEM instead of the system's.
    pub(super) ca: Option<Vec<u8>>,
}

/// The servers to begin with.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// One server, as the URL that the library reads.
    Single(Zeroizing<String>),
    /// Sentinels that know the master called so.
    Sentinel { sentinels: Vec<(String, u16)>, master: String },
    /// Some nodes of a cluster.
    Cluster { nodes: Vec<(String, u16)> },
}

/// How to introduce oneself to servers found by sentinels or in a cluster.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) tls: bool,
    pub(super) username: Option<String>,
    pub(super) password: Option<Zeroizing<String>>,
    pub(super) db: i64,
}

/// Why a URL names no Redis; without the URL, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlError {
    /// Another scheme, or none.
    #[error(
        "begin with `redis://`, `rediss://` (TLS), `unix://`, `redis+sentinel://` or `redis+cluster://`"
    )]
    Scheme,
    /// No server is named.
    #[error("name at least one server as `host:port`")]
    Hosts,
    /// The sentinels need to know which master.
    #[error("name the master that the sentinels watch: `redis+sentinel://host:26379/mymaster`")]
    Master,
    /// Not a number of a database.
    #[error("the database is a number: `/0` at the end")]
    Database,
    /// Something else that the library does not understand.
    #[error("not a URL of a Redis server: `redis://user:password@host:6379/0`")]
    Url,
    /// The feature is off.
    #[error("this labgate was built without Redis (the cargo feature `redis`)")]
    Feature,
}

impl RedisSettings {
    /// The settings that `url` stands for.
    ///
    /// # Errors
    /// When it names no server in one of the forms above.
    pub fn parse(url: &str, prefix: &str, ca: Option<Vec<u8>>) -> Result<Self, RedisUrlError> {
        if cfg!(not(feature = "redis")) {
            return Err(RedisUrlError::Feature);
        }
        let url = url.trim();
        let (scheme, rest) = url.split_once("://").ok_or(RedisUrlError::Scheme)?;
        let (place, access) = match scheme {
            "redis" | "rediss" | "valkey" | "valkeys" | "unix" | "redis+unix" => single(url)?,
            "redis+sentinel" => sentinel(rest, false)?,
            "rediss+sentinel" => sentinel(rest, true)?,
            "redis+cluster" => cluster(rest, false)?,
            "rediss+cluster" => cluster(rest, true)?,
            _ => return Err(RedisUrlError::Scheme),
        };
        Ok(Self { place, access, prefix: prefix.into(), ca })
    }
}

impl std::fmt::Debug for RedisSettings {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.place {
            Place::Single(_) => "single",
            Place::Sentinel { .. } => "sentinel",
            Place::Cluster { .. } => "cluster",
        };
        write!(out, "RedisSettings({kind}, {})", self.prefix)
    }
}

fn single(url: &str) -> Result<(Place, Access), RedisUrlError> {
    let parsed = url::Url::parse(url).map_err(|_| RedisUrlError::Url)?;
    let is_socket = matches!(parsed.scheme(), "unix" | "redis+unix");
    if !is_socket && parsed.host_str().is_none_or(str::is_empty) {
        return Err(RedisUrlError::Hosts);
    }
    let db = parsed.path().trim_matches('/');
    if !is_socket && !db.is_empty() && db.parse::<u16>().is_err() {
        return Err(RedisUrlError::Database);
    }
    Ok((Place::Single(Zeroizing::new(url.into())), Access::default()))
}

fn sentinel(rest: &str, tls: bool) -> Result<(Place, Access), RedisUrlError> {
    let (mut access, sentinels, path) = servers(rest, tls, 26379)?;
    let mut path = path.split('/').filter(|part| !part.is_empty());
    let master = path.next().ok_or(RedisUrlError::Master)?.to_owned();
    if let Some(db) = path.next() {
        access.db = db.parse().map_err(|_| RedisUrlError::Database)?;
    }
    Ok((Place::Sentinel { sentinels, master }, access))
}

fn cluster(rest: &str, tls: bool) -> Result<(Place, Access), RedisUrlError> {
    let (access, nodes, path) = servers(rest, tls, 6379)?;
    // A cluster has one database.
    match path.trim_matches('/') {
        "" | "0" => Ok((Place::Cluster { nodes }, access)),
        _ => Err(RedisUrlError::Database),
    }
}

type Servers<'a> = (Access, Vec<(String, u16)>, &'a str);

fn servers(rest: &str, tls: bool, port: u16) -> Result<Servers<'_>, RedisUrlError> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (Some(user), hosts),
        None => (None, authority),
    };
    let mut access = Access { tls, ..Access::default() };
    if let Some(user) = user {
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        access.username = Some(decoded(name)?).filter(|name| !name.is_empty());
        access.password = Some(Zeroizing::new(decoded(password)?)).filter(|word| !word.is_empty());
    }
    let hosts = hosts.split(',').map(|host| server(host, port)).collect::<Result<_, _>>()?;
    Ok((access, hosts, path))
}

/// `host`, `host:port` or `[address]:port`.
fn server(text: &str, default: u16) -> Result<(String, u16), RedisUrlError> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            (host, port.parse().map_err(|_| RedisUrlError::Hosts)?)
        },
        Some(_) | None => (text, default),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.is_empty() {
        true => Err(RedisUrlError::Hosts),
        false => Ok((host.into(), port)),
    }
}

fn decoded(text: &str) -> Result<String, RedisUrlError> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| RedisUrlError::Url)?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<RedisSettings, RedisUrlError> {
        RedisSettings::parse(url, "labgate:", None)
    }

    #[test]
    fn one_server_is_read_by_the_library() {
        for url in [
            "redis://cache",
            "redis://cache:6380/3",
            "rediss://:hunter2@cache.example.com:6379/0",
            "unix:///run/redis.sock",
            "redis://[::1]:6379",
        ] {
            assert!(matches!(parse(url).unwrap().place, Place::Single(_)), "{url}");
        }
    }

    #[test]
    fn sentinels_and_clusters_are_lists() {
        let settings = parse("rediss+sentinel://bob:h%40x@a:1,b,[::1]:3/mymaster/2").unwrap();
        let Place::Sentinel { sentinels, master } = settings.place else { panic!("sentinels") };
        let host = |name: &str, port| (name.to_owned(), port);
        assert_eq!(sentinels, [host("a", 1), host("b", 26379), host("::1", 3)]);
        assert_eq!(master, "mymaster");
        let access = settings.access;
        assert_eq!((access.tls, access.db), (true, 2));
        assert_eq!(access.username.as_deref(), Some("bob"));
        assert_eq!(access.password.as_ref().map(|word| word.as_str()), Some("h@x"));
        let settings = parse("redis+cluster://:pw@a,b:7001").unwrap();
        let Place::Cluster { nodes } = settings.place else { panic!("a cluster") };
        assert_eq!(nodes, [host("a", 6379), host("b", 7001)]);
        assert_eq!((settings.access.tls, settings.access.username), (false, None));
    }

    #[test]
    fn what_names_no_server_is_told_without_the_url() {
        for (url, error) in [
            ("cache:6379", RedisUrlError::Scheme),
            ("http://cache", RedisUrlError::Scheme),
            ("redis://", RedisUrlError::Hosts),
            ("redis://cache/abc", RedisUrlError::Database),
            ("redis+sentinel://a:1,b:2", RedisUrlError::Master),
            ("redis+sentinel://a:1/m/x", RedisUrlError::Database),
            ("redis+sentinel:///m", RedisUrlError::Hosts),
            ("redis+cluster://a:1,:2", RedisUrlError::Hosts),
            ("redis+cluster://a:b", RedisUrlError::Hosts),
            ("redis+cluster://a:1/3", RedisUrlError::Database),
        ] {
            match parse(url) {
                Err(found) => assert_eq!(found, error, "{url}"),
                Ok(_) => panic!("{url} is none"),
            }
        }
        let settings = parse("redis://:hunter2@cache").unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}

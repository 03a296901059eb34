//! `RouteTable<T>`: host, path and method to `T`, most specific first.

use http::Method;

use crate::{
    config::{HostPattern, PathPrefix},
    refusal::Refusal,
    target::Target,
};

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    /// None for any host.
    pub host: Option<HostPattern>,
    /// On segment borders.
    pub path: PathPrefix,
    /// None for all.
    pub methods: Option<Vec<Method>>,
    /// What it leads to.
    pub value: T,
}

/// Two entries for the same host, path and method, by their place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {second} can't be told from entry {first}")]
pub struct Overlap {
    /// The earlier one.
    pub first: usize,
    /// The later one.
    pub second: usize,
}

/// Why nothing is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// No entry's host matches.
    NoHost,
    /// The host is served, but not this path.
    NoPath,
    /// Only the method is in the way; these are served.
    NoMethod(Vec<Method>),
    /// Upstreams may differ over where this path leads.
    Ambiguous,
}

/// Host, path and method to `T`, most specific first.
#[derive(Clone, Debug)]
pub struct RouteTable<T> {
    entries: Vec<Entry<T>>,
}

impl<T> RouteTable<T> {
    /// The table of these entries, in whatever order.
    ///
    /// # Errors
    /// All pairs that overlap.
    pub fn new(entries: Vec<Entry<T>>) -> Result<Self, Vec<Overlap>> {
        Ok(Self { entries })
    }

    /// Where this host, path and method lead, taken literally.
    pub fn lookup(&self, host: &str, path: &[u8], method: &Method) -> Result<&T, Miss> {
        let _ = (host, path, method);
        Err(Miss::NoHost)
    }

    /// Where `target` leads in every reading that an upstream may make of it.
    pub fn resolve(&self, target: &Target, is_public: impl Fn(&T) -> bool) -> Result<&T, Miss> {
        let _ = (target, is_public);
        Err(Miss::NoHost)
    }

    /// Whether an entry names this host; one for any host names none.
    pub fn names_host(&self, host: &str) -> bool {
        let _ = host;
        false
    }

    /// All values, in no particular order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|entry| &entry.value)
    }
}

impl From<Miss> for Refusal {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::NoHost => Self::Misdirected,
            Miss::NoPath => Self::NotFound,
            Miss::NoMethod(methods) => Self::MethodNotAllowed(methods),
            Miss::Ambiguous => Self::Malformed("the path can be read in more than one way"),
        }
    }
}

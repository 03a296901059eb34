//! `RouteTable<T>`: host, path and method to `T`, most specific first.
//!
//! ```text
//! exact host ─▶ wildcard host ─▶ any host        one list each, by the longest path prefix first
//! ```
//!
//! The lists are searched in this order, as one: an entry whose path or methods don't match leaves the word to the next wider one. So a host that
//! has entries of its own still falls back to those for any host.
//!
//! [`RouteTable::resolve`] is the lock's: all readings that an upstream may make of a path must lead to the same value, a path over whose structure
//! upstreams differ never leads to a public one, and one that meets a guarded prefix in another case of letters never leads past it to a wider
//! one. What a value is, is the caller's.

use std::{collections::HashMap, ptr};

use http::Method;

use crate::{
    config::{HostPattern, PathPrefix},
    refusal::Refusal,
    target::{self, Target},
};

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    /// None for any host.
    pub host: Option<HostPattern>,
    /// On segment borders.
    pub path: PathPrefix,
    /// None for all; `HEAD` counts only if it is listed.
    pub methods: Option<Vec<Method>>,
    /// What it leads to.
    pub value: T,
}

impl<T> Entry<T> {
    /// The same line, leading to `value`.
    pub fn with<U>(&self, value: U) -> Entry<U> {
        let Self { host, path, methods, value: _ } = self;
        Entry { host: host.clone(), path: path.clone(), methods: methods.clone(), value }
    }
}

/// Two entries for the same host, path and method, by their places in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {second} can't be told from entry {first}")]
pub struct Overlap {
    /// The earlier one, from 0.
    pub first: usize,
    /// The later one, from 0.
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
    exact: HashMap<String, List<T>>,
    /// By what follows the first label.
    wildcard: HashMap<String, List<T>>,
    any: List<T>,
    looks_at_methods: bool,
}

/// Entries of one host pattern, the longest path first.
type List<T> = Vec<Entry<T>>;

impl<T> RouteTable<T> {
    /// The table of these entries, in whatever order.
    ///
    /// # Errors
    /// All pairs that overlap.
    pub fn new(entries: Vec<Entry<T>>) -> Result<Self, Vec<Overlap>> {
        let overlaps = overlaps(&entries);
        if !overlaps.is_empty() {
            return Err(overlaps);
        }
        let looks_at_methods = entries.iter().any(|entry| entry.methods.is_some());
        let (exact, wildcard, any) = (HashMap::new(), HashMap::new(), Vec::new());
        let mut table = Self { exact, wildcard, any, looks_at_methods };
        for entry in entries {
            table.list_of(entry.host.as_ref()).push(entry);
        }
        let Self { exact, wildcard, any, looks_at_methods: _ } = &mut table;
        for list in exact.values_mut().chain(wildcard.values_mut()).chain([any]) {
            list.sort_by_key(|entry| std::cmp::Reverse(entry.path.as_str().len()));
        }
        Ok(table)
    }

    /// Whether some entry is for certain methods only, so that it must be known with which one something is asked for.
    pub fn looks_at_methods(&self) -> bool {
        self.looks_at_methods
    }

    fn list_of(&mut self, host: Option<&HostPattern>) -> &mut List<T> {
        match host {
            Some(HostPattern::Exact(name)) => self.exact.entry(name.clone()).or_default(),
            Some(HostPattern::Wildcard(suffix)) => self.wildcard.entry(suffix.clone()).or_default(),
            None => &mut self.any,
        }
    }

    /// Where this host (as in `Origin`), path and method lead, taken literally; for a request, use [`Self::resolve`].
    ///
    /// # Errors
    /// What did not match.
    pub fn lookup(&self, host: &str, path: &str, method: &Method) -> Result<&T, Miss> {
        let entry = self.find(host, path.as_bytes(), method, |_| true)?;
        Ok(&entry.value)
    }

    /// Where `target` leads, in every reading that an upstream may make of its path.
    ///
    /// # Errors
    /// What did not match, or that the readings lead to different places.
    pub fn resolve(&self, target: &Target, is_public: impl Fn(&T) -> bool) -> Result<&T, Miss> {
        let clear = |entry: &&Entry<T>| !self.is_guarded_otherwise(target, entry, &is_public);
        if !target.is_ambiguous() {
            let entry = self.agreed(target, |_| true)?;
            if clear(&entry) {
                return Ok(&entry.value);
            }
        }
        match self.agreed(target, |value| !is_public(value)) {
            Ok(entry) => Some(entry).filter(clear).map(|entry| &entry.value).ok_or(Miss::Ambiguous),
            // Where something is there for other spellings, the spelling is to blame.
            Err(_) => Err(self.agreed(target, |_| true).err().unwrap_or(Miss::Ambiguous)),
        }
    }

    /// The one entry to which all readings lead, among those that are `eligible`.
    fn agreed(&self, target: &Target, eligible: impl Fn(&T) -> bool) -> Result<&Entry<T>, Miss> {
        let host = target.origin.host.as_str();
        let found = |path| self.find(host, path, &target.method, &eligible);
        let mut all = target.readings().map(found);
        let first = all.next().unwrap_or(Err(Miss::NoPath));
        let same = |other: Result<&Entry<T>, Miss>| match (&first, &other) {
            (Ok(one), Ok(other)) => ptr::eq(*one, *other),
            (Err(_), Err(_)) => true,
            (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
        };
        if all.all(same) { first } else { Err(Miss::Ambiguous) }
    }

    /// Whether the target would lead past `found` to a narrower guarded entry, if the upstream does not care about the case of letters.
    ///
    /// Guarded prefixes that differ in nothing else are told apart, as whoever wrote both of them meant it.
    fn is_guarded_otherwise(
        &self,
        target: &Target,
        found: &Entry<T>,
        is_public: impl Fn(&T) -> bool,
    ) -> bool {
        let narrower =
            self.candidates(&target.origin.host).take_while(|entry| !ptr::eq(*entry, found));
        narrower
            .filter(|entry| !is_public(&entry.value) && entry.serves(&target.method))
            .filter(|entry| is_public(&found.value) || !entry.is_twin(found))
            .any(|entry| target.touches(entry.path.as_str()))
    }

    fn find(
        &self,
        host: &str,
        path: &[u8],
        method: &Method,
        eligible: impl Fn(&T) -> bool,
    ) -> Result<&Entry<T>, Miss> {
        let (mut host_is_served, mut others) = (false, Vec::new());
        for entry in self.candidates(host) {
            host_is_served = true;
            if !target::covers(entry.path.as_str(), path) || !eligible(&entry.value) {
                continue;
            }
            if entry.serves(method) {
                return Ok(entry);
            }
            others.extend(entry.methods.iter().flatten().cloned());
        }
        others.sort_by(|one: &Method, other| one.as_str().cmp(other.as_str()));
        others.dedup();
        Err(match (host_is_served, others.is_empty()) {
            (false, _) => Miss::NoHost,
            (true, true) => Miss::NoPath,
            (true, false) => Miss::NoMethod(others),
        })
    }

    /// All entries whose host matches, most specific first.
    fn candidates(&self, host: &str) -> impl Iterator<Item = &Entry<T>> {
        let exact = self.exact.get(host);
        let wildcard = self.wildcard_list(host);
        let named = exact.into_iter().chain(wildcard);
        named.flatten().chain(&self.any)
    }

    fn wildcard_list(&self, host: &str) -> Option<&List<T>> {
        let (label, suffix) = host.split_once('.')?;
        self.wildcard.get(suffix).filter(|_| !label.is_empty())
    }

    /// Whether an entry names this host (as in `Origin`), so that redirects may lead there; entries for any host name none.
    pub fn names_host(&self, host: &str) -> bool {
        self.exact.contains_key(host) || self.wildcard_list(host).is_some()
    }

    /// All values, in no particular order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        let named = self.exact.values().chain(self.wildcard.values());
        let entries = named.flatten().chain(&self.any);
        entries.map(|entry| &entry.value)
    }
}

impl<T> Entry<T> {
    fn serves(&self, method: &Method) -> bool {
        let listed = |methods: &Vec<Method>| methods.contains(method);
        self.methods.as_ref().is_none_or(listed)
    }

    fn is_twin(&self, other: &Self) -> bool {
        self.path.as_str().eq_ignore_ascii_case(other.path.as_str())
    }

    fn overlaps(&self, other: &Self) -> bool {
        let methods = match (&self.methods, &other.methods) {
            (Some(own), Some(others)) => own.iter().any(|method| others.contains(method)),
            (None, _) | (_, None) => true,
        };
        methods && self.host == other.host && self.path == other.path
    }
}

fn overlaps<T>(entries: &[Entry<T>]) -> Vec<Overlap> {
    let mut overlaps = Vec::new();
    for (second, entry) in entries.iter().enumerate() {
        let earlier = entries.iter().take(second);
        if let Some(first) = earlier.enumerate().find(|(_, other)| entry.overlaps(other)) {
            let first = first.0;
            overlaps.push(Overlap { first, second });
        }
    }
    overlaps
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

#[cfg(test)]
mod tests;

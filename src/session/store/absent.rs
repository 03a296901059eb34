//! What stands for a shared store where labgate is built without one: nothing, which can't be had.

use std::{sync::Arc, time::Duration};

use super::{Listed, Means, Overlay, Put, RedisSettings, Turn, Unavailable, memory::Memory};
use crate::{
    clock::Timestamp,
    session::{KeyRing, Mark, Session, SessionId, TicketId},
};

/// No store.
#[derive(Debug)]
pub(super) enum Remote {}

/// No turn.
#[derive(Debug)]
pub(super) enum Held {}

impl Held {
    pub(super) async fn release(self) {
        match self {}
    }
}

impl Remote {
    pub(super) fn start(_: RedisSettings, _: Means, _: Arc<Memory>) -> Arc<Self> {
        unreachable!("without Redis no settings for it can be parsed")
    }

    pub(super) fn is_at(&self, _: &RedisSettings) -> bool {
        match *self {}
    }

    pub(super) async fn tried(&self) {
        match *self {}
    }

    pub(super) fn rekey(&self, _: Arc<KeyRing>) {
        match *self {}
    }

    pub(super) fn trouble(&self) -> Option<String> {
        match *self {}
    }

    pub(super) async fn get(
        &self,
        _: &Arc<Session>,
        _: Timestamp,
        _: Timestamp,
    ) -> Result<(Option<Overlay>, Option<Timestamp>), Unavailable> {
        match *self {}
    }

    pub(super) async fn named(&self, _: &str) -> Option<Arc<Session>> {
        match *self {}
    }

    pub(super) async fn put(
        &self,
        _: &Arc<Session>,
        _: Timestamp,
        _: Timestamp,
    ) -> Result<Put, Unavailable> {
        match *self {}
    }

    pub(super) fn put_beside(&self, _: Arc<Session>, _: Timestamp, _: Timestamp) {
        match *self {}
    }

    pub(super) async fn revoke(&self, _: &SessionId, _: Timestamp) -> Result<(), Unavailable> {
        match *self {}
    }

    pub(super) async fn spend(
        &self,
        _: &TicketId,
        _: Timestamp,
        _: Timestamp,
    ) -> Result<bool, Unavailable> {
        match *self {}
    }

    pub(super) fn tell(&self, _: Mark) {
        match *self {}
    }

    pub(super) async fn turn(self: Arc<Self>, _: &SessionId) -> Turn {
        match *self {}
    }

    pub(super) async fn list(&self) -> Result<Vec<Listed>, Unavailable> {
        match *self {}
    }

    pub(super) async fn end(&self, _: &Listed) -> Result<(), Unavailable> {
        match *self {}
    }

    pub(super) async fn settle(&self, _: Duration) {
        match *self {}
    }
}

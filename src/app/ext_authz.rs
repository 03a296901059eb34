//! The listener for Envoy: `Authorization/Check` goes to the current gate, and gRPC's health service says whether this process takes requests.
//!
//! ```text
//! /envoy.service.auth.v3.Authorization/Check ─▶ Gate::ext_authz         peers in `server.trusted_proxies`
//! /grpc.health.v1.Health/{Check,Watch}       ─▶ SERVING or NOT_SERVING  everybody, such as a kubelet
//! ```

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::stream;
use prost::{Enumeration, Message};
use tokio::sync::watch;

use super::Front;
use crate::{
    accept::{self, Code, Handler},
    body::{Request, Response},
    target::Peer,
    telemetry::{Health, Standing},
};

/// Answers the calls of Envoy, and of whoever asks how this process is.
#[derive(Debug)]
pub(super) struct EnvoyFront {
    pub(super) front: Arc<Front>,
    pub(super) health: Arc<Health>,
    /// How long the message of a call may take.
    pub(super) patience: Duration,
}

impl Handler for EnvoyFront {
    async fn handle(&self, call: &mut Request, addr: SocketAddr, core: usize) -> Response {
        if let Some(refused) = accept::no_call(call) {
            return refused;
        }
        match call.uri().path() {
            "/envoy.service.auth.v3.Authorization/Check" => {
                let gate = self.front.gate.load_full();
                gate.ext_authz(call, Peer { addr, core }, self.patience).await
            },
            "/grpc.health.v1.Health/Check" => match self.is_known(call).await {
                Ok(true) => accept::message(&told(state(*self.health.watch().borrow()))),
                Ok(false) => accept::failed(Code::NotFound),
                Err(failure) => accept::failed(failure),
            },
            "/grpc.health.v1.Health/Watch" => match self.is_known(call).await {
                Ok(known) => {
                    let watching = Watching { standing: self.health.watch(), known, told: None };
                    accept::messages(stream::unfold(watching, Watching::next), Code::Unavailable)
                },
                Err(failure) => accept::failed(failure),
            },
            _ => accept::failed(Code::Unimplemented),
        }
    }
}

impl EnvoyFront {
    /// Whether `call` asks about a service that is served here, or about all of them.
    async fn is_known(&self, call: &mut Request) -> Result<bool, Code> {
        let body = std::mem::take(call.body_mut());
        let message = accept::read_message(body, LONGEST, self.patience).await?;
        let asked = HealthRequest::decode(message).map_err(|_| Code::InvalidArgument)?;
        Ok(["", "envoy.service.auth.v3.Authorization"].contains(&asked.service.as_str()))
    }
}

/// A call that is told of each change; it ends when this process is about to, and so holds no drain up.
struct Watching {
    standing: watch::Receiver<Standing>,
    known: bool,
    told: Option<State>,
}

impl Watching {
    async fn next(mut self) -> Option<(HealthResponse, Self)> {
        loop {
            let standing = *self.standing.borrow_and_update();
            let now = if self.known { state(standing) } else { State::UnknownService };
            if self.told.replace(now) != Some(now) {
                return Some((told(now), self));
            }
            if standing == Standing::Draining {
                return None;
            }
            self.standing.changed().await.ok()?;
        }
    }
}

fn state(standing: Standing) -> State {
    match standing {
        Standing::Ready => State::Serving,
        Standing::Starting | Standing::Draining => State::NotServing,
    }
}

fn told(state: State) -> HealthResponse {
    HealthResponse { status: state as i32 }
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct HealthRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct HealthResponse {
    #[prost(enumeration = "State", tag = "1")]
    status: i32,
}

/// Its `ServingStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
enum State {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    UnknownService = 3,
}

/// Bytes of a question about health.
const LONGEST: usize = 4 * 1024;

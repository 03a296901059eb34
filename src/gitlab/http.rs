//! The one client that calls GitLab: never follows a redirect, never waits long, never reads much, and says why a call failed.
//!
//! Reads go through a pool. Calls that spend something (a code, a refresh token) each get a connection of their own: on a kept-alive one that
//! GitLab is just closing the reply could be lost, and with it the session. Who may call, and how many at once, is `lane`'s.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri,
    header::{
        ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE,
    },
};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::{Instant, timeout};
use url::Url;

use super::{
    CallError, Observe,
    breaker::Verdict,
    dial::{self, Dial, Proxy},
    failure::chain,
    lane::{CALLS, Lane, Lanes},
};
use crate::body::Body;

/// Names the limit that was met; those of accounts begin alike.
///
/// Source: GitLab, `doc/administration/settings/user_and_ip_rate_limits.md`.
const LIMIT: HeaderName = HeaderName::from_static("ratelimit-name");

/// A whole call on the wire, to the last byte.
const WHOLE: Duration = Duration::from_secs(10);
/// How long a connection is kept for another call; short, so that a new address of GitLab is found.
const IDLE: Duration = Duration::from_secs(30);
/// No longer pause is passed on, whatever an answer says.
const LONGEST: Duration = Duration::from_hours(1);
/// The most bytes read of a usual answer.
pub(super) const USUAL: usize = 1 << 20;

/// GitLab's answer: JSON if it says so, 200 or 4xx.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) json: bool,
    /// `WWW-Authenticate`, where OAuth's errors stand when the body is empty.
    pub(super) challenge: String,
    pub(super) body: Bytes,
}

/// An answer or a failure, and what it says of GitLab's health.
type Judged = Result<(Answer, Verdict), (CallError, Verdict)>;

type Channel<B = Full<Bytes>> = legacy::Client<HttpsConnector<Dial>, B>;

/// The client of one GitLab.
pub(super) struct Client {
    gitlab: String,
    base: Url,
    pooled: Channel,
    fresh: Channel,
    /// For calls of applications.
    relayed: Channel<Body>,
    lanes: Lanes,
    observe: Arc<dyn Observe>,
}

impl Client {
    pub(super) fn new(
        gitlab: &str,
        base: Url,
        tls: rustls::ClientConfig,
        proxy: Option<Proxy>,
        lanes: Lanes,
        observe: Arc<dyn Observe>,
    ) -> Self {
        let dial = Dial::new(proxy);
        Self {
            gitlab: gitlab.into(),
            pooled: channel(tls.clone(), dial.clone(), CALLS),
            fresh: channel(tls.clone(), dial.clone(), 0),
            relayed: channel(tls, dial, CALLS),
            base,
            lanes,
            observe,
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.lanes.is_down()
    }

    /// How long until GitLab may be called again.
    pub(super) fn wait(&self, lane: Lane) -> Duration {
        self.lanes.wait(lane)
    }

    /// GitLab has counted a call of `lane` for the account of its token.
    pub(super) fn was_known(&self, lane: Lane) {
        self.lanes.was_known(lane);
    }

    /// Waits until GitLab is known to be out of reach.
    pub(super) async fn went_down(&self) {
        self.lanes.went_down().await;
    }

    /// The URL at which `path` (no leading slash) is called.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base.as_str().trim_end_matches('/'))
    }

    /// Reads `path` as the bearer of `token`, or as nobody.
    pub(super) async fn get(
        &self,
        lane: Lane,
        endpoint: &'static str,
        path: &str,
        token: Option<&str>,
        limit: usize,
    ) -> Result<Answer, CallError> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = self.uri(path)?;
        if let Some(token) = token {
            request.headers_mut().insert(AUTHORIZATION, bearer(token)?);
        }
        self.call(lane, endpoint, request, limit).await
    }

    /// Reads `path` with a token in the header `name`.
    pub(super) async fn get_with(
        &self,
        lane: Lane,
        endpoint: &'static str,
        path: &str,
        (name, token): (HeaderName, &str),
    ) -> Result<Answer, CallError> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = self.uri(path)?;
        let mut value = HeaderValue::try_from(token).map_err(|_| CallError::Status(401, None))?;
        value.set_sensitive(true);
        request.headers_mut().insert(name, value);
        self.call(lane, endpoint, request, USUAL).await
    }

    /// One call; anything that is no verdict (no connection, 429, 3xx, 5xx, a 2xx page) is an error.
    pub(super) async fn call(
        &self,
        lane: Lane,
        endpoint: &'static str,
        mut request: Request<Bytes>,
        limit: usize,
    ) -> Result<Answer, CallError> {
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        // Nobody waits for a turn for nothing; and while waiting GitLab may have gone.
        self.lanes.check(lane).map_err(CallError::Down)?;
        let start = Instant::now();
        let result = match self.lanes.turn(lane).await {
            Ok(_turn) => {
                self.lanes.admit(lane).map_err(CallError::Down)?;
                self.on_the_wire(lane, request, limit).await
            },
            Err(error) => Err(error),
        };
        let label = match &result {
            Ok(answer) => answer.status.as_str().to_owned(),
            Err(error) => error.label(),
        };
        self.observe.request(&self.gitlab, endpoint, &label, start.elapsed());
        result
    }

    /// Only what happens here says something of GitLab.
    async fn on_the_wire(
        &self,
        lane: Lane,
        request: Request<Bytes>,
        limit: usize,
    ) -> Result<Answer, CallError> {
        let judged = timeout(WHOLE, self.exchange(request, limit)).await;
        let (result, verdict) = match judged {
            Ok(Ok((answer, verdict))) => (Ok(answer), verdict),
            Ok(Err((error, verdict))) => (Err(error), verdict),
            Err(_) => (Err(CallError::Timeout), Verdict::Down),
        };
        self.lanes.note(lane, verdict);
        result
    }

    async fn exchange(&self, request: Request<Bytes>, limit: usize) -> Judged {
        let failed = |error| (error, Verdict::Down);
        let response =
            self.send(request).await.map_err(|error| failed(self.connect_error(error)))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, limit).collect().await.map_err(|error| match error
            .downcast_ref::<LengthLimitError>(
        ) {
            Some(_) => (CallError::TooLong(limit), Verdict::Unclear),
            None => failed(CallError::Broken(error)),
        })?;
        judge(head.status, &head.headers, body.to_bytes())
    }

    async fn send(
        &self,
        request: Request<Bytes>,
    ) -> Result<http::Response<hyper::body::Incoming>, legacy::Error> {
        let request = request.map(Full::new);
        if request.method() != Method::GET {
            return self.fresh.request(request).await;
        }
        let again = request.clone();
        match self.pooled.request(request).await {
            // A kept-alive connection that GitLab closed meanwhile: reading again harms nobody.
            Err(error) if !error.is_connect() => self.fresh.request(again).await,
            result => result,
        }
    }

    fn connect_error(&self, error: legacy::Error) -> CallError {
        let host = self.base.host_str().unwrap_or_default().to_owned();
        let connecting = error.is_connect();
        let (kind, rustls) = dial::inside(&error);
        let certificate = rustls.and_then(dial::certificate);
        let unresolved = connecting && chain(&error).any(|level| level.to_string() == "dns error");
        let error = Box::new(error);
        match (connecting, certificate, kind) {
            (_, Some(certificate), _) => CallError::Certificate(host, certificate, error),
            (false, ..) => CallError::Broken(error),
            _ if unresolved => CallError::Name(host, error),
            (true, _, Some(std::io::ErrorKind::ConnectionRefused)) => {
                CallError::Refused(host, error)
            },
            (true, ..) => CallError::Connect(host, error),
        }
    }

    /// Passes on what an application asks, unless GitLab is known to be out of reach.
    pub(super) async fn relay(
        &self,
        mut request: Request<Body>,
        token: &str,
    ) -> Result<http::Response<hyper::body::Incoming>, CallError> {
        if self.is_down() {
            return Err(CallError::Down(self.wait(Lane::Person)));
        }
        request.headers_mut().insert(AUTHORIZATION, bearer(token)?);
        let sent = self.relayed.request(request).await;
        sent.map_err(|error| {
            if error.is_connect() {
                self.lanes.note(Lane::Person, Verdict::Down);
            }
            self.connect_error(error)
        })
    }

    /// Tells of a call to `endpoint` that is over.
    pub(super) fn observed(&self, endpoint: &'static str, status: &str, took: Duration) {
        self.observe.request(&self.gitlab, endpoint, status, took);
    }

    pub(super) fn uri(&self, path: &str) -> Result<Uri, CallError> {
        let url = self.url(path);
        Uri::try_from(url).map_err(|error| CallError::Connect(self.base.to_string(), error.into()))
    }
}

const AGENT: &str = concat!("labgate/", env!("CARGO_PKG_VERSION"));

fn bearer(token: &str) -> Result<HeaderValue, CallError> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| CallError::Status(401, None))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Sorts answers into those that say something of their question, and the rest.
fn judge(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Judged {
    let json = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.to_ascii_lowercase().contains("json"));
    let code = status.as_u16();
    let wait = pause(headers);
    match code {
        429 => {
            let of_account = headers
                .get(LIMIT)
                .is_some_and(|name| name.as_bytes().starts_with(b"throttle_authenticated"));
            let limited = if of_account { Verdict::OneAccount } else { Verdict::Limited(wait) };
            Err((CallError::TooMany(wait), limited))
        },
        300..=399 => Err((CallError::Redirect(code), Verdict::Unclear)),
        502..=504 => Err((CallError::Status(code, wait), Verdict::Down)),
        // A single account can make GitLab answer 500: no word on GitLab as a whole.
        500.. => Err((CallError::Status(code, wait), Verdict::Unclear)),
        200..=299 if !json => Err((CallError::NotJson(code), Verdict::Unclear)),
        _ => {
            let challenge = headers.get(WWW_AUTHENTICATE);
            let challenge = challenge.and_then(|value| value.to_str().ok());
            let answer =
                Answer { status, json, challenge: challenge.unwrap_or_default().to_owned(), body };
            Ok((answer, Verdict::Up))
        },
    }
}

/// `Retry-After` (seconds or a date) or `RateLimit-Reset` (Unix time), counted from the answer's own `Date`.
fn pause(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|date| date.timestamp());
    let sent = text(DATE.as_str()).and_then(date);
    let after_sent = |then: jiff::Timestamp| {
        let seconds = then.as_second().checked_sub(sent?.as_second())?;
        u64::try_from(seconds).ok().map(Duration::from_secs)
    };
    let asked = text(RETRY_AFTER.as_str());
    let seconds = asked.and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let dated = || asked.and_then(date).and_then(after_sent);
    let reset = || {
        let unix = text("ratelimit-reset")?.parse().ok()?;
        after_sent(jiff::Timestamp::from_second(unix).ok()?)
    };
    let asked = seconds.or_else(dated).or_else(reset);
    asked.map(|wait| wait.min(LONGEST))
}

fn channel<B>(tls: rustls::ClientConfig, dial: Dial, kept: usize) -> Channel<B>
where
    B: HttpBody + Send,
    B::Data: Send,
{
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(dial);
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(kept)
        .build(https)
}

impl fmt::Debug for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Client({})", self.base)
    }
}

//! Drives the development GitLab over real loopback sockets, as a browser and as a client.

mod callers;
mod flow;
mod refusals;
mod surroundings;

use std::sync::Mutex;

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;

use super::*;

const CALLBACK: &str = "http://127.0.0.1:4180/oauth2/callback";
const VERIFIER: &str = "a-verifier-of-at-least-forty-three-characters-0";
const SCOPES: &str = "openid email read_user read_api";

/// Making keys takes a while, so all tests share two.
async fn keys() -> Keys {
    static KEYS: OnceCell<Keys> = OnceCell::const_new();
    KEYS.get_or_init(async || Keys::generate().await.unwrap()).await.clone()
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }

    fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn location(&self) -> &str {
        self.header(header::LOCATION)
    }

    /// Where the browser goes next: by 302, or by the page that redirects by script.
    fn target(&self) -> String {
        script_redirect(&self.body).unwrap_or_else(|| self.location().to_owned())
    }

    fn csrf(&self) -> String {
        let (_, rest) = self.body.split_once("name=\"authenticity_token\" value=\"").unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    }

    fn error(&self) -> (u16, String) {
        (self.status.as_u16(), self.json()["error"].as_str().unwrap_or_default().to_owned())
    }
}

/// A development GitLab and one browser.
struct Lab {
    gitlab: DevGitlab,
    clock: Clock,
    client: Client<HttpConnector, Full<Bytes>>,
    cookie: Mutex<String>,
}

impl Lab {
    async fn new() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let clock = Clock::system();
        let gitlab = DevGitlab::start(Options {
            redirect_uris: vec![CALLBACK.to_owned(), "https://app.example/cb".to_owned()],
            clock: clock.clone(),
            keys: Some(keys().await),
            ..options
        });
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { gitlab: gitlab.await.unwrap(), clock, client, cookie: Mutex::default() }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        self.try_send(method, path, headers, body).await.unwrap()
    }

    async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> anyhow::Result<Reply> {
        let mut request = Request::builder().method(method);
        request = request.uri(format!("http://{}{path}", self.gitlab.addr()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned()))?;
        let (head, body) = self.client.request(request).await?.into_parts();
        let body = String::from_utf8(body.collect().await?.to_bytes().to_vec())?;
        assert_eq!(head.headers["x-labgate-dev-gitlab"], "1");
        Ok(Reply { status: head.status, headers: head.headers, body })
    }

    /// A request of the browser, whose cookie is kept.
    async fn browse(&self, method: Method, path: &str, body: &str) -> Reply {
        let cookie = self.cookie.lock().unwrap().clone();
        let kind = "application/x-www-form-urlencoded";
        let headers = [("cookie", cookie.as_str()), ("content-type", kind)];
        let reply = self.send(method, path, &headers, body).await;
        if let Some((pair, rest)) = reply.header(header::SET_COOKIE).split_once(';') {
            assert!(
                pair.starts_with("_gitlab_session=") && rest.contains("HttpOnly; SameSite=Lax")
            );
            pair.clone_into(&mut self.cookie.lock().unwrap());
        }
        reply
    }

    async fn get(&self, path: &str) -> Reply {
        self.browse(Method::GET, path, "").await
    }

    /// Chooses a person, wherever the chooser then leads.
    async fn sign_in(&self, user: &str, return_to: &str) -> Reply {
        let query = encode(&[("return_to", return_to)]);
        let chooser = self.get(&format!("/users/sign_in?{query}")).await;
        let form = [
            ("authenticity_token", chooser.csrf()),
            ("return_to", return_to.to_owned()),
            ("user", user.to_owned()),
        ];
        let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.browse(Method::POST, "/users/sign_in", &encode(&form)).await
    }

    /// Gives or denies consent on a consent page.
    async fn consent(&self, page: &Reply, pairs: &[(&str, &str)], deny: bool) -> Reply {
        assert!(page.body.contains(">Authorize</button>"), "{}", page.body);
        let csrf = page.csrf();
        let mut form = pairs.to_vec();
        form.push(("authenticity_token", &csrf));
        if deny {
            form.push(("_method", "delete"));
        }
        self.browse(Method::POST, "/oauth/authorize", &encode(&form)).await
    }

    /// A code for this user, by whatever pages it takes.
    async fn code(&self, user: &str, pairs: &[(&str, &str)]) -> String {
        let path = authorize(pairs);
        self.sign_in(user, &path).await;
        let mut reply = self.get(&path).await;
        if reply.body.contains(">Authorize</button>") {
            reply = self.consent(&reply, pairs, false).await;
        }
        parameter(&reply.target(), "code").unwrap_or_else(|| panic!("no code: {}", reply.body))
    }

    /// The token answer of a whole sign-in with scopes `scope`.
    async fn tokens_for(&self, user: &str, scope: &str) -> Value {
        let code = self.code(user, &usual(scope)).await;
        let reply = self.redeem(&code).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
        reply.json()
    }

    async fn tokens(&self, user: &str) -> Value {
        self.tokens_for(user, SCOPES).await
    }

    async fn redeem(&self, code: &str) -> Reply {
        self.token(&[
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
        ])
        .await
    }

    async fn refresh(&self, token: &str) -> Reply {
        self.token(&[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    /// A token request of the usual client.
    async fn token(&self, pairs: &[(&str, &str)]) -> Reply {
        let client = [("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET)];
        self.post("/oauth/token", &[&client[..], pairs].concat()).await
    }

    async fn post(&self, path: &str, pairs: &[(&str, &str)]) -> Reply {
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        self.send(Method::POST, path, &kind, &encode(pairs)).await
    }

    async fn bearer(&self, path: &str, token: &str) -> Reply {
        let value = format!("Bearer {token}");
        self.send(Method::GET, path, &[("authorization", &value)], "").await
    }
}

fn encode(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

fn authorize(pairs: &[(&str, &str)]) -> String {
    format!("/oauth/authorize?{}", encode(pairs))
}

/// The parameters of a proper request, with the challenge of `VERIFIER`.
fn usual(scope: &str) -> Vec<(&str, &str)> {
    static CHALLENGE: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, VERIFIER.as_bytes()))
    });
    vec![
        ("client_id", CLIENT_ID),
        ("redirect_uri", CALLBACK),
        ("response_type", "code"),
        ("scope", scope),
        ("state", "a state & more"),
        ("nonce", "a nonce"),
        ("code_challenge", CHALLENGE.as_str()),
        ("code_challenge_method", "S256"),
    ]
}

/// The usual parameters with these changed; an empty value takes one away.
fn changed<'a>(changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut pairs = usual(SCOPES);
    pairs.retain(|(name, _)| changes.iter().all(|(changed, _)| name != changed));
    pairs.extend(changes.iter().filter(|(_, value)| !value.is_empty()));
    pairs
}

fn parameter(url: &str, name: &str) -> Option<String> {
    let (_, query) = url.split_once(['?', '#'])?;
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// The claims of a token, unverified.
fn claims(token: &str) -> Value {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

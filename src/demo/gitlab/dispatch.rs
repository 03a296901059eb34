//! From a request to its endpoint: the relative root, the counts, the faults, then the path.
//!
//! The control paths are answered whatever the switches say, only to JSON and, unless the instance is public, only under a name of
//! this machine: so no web page in the developer's browser can reach them.
//!
//! | Control path | Does |
//! |---|---|
//! | `POST /-/dev/commands` | one `Command` as JSON; 204, or 422 with `error` |
//! | `POST /-/dev/rotate_login_key` | a new login key; 204 |
//! | `POST /-/dev/ci_id_token` | an ID token of a CI job of `acme/web/shop`, the body's claims laid over its own; 200 with `id_token` |
//! | `GET /-/dev/hits` | requests so far by endpoint |
//! | `GET /-/dev/refreshes` | refresh tokens so far that were `granted` a new pair or `refused` one |

use std::{future, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::{
    api,
    api::Kind,
    authorize,
    command::Command,
    inspect, job,
    keys::{Signature, SigningKey, Tamper},
    oidc, pages, session,
    session::Visit,
    state::Instance,
    switches::{self, Endpoint, Failure},
    token,
};
use crate::{
    body::Body,
    demo::{
        answer::{self, Answer, Params, collect},
        serve::Dropped,
    },
};

/// Marks every answer, so that labgate recognises what it is pointed at.
const MARK: HeaderName = HeaderName::from_static("x-labgate-dev-gitlab");

/// What an endpoint may look at.
struct Asked<'a> {
    method: &'a Method,
    path: &'a str,
    headers: &'a HeaderMap,
    query: Params,
    body: &'a [u8],
}

/// Answers one request.
pub(super) async fn respond(
    gitlab: Arc<Instance>,
    request: Request<Incoming>,
) -> Result<http::Response<Body>, Dropped> {
    let (head, body) = request.into_parts();
    let rest = head.uri.path().strip_prefix(&gitlab.base_path);
    let Some(path) = rest.filter(|path| path.starts_with('/')) else {
        return Ok(marked(answer::text(StatusCode::NOT_FOUND, "outside the relative URL root\n")));
    };
    let control = path.starts_with("/-/dev/");
    let fault = if control {
        None
    } else {
        if gitlab.world().switches.silent {
            return future::pending().await;
        }
        gitlab.world().switches.hit(endpoint(path))
    };
    let Some(body) = collect(body).await else {
        return Ok(marked(answer::text(StatusCode::PAYLOAD_TOO_LARGE, "too long\n")));
    };
    let asked = Asked {
        method: &head.method,
        path,
        headers: &head.headers,
        query: Params::parse(head.uri.query().unwrap_or_default().as_bytes()),
        body: &body,
    };
    if control {
        return Ok(marked(self::control(&gitlab, &asked).await));
    }
    let Some(fault) = fault else {
        return Ok(marked(route(&gitlab, &asked)));
    };
    let early = matches!(fault.failure, Failure::LateReply).then(|| route(&gitlab, &asked));
    tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
    match fault.failure {
        Failure::Slow | Failure::LateReply => {
            Ok(marked(early.unwrap_or_else(|| route(&gitlab, &asked))))
        },
        Failure::Answer { status, body, content_type, retry_after } => {
            Ok(marked(switches::failed(status, &content_type, retry_after.as_deref(), &body)))
        },
        Failure::DropReply => {
            drop(route(&gitlab, &asked));
            Err(Dropped)
        },
        Failure::Refuse => Err(Dropped),
        Failure::Hang => future::pending().await,
    }
}

fn marked(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(MARK, HeaderValue::from_static("1"));
    answer
}

fn endpoint(path: &str) -> Endpoint {
    match path {
        "/.well-known/openid-configuration" => Endpoint::Discovery,
        "/oauth/discovery/keys" => Endpoint::Keys,
        "/oauth/authorize" => Endpoint::Authorize,
        "/oauth/token" => Endpoint::Token,
        "/oauth/revoke" => Endpoint::Revoke,
        "/oauth/introspect" => Endpoint::Introspect,
        "/oauth/token/info" => Endpoint::TokenInfo,
        "/oauth/userinfo" => Endpoint::Userinfo,
        "/api/v4/user" => Endpoint::ApiUser,
        "/api/v4/personal_access_tokens/self" => Endpoint::ApiToken,
        "/api/v4/job" => Endpoint::ApiJob,
        _ if path.starts_with("/users/") => Endpoint::SignIn,
        _ => match place(path) {
            Some((_, _, None)) => Endpoint::ApiPlace,
            Some((_, _, Some(_))) => Endpoint::ApiMembers,
            None => Endpoint::Other,
        },
    }
}

/// Id of a member, and whether inherited membership counts too.
type Member<'a> = (&'a str, bool);

/// Kind, encoded id, and member of `/api/v4/{groups,projects}/:id[/members[/all]/:user_id]`.
fn place(path: &str) -> Option<(Kind, &str, Option<Member<'_>>)> {
    let (kind, rest) = if let Some(rest) = path.strip_prefix("/api/v4/groups/") {
        (Kind::Group, rest)
    } else {
        (Kind::Project, path.strip_prefix("/api/v4/projects/")?)
    };
    match rest.split_once('/') {
        None => (!rest.is_empty()).then_some((kind, rest, None)),
        Some((id, rest)) => {
            let rest = rest.strip_prefix("members/")?;
            let (member, all) = match rest.strip_prefix("all/") {
                Some(member) => (member, true),
                None => (rest, false),
            };
            (!member.contains('/')).then_some((kind, id, Some((member, all))))
        },
    }
}

fn route(gitlab: &Instance, asked: &Asked<'_>) -> Answer {
    let (headers, query) = (asked.headers, &asked.query);
    let form = || {
        let form = answer::header_text(headers, header::CONTENT_TYPE).is_some_and(|kind| {
            kind.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded")
        });
        if form { query.clone().and(Params::parse(asked.body)) } else { query.clone() }
    };
    let method = if asked.method == Method::HEAD { &Method::GET } else { asked.method };
    match (method.as_str(), asked.path) {
        ("GET", "/") => home(gitlab, headers),
        // Browsers ask for it unbidden; a 404 would only be noise in their console.
        ("GET", "/favicon.ico") => answer::empty(StatusCode::NO_CONTENT),
        ("GET", "/-/assets/demo.css") => {
            answer::typed(StatusCode::OK, "text/css; charset=utf-8", pages::STYLESHEET)
        },
        ("GET", "/.well-known/openid-configuration") => oidc::discovery(gitlab, headers),
        ("GET", "/oauth/discovery/keys") => oidc::jwks(gitlab),
        ("GET", "/oauth/authorize") => authorize::ask(gitlab, headers, query),
        ("POST", "/oauth/authorize") => authorize::decide(gitlab, headers, &form(), false),
        ("DELETE", "/oauth/authorize") => authorize::decide(gitlab, headers, &form(), true),
        ("GET", "/oauth/authorize/native") => pages::native(gitlab, query),
        ("GET", "/users/sign_in") => session::chooser(gitlab, headers, query),
        ("POST", "/users/sign_in") => session::sign_in(gitlab, headers, &form()),
        ("POST", "/users/sign_out") => session::sign_out(gitlab, headers, &form()),
        ("POST", "/users/interstitial") => session::interstitial(gitlab, headers, &form()),
        ("POST", "/oauth/token") => token::token(gitlab, headers, &form()),
        ("POST", "/oauth/revoke") => inspect::revoke(gitlab, headers, &form()),
        ("POST", "/oauth/introspect") => inspect::introspect(gitlab, headers, &form()),
        ("GET", "/oauth/token/info") => inspect::info(gitlab, headers, query),
        ("GET" | "POST", "/oauth/userinfo") => oidc::userinfo(gitlab, headers, &form()),
        ("GET", "/api/v4/user") => settled(api::user(gitlab, headers, query)),
        ("GET", "/api/v4/users") => settled(api::users(gitlab, headers, query)),
        ("GET", "/api/v4/job") => settled(job::running(gitlab, headers, query)),
        ("GET", "/api/v4/personal_access_tokens/self") => {
            settled(api::token_self(gitlab, headers, query))
        },
        ("GET", path) => match place(path) {
            Some((kind, id, member)) => {
                let id = percent_decode_str(id).decode_utf8_lossy();
                settled(match member {
                    Some(member) => api::member(gitlab, kind, &id, member, headers, query),
                    None => api::place(gitlab, kind, &id, headers, query),
                })
            },
            None => missing(gitlab, path),
        },
        (_, path) => missing(gitlab, path),
    }
}

fn settled(outcome: api::Outcome) -> Answer {
    outcome.unwrap_or_else(|refused| *refused)
}

fn missing(gitlab: &Instance, path: &str) -> Answer {
    if path.starts_with("/api/") {
        return answer::json(StatusCode::NOT_FOUND, &json!({ "error": "404 Not Found" }));
    }
    let text = "This development GitLab has only what labgate and its demo need.";
    pages::message(gitlab, StatusCode::NOT_FOUND, "Page not found", text)
}

fn home(gitlab: &Instance, headers: &HeaderMap) -> Answer {
    let mut world = gitlab.world();
    let visit = Visit::of(gitlab, &mut world, headers);
    let user = visit.user.and_then(|user| world.directory.user(user));
    visit.finish(pages::home(gitlab, &visit, user))
}

async fn control(gitlab: &Instance, asked: &Asked<'_>) -> Answer {
    if !gitlab.public && !names_this_machine(asked.headers) {
        let error = json!({ "error": "only under the name of this machine" });
        return answer::json(StatusCode::FORBIDDEN, &error);
    }
    let refused = |error: &dyn std::fmt::Display| {
        let body = json!({ "error": error.to_string() });
        answer::json(StatusCode::UNPROCESSABLE_ENTITY, &body)
    };
    match (asked.method.as_str(), asked.path) {
        ("GET", "/-/dev/hits") => {
            let hits = serde_json::to_value(gitlab.world().switches.hits());
            hits.map_or_else(|error| refused(&error), |hits| answer::json(StatusCode::OK, &hits))
        },
        ("GET", "/-/dev/refreshes") => {
            answer::json(StatusCode::OK, &json!(gitlab.world().refreshes))
        },
        // A web page of a stranger can post forms and text, but not JSON.
        ("POST", _) if !is_json(asked.headers) => {
            let error = json!({ "error": "the body must be application/json" });
            answer::json(StatusCode::UNSUPPORTED_MEDIA_TYPE, &error)
        },
        ("POST", "/-/dev/commands") => match serde_json::from_slice::<Command>(asked.body) {
            Err(error) => refused(&error),
            Ok(command) => match gitlab.apply(command) {
                Ok(()) => answer::empty(StatusCode::NO_CONTENT),
                Err(error) => refused(&error),
            },
        },
        ("POST", "/-/dev/ci_id_token") => match serde_json::from_slice(asked.body) {
            Err(error) => refused(&error),
            Ok(claims) => {
                let token = gitlab.ci_id_token(&claims, &Tamper::signature(Signature::Ci));
                answer::json(StatusCode::OK, &json!({ "id_token": token }))
            },
        },
        ("POST", "/-/dev/rotate_login_key") => match rotate_login_key(gitlab).await {
            Ok(()) => answer::empty(StatusCode::NO_CONTENT),
            Err(error) => refused(&error),
        },
        _ => answer::json(StatusCode::NOT_FOUND, &json!({ "error": "no such control path" })),
    }
}

/// Replaces the login key; ID tokens signed before fail from then on.
pub(super) async fn rotate_login_key(gitlab: &Instance) -> anyhow::Result<()> {
    let fresh = Arc::new(SigningKey::generate().await?);
    let mut keys = gitlab.keys.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    keys.login = fresh;
    Ok(())
}

fn is_json(headers: &HeaderMap) -> bool {
    answer::header_text(headers, header::CONTENT_TYPE)
        .is_some_and(|kind| kind.to_ascii_lowercase().starts_with("application/json"))
}

/// Whether `Host` is an IP literal or `localhost`: a name of a stranger that resolves to this machine is neither.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = answer::header_text(headers, header::HOST) else {
        return false;
    };
    let Ok(authority) = host.parse::<http::uri::Authority>() else {
        return false;
    };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_keep_their_encoded_ids() {
        assert_eq!(place("/api/v4/groups/7"), Some((Kind::Group, "7", None)));
        let encoded = "/api/v4/projects/a%2Fb/members/all/3";
        assert_eq!(place(encoded), Some((Kind::Project, "a%2Fb", Some(("3", true)))));
        assert_eq!(
            place("/api/v4/groups/7/members/3"),
            Some((Kind::Group, "7", Some(("3", false))))
        );
        for other in [
            "/api/v4/groups/",
            "/api/v4/groups/a/b",
            "/api/v4/user",
            "/api/v4/groups/1/members/all/3/x",
        ] {
            assert_eq!(place(other), None, "{other}");
        }
    }

    #[test]
    fn names_of_this_machine() {
        for (host, expected) in [
            ("127.0.0.1:80", true),
            ("[::1]:80", true),
            ("localhost", true),
            ("evil.example:80", false),
            ("127.0.0.1.evil.example", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            assert_eq!(names_this_machine(&headers), expected, "{host}");
        }
    }
}

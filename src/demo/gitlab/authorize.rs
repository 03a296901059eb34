//! `/oauth/authorize`: what GitLab asks the person in front of the browser, and how the answer reaches the client.
//!
//! ```text
//! not signed in ──▶ 302 to the chooser and back        prompt=none ──▶ 302 login_required
//! a bad request ──▶ page, status 200, no redirect      prompt=login ──▶ signs out of GitLab, chooser
//! no consent yet ─▶ consent page ──▶ 302 with code, or 302 access_denied
//! otherwise ──────▶ page, status 200, that redirects by script
//! ```
//!
//! `response_mode=form_post` is advertised and then answered like `query`, as GitLab's own page makes it undependable.

use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::{
    applications::{Application, OUT_OF_BAND},
    pages,
    people::UserState,
    session::{self, Visit},
    state::{Challenge, Grant, Instance, World, random_hex},
};
use crate::{
    clock::Timestamp,
    demo::answer::{self, Answer, Params},
};

/// A request for authorization that passed Doorkeeper's checks.
pub(super) struct Ask {
    pub(super) application: Application,
    pub(super) redirect_uri: String,
    pub(super) scopes: Vec<String>,
    state: Option<String>,
    nonce: Option<String>,
    challenge: Option<Challenge>,
    fragment: bool,
}

/// Why a request for authorization is no good; shown to the person, never to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    error: &'static str,
    description: &'static str,
}

const fn refused(error: &'static str, description: &'static str) -> Refused {
    Refused { error, description }
}

impl Ask {
    /// Doorkeeper's checks in its order.
    fn check(world: &World, params: &Params) -> Result<Self, Refused> {
        let client_id = params
            .text("client_id")
            .ok_or(refused("invalid_request", "Missing required parameter: client_id."))?;
        let application = world.application(client_id).cloned().ok_or(refused(
            "invalid_client",
            "Client authentication failed due to unknown client, no client authentication included, \
             or unsupported authentication method.",
        ))?;
        let redirect_uri = params
            .text("redirect_uri")
            .filter(|uri| application.accepts(uri))
            .ok_or(refused("invalid_redirect_uri", "The redirect URI included is not valid."))?;
        let response_type = params
            .text("response_type")
            .ok_or(refused("invalid_request", "Missing required parameter: response_type."))?;
        if response_type != "code" {
            return Err(refused(
                "unsupported_response_type",
                "The authorization server does not support this response type.",
            ));
        }
        let mode = params.text("response_mode").unwrap_or("query");
        if !["query", "fragment", "form_post"].contains(&mode) {
            return Err(refused(
                "unsupported_response_mode",
                "The authorization server does not support this response mode.",
            ));
        }
        let scopes = scopes(&application, params)?;
        let challenge = challenge(params)?;
        let owned = |name| params.text(name).map(str::to_owned);
        Ok(Self {
            redirect_uri: redirect_uri.to_owned(),
            scopes,
            state: owned("state"),
            nonce: owned("nonce"),
            challenge,
            fragment: mode == "fragment",
            application,
        })
    }

    fn is_openid(&self) -> bool {
        self.scopes.iter().any(|scope| scope == "openid")
    }

    /// The client's redirect URI with these parameters and the state.
    fn back(&self, gitlab: &Instance, pairs: &[(&str, &str)]) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(pairs);
        if let Some(state) = &self.state {
            query.append_pair("state", state);
        }
        let query = query.finish();
        if self.redirect_uri == OUT_OF_BAND {
            return format!("{}?{query}", gitlab.path("/oauth/authorize/native"));
        }
        let sign = match (self.fragment, self.redirect_uri.contains('?')) {
            (true, _) => '#',
            (false, true) => '&',
            (false, false) => '?',
        };
        format!("{}{sign}{query}", self.redirect_uri)
    }

    fn error(&self, gitlab: &Instance, error: &str, description: &str) -> Answer {
        let pairs = [("error", error), ("error_description", description)];
        answer::found(&self.back(gitlab, &pairs))
    }

    /// Makes a code and returns where the browser must take it.
    fn grant(&self, gitlab: &Instance, world: &mut World, user: u64, now: Timestamp) -> String {
        let code = random_hex();
        let grant = Grant {
            client_id: self.application.client_id.clone(),
            user,
            redirect_uri: self.redirect_uri.clone(),
            scopes: self.scopes.clone(),
            nonce: self.nonce.clone(),
            challenge: self.challenge.clone(),
            created_at: now,
            used: false,
        };
        world.grants.insert(code.clone(), grant);
        self.back(gitlab, &[("code", &code)])
    }
}

/// The requested scopes, all of them ticked in the application; without any, its `api` scope if it has it.
fn scopes(application: &Application, params: &Params) -> Result<Vec<String>, Refused> {
    let ticked = |scope: &String| application.scopes.contains(scope);
    let wanted: Vec<String> = match params.text("scope") {
        Some(scope) => scope.split_whitespace().map(str::to_owned).collect(),
        None => vec!["api".to_owned()],
    };
    if wanted.iter().all(ticked) {
        return Ok(wanted);
    }
    Err(refused("invalid_scope", "The requested scope is invalid, unknown, or malformed."))
}

fn challenge(params: &Params) -> Result<Option<Challenge>, Refused> {
    let Some(challenge) = params.text("code_challenge").map(str::to_owned) else {
        return Ok(None);
    };
    match params.text("code_challenge_method") {
        Some("S256") => Ok(Some(Challenge::S256(challenge))),
        Some("plain") => Ok(Some(Challenge::Plain(challenge))),
        Some(_) | None => Err(refused(
            "invalid_code_challenge_method",
            "The code challenge method must be plain or S256.",
        )),
    }
}

/// `GET /oauth/authorize`.
pub(super) fn ask(gitlab: &Instance, headers: &HeaderMap, params: &Params) -> Answer {
    let now = gitlab.clock.now();
    let mut world = gitlab.world();
    let visit = Visit::of(gitlab, &mut world, headers);
    let checked = Ask::check(&world, params);
    let prompts = Prompts::read(params, checked.as_ref().is_ok_and(Ask::is_openid));
    let again = |without: &str| {
        format!("{}?{}", gitlab.path("/oauth/authorize"), params.query_without(without))
    };
    let Some(user) = visit.user.and_then(|user| world.directory.user(user)).cloned() else {
        return match &checked {
            Ok(ask) if prompts.none => visit.finish(prompts.silent_without_session(gitlab, ask)),
            // Somebody who signs in for this request has just been asked.
            _ if prompts.login => session::ask_to_sign_in(gitlab, &visit, &again("prompt")),
            Ok(_) | Err(_) => session::ask_to_sign_in(gitlab, &visit, &again("")),
        };
    };
    let ask = match checked {
        Ok(ask) => ask,
        Err(Refused { error, description }) => {
            return visit.finish(pages::refused(gitlab, error, description));
        },
    };
    match user.state {
        UserState::TermsNotAccepted | UserState::PasswordExpired => {
            return visit.finish(pages::interstitial(gitlab, &visit, user.state, &again("")));
        },
        UserState::Unconfirmed => {
            let description = "Please confirm your e-mail address before you continue.";
            return visit.finish(pages::refused(gitlab, "unconfirmed_email", description));
        },
        UserState::Active
        | UserState::Blocked
        | UserState::Banned
        | UserState::BlockedPendingApproval
        | UserState::Deactivated
        | UserState::Locked => {},
    }
    let client_id = &ask.application.client_id;
    let remembered =
        ask.application.trusted || world.tokens.has_matching(client_id, user.id, &ask.scopes);
    if let Some(error) = prompts.refuse(&ask, gitlab, remembered) {
        return visit.finish(error);
    }
    if prompts.login {
        let fresh = session::restart(gitlab, &mut world, headers);
        return session::ask_to_sign_in(gitlab, &fresh, &again("prompt"));
    }
    if prompts.too_old(user.signed_in_at, now) {
        let fresh = session::restart(gitlab, &mut world, headers);
        return session::ask_to_sign_in(gitlab, &fresh, &again("max_age"));
    }
    // Doorkeeper remembers consent for confidential applications only; the check of prompt=none above ignores that.
    let skips = ask.application.trusted || (ask.application.confidential && remembered);
    if prompts.consent || !skips {
        return visit.finish(pages::consent(gitlab, &visit, &user, &ask, params));
    }
    let target = ask.grant(gitlab, &mut world, user.id, now);
    visit.finish(pages::redirecting(gitlab, &target))
}

/// `POST /oauth/authorize`: consent was given; or, with `_method=delete`, denied.
pub(super) fn decide(gitlab: &Instance, headers: &HeaderMap, form: &Params, deny: bool) -> Answer {
    let now = gitlab.clock.now();
    let mut world = gitlab.world();
    let visit = Visit::of(gitlab, &mut world, headers);
    if !visit.sent(form) {
        return visit.finish(session::stale_form(gitlab));
    }
    let Some(user) = visit.user else {
        return session::ask_to_sign_in(gitlab, &visit, "");
    };
    let ask = match Ask::check(&world, form) {
        Ok(ask) => ask,
        Err(Refused { error, description }) => {
            let unauthorized = ["invalid_client", "unauthorized_client"].contains(&error);
            let status =
                if unauthorized { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
            let body = json!({ "error": error, "error_description": description });
            return answer::json(status, &body);
        },
    };
    let answer = if deny || form.text("_method") == Some("delete") {
        let denied = "The resource owner or authorization server denied the request.";
        ask.error(gitlab, "access_denied", denied)
    } else {
        answer::found(&ask.grant(gitlab, &mut world, user, now))
    };
    visit.finish(answer)
}

/// The values of `prompt` and `max_age`, which count with the scope `openid` only.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one value of a list parameter")]
struct Prompts {
    none: bool,
    login: bool,
    consent: bool,
    select_account: bool,
    /// Another value, or `none` together with any.
    invalid: bool,
    max_age: Option<u64>,
}

impl Prompts {
    fn read(params: &Params, openid: bool) -> Self {
        let mut prompts = Self::default();
        if !openid {
            return prompts;
        }
        let mut values = 0;
        for value in params.text("prompt").unwrap_or_default().split_whitespace() {
            values += 1;
            match value {
                "none" => prompts.none = true,
                "login" => prompts.login = true,
                "consent" => prompts.consent = true,
                "select_account" => prompts.select_account = true,
                "create" => {},
                _ => prompts.invalid = true,
            }
        }
        prompts.invalid |= prompts.none && values > 1;
        prompts.max_age = params.text("max_age").and_then(|seconds| seconds.parse().ok());
        prompts
    }

    fn silent_without_session(&self, gitlab: &Instance, ask: &Ask) -> Answer {
        self.refuse(ask, gitlab, false).filter(|_| self.invalid).unwrap_or_else(|| {
            let description = "The authorization server requires end-user authentication";
            ask.error(gitlab, "login_required", description)
        })
    }

    /// The redirect of a prompt that can't be obeyed.
    fn refuse(&self, ask: &Ask, gitlab: &Instance, remembered: bool) -> Option<Answer> {
        let (error, description) = if self.invalid {
            (
                "invalid_request",
                "The request is missing a required parameter, includes an unsupported parameter \
                 value, or is otherwise malformed.",
            )
        } else if self.none && !remembered {
            ("consent_required", "The authorization server requires end-user consent")
        } else if self.select_account {
            ("invalid_configuration", "select_account_for_resource_owner is not configured.")
        } else {
            return None;
        };
        Some(ask.error(gitlab, error, description))
    }

    fn too_old(&self, signed_in_at: Option<Timestamp>, now: Timestamp) -> bool {
        match (self.max_age, signed_in_at) {
            (None, _) => false,
            (Some(0), _) | (Some(_), None) => true,
            (Some(most), Some(at)) => now.since(at).as_secs() > most,
        }
    }
}

//! A browser's session with the development GitLab itself: the persona chooser, signing in without a password, signing out.
//!
//! The way back travels with the form, not in the session as in GitLab, so that tabs don't disturb each other; it is followed only
//! to this instance's `/oauth/authorize`. The session id is new after each sign-in, the form token stays.

use http::{HeaderMap, StatusCode, header};

use super::{
    hooks, pages,
    people::{User, UserState},
    state::{Browser, Instance, World, random_hex},
};
use crate::demo::answer::{self, Answer, Params};

/// The cookie of GitLab's session.
const COOKIE: &str = "_gitlab_session";

/// A browser session found or made for a request.
pub(super) struct Visit {
    pub(super) csrf: String,
    /// Whoever is signed in and still may be.
    pub(super) user: Option<u64>,
    /// The cookie to set, if the session is new.
    set_cookie: Option<String>,
}

impl Visit {
    /// The session that the request's cookie names, or a new one. A session of somebody who may not sign in any more is ended.
    pub(super) fn of(gitlab: &Instance, world: &mut World, headers: &HeaderMap) -> Self {
        let id = cookie(headers);
        let known = id.as_deref().and_then(|id| world.browsers.get(id)).cloned();
        let Some(browser) = known else {
            return Self::begin(gitlab, world, None, random_hex());
        };
        let user = browser.user.and_then(|user| world.directory.user(user));
        let user =
            user.filter(|user| refusal(user).is_none() && user.state != UserState::Deactivated);
        let user = user.map(|user| user.id);
        if let (None, Some(_), Some(id)) = (user, browser.user, &id) {
            world.browsers.remove(id);
            return Self::begin(gitlab, world, None, random_hex());
        }
        Self { csrf: browser.csrf, user, set_cookie: None }
    }

    fn begin(gitlab: &Instance, world: &mut World, user: Option<u64>, csrf: String) -> Self {
        let id = random_hex();
        world.browsers.insert(id.clone(), Browser { user, csrf: csrf.clone() });
        let path = gitlab.path("/");
        let secure = if gitlab.external_url.starts_with("https:") { "; Secure" } else { "" };
        let set_cookie = format!("{COOKIE}={id}; Path={path}; HttpOnly; SameSite=Lax{secure}");
        Self { csrf, user, set_cookie: Some(set_cookie) }
    }

    /// `answer` with the cookie, if there is one to set.
    pub(super) fn finish(&self, answer: Answer) -> Answer {
        match &self.set_cookie {
            Some(cookie) => answer::with(answer, header::SET_COOKIE, cookie),
            None => answer,
        }
    }

    /// Whether the form came from one of this session's pages.
    pub(super) fn sent(&self, form: &Params) -> bool {
        form.text("authenticity_token") == Some(self.csrf.as_str())
    }
}

fn cookie(headers: &HeaderMap) -> Option<String> {
    let pairs = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut named = pairs.flat_map(|pairs| pairs.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE).then(|| value.to_owned())
    });
    named.next()
}

/// Why this account may not sign in, in words; dormant ones may, which wakes them.
fn refusal(user: &User) -> Option<&'static str> {
    match user.state {
        UserState::Blocked => Some(
            "Your account has been blocked. Please contact your GitLab administrator if you think \
             this is an error.",
        ),
        UserState::Banned => Some("Your account has been banned. Contact your administrator."),
        UserState::BlockedPendingApproval => Some(
            "Your account is pending approval from your GitLab administrator and hence blocked.",
        ),
        UserState::Locked => Some("Your account is locked."),
        UserState::Active
        | UserState::Deactivated
        | UserState::Unconfirmed
        | UserState::TermsNotAccepted
        | UserState::PasswordExpired => None,
    }
}

/// The redirect to the chooser, which comes back to `return_to`.
pub(super) fn ask_to_sign_in(gitlab: &Instance, visit: &Visit, return_to: &str) -> Answer {
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("return_to", return_to)
        .finish();
    visit.finish(answer::found(&format!("{}?{query}", gitlab.path("/users/sign_in"))))
}

/// `GET /users/sign_in`: the persona chooser.
pub(super) fn chooser(gitlab: &Instance, headers: &HeaderMap, params: &Params) -> Answer {
    let mut world = gitlab.world();
    let visit = Visit::of(gitlab, &mut world, headers);
    let return_to = way_back(gitlab, params);
    visit.finish(pages::chooser(gitlab, &world, &visit, &return_to, None))
}

/// `POST /users/sign_in`: signs in as the chosen user, no password asked.
pub(super) fn sign_in(gitlab: &Instance, headers: &HeaderMap, form: &Params) -> Answer {
    let now = gitlab.clock.now();
    let mut world = gitlab.world();
    let visit = Visit::of(gitlab, &mut world, headers);
    let return_to = way_back(gitlab, form);
    if !visit.sent(form) {
        return visit.finish(stale_form(gitlab));
    }
    let chosen = form.text("user").and_then(|name| world.directory.user_named(name));
    let Some(chosen) = chosen.filter(|user| !user.bot).cloned() else {
        let alert = Some("There is no such user.");
        return visit.finish(pages::chooser(gitlab, &world, &visit, &return_to, alert));
    };
    if let Some(alert) = refusal(&chosen) {
        if let Some(event) = hooks::failed_login(&chosen) {
            gitlab.messenger.send(&world, &event);
        }
        return visit.finish(pages::chooser(gitlab, &world, &visit, &return_to, Some(alert)));
    }
    if let Some(user) = world.directory.user_mut(chosen.id) {
        user.signed_in_at = Some(now);
        if user.state == UserState::Deactivated {
            user.state = UserState::Active;
        }
    }
    end(&mut world, headers);
    let visit = Visit::begin(gitlab, &mut world, Some(chosen.id), visit.csrf);
    visit.finish(answer::found(&return_to))
}

/// `POST /users/sign_out`: ends the session; OAuth tokens live on.
pub(super) fn sign_out(gitlab: &Instance, headers: &HeaderMap, form: &Params) -> Answer {
    let mut world = gitlab.world();
    let visit = Visit::of(gitlab, &mut world, headers);
    if !visit.sent(form) {
        return visit.finish(stale_form(gitlab));
    }
    restart(gitlab, &mut world, headers).finish(answer::found(&gitlab.path("/users/sign_in")))
}

/// Ends the session and begins a new one in which nobody is signed in; forms in other tabs stay good.
pub(super) fn restart(gitlab: &Instance, world: &mut World, headers: &HeaderMap) -> Visit {
    let csrf = Visit::of(gitlab, world, headers).csrf;
    end(world, headers);
    Visit::begin(gitlab, world, None, csrf)
}

fn end(world: &mut World, headers: &HeaderMap) {
    if let Some(id) = cookie(headers) {
        world.browsers.remove(&id);
    }
}

/// `POST /users/interstitial`: accepts the terms, or sets the new password that nobody needs here.
pub(super) fn interstitial(gitlab: &Instance, headers: &HeaderMap, form: &Params) -> Answer {
    let mut world = gitlab.world();
    let visit = Visit::of(gitlab, &mut world, headers);
    if !visit.sent(form) {
        return visit.finish(stale_form(gitlab));
    }
    if let Some(user) = visit.user.and_then(|user| world.directory.user_mut(user))
        && matches!(user.state, UserState::TermsNotAccepted | UserState::PasswordExpired)
    {
        user.state = UserState::Active;
    }
    visit.finish(answer::found(&way_back(gitlab, form)))
}

/// Only this instance's authorize page is a way back; anything else would make the chooser an open redirect.
fn way_back(gitlab: &Instance, params: &Params) -> String {
    let wanted = params.text("return_to").unwrap_or_default();
    if wanted.starts_with(&gitlab.path("/oauth/authorize?")) {
        wanted.to_owned()
    } else {
        gitlab.path("/")
    }
}

/// The answer to a form whose token is not this session's.
pub(super) fn stale_form(gitlab: &Instance) -> Answer {
    pages::message(
        gitlab,
        StatusCode::UNPROCESSABLE_ENTITY,
        "The change you requested was rejected",
        "This form belongs to another session. Go back, reload the page and try again.",
    )
}

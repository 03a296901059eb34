//! The calls of `/api/v4` that labgate makes, with GitLab's order of checks: token, then state of the user, then scope.
//!
//! What the caller may not see is 404, as if it did not exist. Answers carry rate-limit headers; the limit itself never strikes,
//! throttling is left to the switches.

use http::{HeaderMap, HeaderName, StatusCode, header};
use serde_json::{Map, Value, json};

use super::{
    bearer,
    keys::overlay,
    people::{Place, Role, User, UserState},
    state::{Instance, PersonalToken, World},
};
use crate::{
    clock::Timestamp,
    demo::answer::{self, Answer, Params},
};

/// Whose token came, and what it may do.
pub(super) struct Caller<'a> {
    user: &'a User,
    scopes: &'a [String],
    personal: Option<&'a PersonalToken>,
}

/// Groups and projects have the same calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Group,
    Project,
}

/// The answer of a call, or the refusal that ended it early; boxed, as answers are large.
pub(super) type Outcome = Result<Answer, Box<Answer>>;

/// `GET /api/v4/user`.
pub(super) fn user(gitlab: &Instance, headers: &HeaderMap, params: &Params) -> Outcome {
    let (world, now) = (gitlab.world(), gitlab.clock.now());
    let caller = caller(gitlab, &world, headers, params, now)?;
    caller.needs(&["api", "read_api", "read_user"])?;
    let mut members = account(gitlab, caller.user);
    overlay(&mut members, &world.switches.overlays.user);
    Ok(limited(answer::json(StatusCode::OK, &Value::Object(members)), now))
}

/// `GET /api/v4/users?username=`: administrators see the whole account, others what a profile shows.
pub(super) fn users(gitlab: &Instance, headers: &HeaderMap, params: &Params) -> Outcome {
    const PROFILE: [&str; 7] =
        ["id", "username", "name", "state", "locked", "avatar_url", "web_url"];
    let (world, now) = (gitlab.world(), gitlab.clock.now());
    let caller = caller(gitlab, &world, headers, params, now)?;
    caller.needs(&["api", "read_api", "read_user"])?;
    let named = params.text("username").and_then(|name| world.directory.user_named(name));
    let shown = named.map(|user| {
        let mut members = account(gitlab, user);
        if !caller.user.admin {
            members.retain(|name, _| PROFILE.contains(&name.as_str()));
        }
        Value::Object(members)
    });
    Ok(limited(answer::json(StatusCode::OK, &json!(shown.as_slice())), now))
}

/// `GET /api/v4/{groups,projects}/:id/members[/all]/:user_id`: the membership of the place itself, or the effective one.
pub(super) fn member(
    gitlab: &Instance,
    kind: Kind,
    place: &str,
    (member, all): (&str, bool),
    headers: &HeaderMap,
    params: &Params,
) -> Outcome {
    let (world, now) = (gitlab.world(), gitlab.clock.now());
    let caller = caller(gitlab, &world, headers, params, now)?;
    caller.needs(&["api", "read_api"])?;
    let rest = format!("/members/{}{member}", if all { "all/" } else { "" });
    let place = visible(gitlab, &world, kind, place, &rest, caller.user)?;
    let held = member.parse().ok().and_then(|id| {
        let role = match (all, kind) {
            (false, _) => place.members.get(&id).copied(),
            (true, Kind::Group) => world.directory.role_in_group(place, id),
            (true, Kind::Project) => world.directory.role_in_project(place, id),
        };
        Some((world.directory.user(id)?, role?))
    });
    let Some((user, role)) = held else {
        return Err(not_found("404 Not found"));
    };
    let body = json!({
        "id": user.id,
        "username": user.username,
        "name": user.name,
        "state": user.state.word(),
        "web_url": format!("{}/{}", gitlab.external_url, user.username),
        "access_level": role.level(),
        "expires_at": null,
        "membership_state": "active",
    });
    Ok(limited(answer::json(StatusCode::OK, &body), now))
}

/// `GET /api/v4/{groups,projects}/:id`.
pub(super) fn place(
    gitlab: &Instance,
    kind: Kind,
    place: &str,
    headers: &HeaderMap,
    params: &Params,
) -> Outcome {
    let (world, now) = (gitlab.world(), gitlab.clock.now());
    let caller = caller(gitlab, &world, headers, params, now)?;
    caller.needs(&["api", "read_api"])?;
    let place = visible(gitlab, &world, kind, place, "", caller.user)?;
    let (namespace, name) = place.path.rsplit_once('/').unwrap_or(("", &place.path));
    let mut body = json!({
        "id": place.id,
        "name": name,
        "path": name,
        "visibility": place.visibility,
        "web_url": format!("{}/{}", gitlab.external_url, place.path),
    });
    let access = |role: Option<Role>| {
        role.map(|role| json!({ "access_level": role.level(), "notification_level": 3 }))
    };
    let more = match kind {
        Kind::Group => json!({
            "full_path": place.path,
            "parent_id": world.directory.group(namespace).map(|parent| parent.id),
        }),
        Kind::Project => json!({
            "path_with_namespace": place.path,
            "archived": place.archived,
            "permissions": {
                "project_access": access(place.members.get(&caller.user.id).copied()),
                "group_access": access(world.directory.role_by_namespace(place, caller.user.id)),
            },
        }),
    };
    if let (Value::Object(members), Value::Object(more)) = (&mut body, more) {
        members.extend(more);
    }
    Ok(limited(answer::json(StatusCode::OK, &body), now))
}

/// `GET /api/v4/personal_access_tokens/self`: any scope will do, but not an OAuth token.
pub(super) fn token_self(gitlab: &Instance, headers: &HeaderMap, params: &Params) -> Outcome {
    let (world, now) = (gitlab.world(), gitlab.clock.now());
    let caller = caller(gitlab, &world, headers, params, now)?;
    let Some(token) = caller.personal else {
        let message =
            "400 Bad request - This endpoint requires token type to be a personal access token";
        return Err(Box::new(answer::json(
            StatusCode::BAD_REQUEST,
            &json!({ "message": message }),
        )));
    };
    let body = json!({
        "id": token.id,
        "name": token.name,
        "description": null,
        "revoked": token.revoked,
        "created_at": moment(token.created_at),
        "scopes": token.scopes,
        "user_id": token.user,
        "last_used_at": moment(now),
        "active": true,
        "expires_at": token.expires_at.map(date),
    });
    Ok(limited(answer::json(StatusCode::OK, &body), now))
}

impl Caller<'_> {
    /// The 403 of a token that has none of these scopes.
    fn needs(&self, any_of: &[&str]) -> Result<(), Box<Answer>> {
        if self.scopes.iter().any(|scope| any_of.contains(&scope.as_str())) {
            return Ok(());
        }
        let body = json!({
            "error": "insufficient_scope",
            "error_description": bearer::INSUFFICIENT_SCOPE,
            "scope": any_of.join(" "),
        });
        let refused = answer::json(StatusCode::FORBIDDEN, &body);
        let challenge = bearer::challenge("insufficient_scope", bearer::INSUFFICIENT_SCOPE);
        Err(Box::new(answer::with(refused, header::WWW_AUTHENTICATE, &challenge)))
    }
}

/// Whose token it is, if it is alive and its user may use the API.
pub(super) fn caller<'a>(
    gitlab: &Instance,
    world: &'a World,
    headers: &HeaderMap,
    params: &Params,
    now: Timestamp,
) -> Result<Caller<'a>, Box<Answer>> {
    let unknown =
        || answer::json(StatusCode::UNAUTHORIZED, &json!({ "message": "401 Unauthorized" }));
    let private = answer::header_text(headers, HeaderName::from_static("private-token"))
        .or_else(|| params.text("private_token"));
    let caller = match (private, bearer::presented(headers, params)) {
        (Some(token), _) => personal(world, token, now)?,
        // A bearer value is tried as OAuth token first, then as a personal one.
        (None, Some(token)) => match world.tokens.by_access_token(token) {
            Some(row) if row.revoked => return Err(dead("Token was revoked.")),
            Some(row) if row.is_expired(now) => return Err(dead("Token is expired.")),
            Some(row) => world.directory.user(row.user).map(|user| Caller {
                user,
                scopes: &row.scopes,
                personal: None,
            }),
            None => personal(world, token, now)?,
        },
        (None, None) => None,
    };
    let caller = caller.ok_or_else(unknown)?;
    match denial(gitlab, caller.user) {
        None => Ok(caller),
        Some(reason) => {
            let body = json!({ "message": format!("403 Forbidden - {reason}") });
            Err(Box::new(answer::json(StatusCode::FORBIDDEN, &body)))
        },
    }
}

fn personal<'a>(
    world: &'a World,
    token: &str,
    now: Timestamp,
) -> Result<Option<Caller<'a>>, Box<Answer>> {
    let Some(found) = world.personal.iter().find(|personal| personal.token == token) else {
        return Ok(None);
    };
    if found.revoked {
        return Err(dead("Token was revoked."));
    }
    if found.expires_at.is_some_and(|end| now >= end) {
        return Err(dead("Token is expired."));
    }
    let user = world.directory.user(found.user);
    Ok(user.map(|user| Caller { user, scopes: &found.scopes, personal: Some(found) }))
}

/// The 401 of a token that GitLab knows, but that is over.
fn dead(reason: &str) -> Box<Answer> {
    let description = format!("{reason} You can either do re-authorization or token refresh.");
    let body = json!({ "error": "invalid_token", "error_description": description });
    let refused = answer::json(StatusCode::UNAUTHORIZED, &body);
    let challenge = bearer::challenge("invalid_token", &description);
    Box::new(answer::with(refused, header::WWW_AUTHENTICATE, &challenge))
}

/// Why the API denies this account, in the words of `lib/gitlab/auth/user_access_denied_reason.rb`.
pub(super) fn denial(gitlab: &Instance, user: &User) -> Option<String> {
    let url = &gitlab.external_url;
    Some(match user.state {
        UserState::Active | UserState::Locked => return None,
        UserState::Blocked => "Your account has been blocked.".to_owned(),
        UserState::Banned => "Your account has been banned.".to_owned(),
        UserState::BlockedPendingApproval => {
            "Your account is pending approval from your administrator and hence blocked.".to_owned()
        },
        UserState::Deactivated => format!(
            "Your account has been deactivated by your administrator. Please log back in from a web \
             browser to reactivate your account at {url}"
        ),
        UserState::Unconfirmed => format!(
            "Your primary email address is not confirmed. Please check your inbox for the \
             confirmation instructions. In case the link is expired, you can request a new \
             confirmation email at {url}/users/confirmation/new"
        ),
        UserState::TermsNotAccepted => format!(
            "You (@{}) must accept the Terms of Service in order to perform this action. To accept \
             these terms, please access GitLab from a web browser at {url}.",
            user.username
        ),
        UserState::PasswordExpired => "Your password expired. Please access GitLab from a web \
                                       browser to update your password."
            .to_owned(),
    })
}

/// The group or project if the caller may know of it, else the 404; of a project's former path, the redirect to the same question by number.
fn visible<'a>(
    gitlab: &Instance,
    world: &'a World,
    kind: Kind,
    id_or_path: &str,
    rest: &str,
    user: &User,
) -> Result<&'a Place, Box<Answer>> {
    let directory = &world.directory;
    match kind {
        Kind::Group => directory
            .group(id_or_path)
            .filter(|group| directory.sees_group(group, user))
            .ok_or_else(|| not_found("404 Group Not Found")),
        Kind::Project => {
            let seen = |project: &&Place| directory.sees_project(project, user);
            let missing = || not_found("404 Project Not Found");
            match (directory.project(id_or_path), directory.moved_project(id_or_path)) {
                (None, Some(moved)) if seen(&moved) => Err(moved_to(gitlab, moved.id, rest)),
                (project, _) => project.filter(seen).ok_or_else(missing),
            }
        },
    }
}

fn moved_to(gitlab: &Instance, project: u64, rest: &str) -> Box<Answer> {
    let url = format!("{}/api/v4/projects/{project}{rest}", gitlab.external_url);
    let moved = answer::json(StatusCode::MOVED_PERMANENTLY, &json!({ "message": url }));
    Box::new(answer::with(moved, header::LOCATION, &url))
}

pub(super) fn not_found(message: &str) -> Box<Answer> {
    Box::new(answer::json(StatusCode::NOT_FOUND, &json!({ "message": message })))
}

fn account(gitlab: &Instance, user: &User) -> Map<String, Value> {
    let created_at = moment(user.created_at);
    let confirmed = user.email_verified && user.state != UserState::Unconfirmed;
    let signed_in_at = user.signed_in_at.map(moment);
    let body = json!({
        "id": user.id,
        "username": user.username,
        "name": user.name,
        "state": user.state.word(),
        "locked": user.state == UserState::Locked,
        "avatar_url": format!("{}/uploads/{}.png", gitlab.external_url, user.id),
        "web_url": format!("{}/{}", gitlab.external_url, user.username),
        "created_at": created_at,
        "bio": "",
        "location": "",
        "public_email": user.public_email,
        "website_url": "",
        "job_title": "",
        "organization": "",
        "bot": user.bot,
        "last_sign_in_at": signed_in_at,
        "confirmed_at": confirmed.then_some(created_at),
        "last_activity_on": signed_in_at.as_deref().and_then(|at| at.get(..10)),
        "email": user.email,
        "theme_id": 3,
        "color_scheme_id": 1,
        "projects_limit": 100_000,
        "current_sign_in_at": signed_in_at,
        "identities": [],
        "can_create_group": !user.external,
        "can_create_project": !user.external,
        "two_factor_enabled": user.two_factor,
        "external": user.external,
        "private_profile": false,
        "commit_email": user.email,
        "namespace_id": user.id,
    });
    let Value::Object(mut members) = body else {
        return Map::new();
    };
    if user.admin {
        members.insert("is_admin".into(), json!(true));
        members.insert("note".into(), Value::Null);
    }
    members
}

/// A moment as the API writes it.
fn moment(at: Timestamp) -> String {
    let second = i64::try_from(at.unix()).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
    second.unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}

fn date(at: Timestamp) -> String {
    moment(at).chars().take(10).collect()
}

/// The headers of GitLab's throttle for authenticated API calls, of which this is always the first in its minute.
fn limited(mut answer: Answer, now: Timestamp) -> Answer {
    let reset = (now.unix() / 60 + 1) * 60;
    for (name, value) in [
        ("ratelimit-limit", "2000".to_owned()),
        ("ratelimit-name", "throttle_authenticated_api".to_owned()),
        ("ratelimit-observed", "1".to_owned()),
        ("ratelimit-remaining", "1999".to_owned()),
        ("ratelimit-reset", reset.to_string()),
    ] {
        answer = answer::with(answer, HeaderName::from_static(name), &value);
    }
    answer
}

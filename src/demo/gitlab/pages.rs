//! The pages of the development GitLab; each says in a banner what it is.
//!
//! No script but the one that redirects, under a nonce. `form-action` allows any http(s) target, because Chromium applies it to
//! every redirect that follows a form, and those lead to the client and wherever the client goes next. Templates and stylesheet are
//! in `src/demo/pages/`; askama escapes whatever is put into them.

use askama::Template;
use http::StatusCode;

use super::{
    authorize::Ask,
    people::{User, UserState},
    seed,
    session::Visit,
    state::{Instance, World, random_hex},
};
use crate::demo::answer::{self, Answer, Params};

/// The policy of pages without a script.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; \
                      frame-ancestors 'none'; form-action 'self' http: https:";

/// The stylesheet of both halves of the demo.
pub(in crate::demo) const STYLESHEET: &str = include_str!("../pages/demo.css");

/// One line of the chooser.
struct Choice<'a> {
    username: &'a str,
    name: &'a str,
    about: &'a str,
}

#[derive(Template)]
#[template(path = "dev_gitlab_chooser.html")]
struct ChooserPage<'a> {
    base: &'a str,
    csrf: &'a str,
    return_to: &'a str,
    alert: Option<&'a str>,
    choices: &'a [Choice<'a>],
}

/// Buttons shown at most, so that generated users don't drown the page.
const CHOICES: usize = 50;

pub(super) fn chooser(
    gitlab: &Instance,
    world: &World,
    visit: &Visit,
    return_to: &str,
    alert: Option<&str>,
) -> Answer {
    let people = seed::people();
    let humans = world.directory.users.iter().filter(|user| !user.bot).take(CHOICES);
    let choices: Vec<_> = humans
        .map(|user| {
            let person = people.iter().find(|person| person.username == user.username);
            Choice {
                username: &user.username,
                name: &user.name,
                about: person.map_or("", |person| person.roles),
            }
        })
        .collect();
    let base = &gitlab.base_path;
    let page = ChooserPage { base, csrf: &visit.csrf, return_to, alert, choices: &choices };
    answer::page(StatusCode::OK, POLICY, page.render())
}

#[derive(Template)]
#[template(path = "dev_gitlab_consent.html")]
struct ConsentPage<'a> {
    base: &'a str,
    csrf: &'a str,
    user: &'a User,
    application: &'a str,
    redirect_uri: &'a str,
    scopes: Vec<(&'a str, &'a str)>,
    fields: Vec<(&'a str, &'a str)>,
}

pub(super) fn consent(
    gitlab: &Instance,
    visit: &Visit,
    user: &User,
    ask: &Ask,
    params: &Params,
) -> Answer {
    let carried = params.pairs().iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let own = ["authenticity_token", "_method"];
    let page = ConsentPage {
        base: &gitlab.base_path,
        csrf: &visit.csrf,
        user,
        application: &ask.application.name,
        redirect_uri: &ask.redirect_uri,
        scopes: ask.scopes.iter().map(|scope| (scope.as_str(), meaning(scope))).collect(),
        fields: carried.filter(|(name, _)| !own.contains(name)).collect(),
    };
    answer::page(StatusCode::OK, POLICY, page.render())
}

fn meaning(scope: &str) -> &'static str {
    match scope {
        "openid" => "know who you are and which groups you are in",
        "email" => "read your e-mail address",
        "profile" => "read your profile",
        "read_user" => "read your account",
        "read_api" => "read everything that you can read",
        "api" => "do everything that you can do",
        _ => "",
    }
}

#[derive(Template)]
#[template(path = "dev_gitlab_redirecting.html")]
struct RedirectingPage<'a> {
    base: &'a str,
    target: &'a str,
    nonce: &'a str,
}

/// What GitLab answers instead of a 302 when no consent is needed: a page with a link, and a script that follows it.
pub(super) fn redirecting(gitlab: &Instance, target: &str) -> Answer {
    let nonce = random_hex();
    let page = RedirectingPage { base: &gitlab.base_path, target, nonce: &nonce };
    let policy = format!("{POLICY}; script-src 'nonce-{nonce}'");
    answer::page(StatusCode::OK, &policy, page.render())
}

/// The target of the page that redirects by script, for clients that run none; none if `page` is another.
pub fn script_redirect(page: &str) -> Option<String> {
    let (_, link) = page.split_once("<a id=\"target\" href=\"")?;
    let (target, _) = link.split_once('"')?;
    // Askama writes these five as numbers.
    let unescaped =
        [("&#34;", "\""), ("&#39;", "'"), ("&#60;", "<"), ("&#62;", ">"), ("&#38;", "&")];
    Some(unescaped.iter().fold(target.to_owned(), |text, (code, sign)| text.replace(code, sign)))
}

#[derive(Template)]
#[template(path = "dev_gitlab_message.html")]
struct MessagePage<'a> {
    base: &'a str,
    title: &'a str,
    text: &'a str,
    code: Option<&'a str>,
}

/// A page that says one thing.
pub(super) fn message(gitlab: &Instance, status: StatusCode, title: &str, text: &str) -> Answer {
    let page = MessagePage { base: &gitlab.base_path, title, text, code: None };
    answer::page(status, POLICY, page.render())
}

/// The page for a bad request for authorization: status 200, and nothing reaches the client.
pub(super) fn refused(gitlab: &Instance, error: &str, description: &str) -> Answer {
    let title = "An error has occurred";
    let page = MessagePage { base: &gitlab.base_path, title, text: description, code: Some(error) };
    answer::page(StatusCode::OK, POLICY, page.render())
}

/// `GET /oauth/authorize/native`: shows the code of an out-of-band redirect URI.
pub(super) fn native(gitlab: &Instance, params: &Params) -> Answer {
    let (title, text) = ("Authorization code", "Copy this code into the application:");
    let code = params.text("code").or_else(|| params.text("error"));
    let page = MessagePage { base: &gitlab.base_path, title, text, code };
    answer::page(StatusCode::OK, POLICY, page.render())
}

#[derive(Template)]
#[template(path = "dev_gitlab_interstitial.html")]
struct InterstitialPage<'a> {
    base: &'a str,
    csrf: &'a str,
    return_to: &'a str,
    title: &'a str,
    button: &'a str,
}

/// The page that comes between for whoever has to accept the terms or change the password.
pub(super) fn interstitial(
    gitlab: &Instance,
    visit: &Visit,
    state: UserState,
    return_to: &str,
) -> Answer {
    let (title, button) = match state {
        UserState::PasswordExpired => ("Set a new password", "Done"),
        _ => ("Terms of service", "Accept terms"),
    };
    let base = &gitlab.base_path;
    let page = InterstitialPage { base, csrf: &visit.csrf, return_to, title, button };
    answer::page(StatusCode::OK, POLICY, page.render())
}

#[derive(Template)]
#[template(path = "dev_gitlab_home.html")]
struct HomePage<'a> {
    base: &'a str,
    csrf: &'a str,
    external_url: &'a str,
    user: Option<&'a User>,
    people: Vec<seed::Person>,
}

/// `GET /`: what this is, and who is signed in.
pub(super) fn home(gitlab: &Instance, visit: &Visit, user: Option<&User>) -> Answer {
    let page = HomePage {
        base: &gitlab.base_path,
        csrf: &visit.csrf,
        external_url: &gitlab.external_url,
        user,
        people: seed::people(),
    };
    answer::page(StatusCode::OK, POLICY, page.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_page_escapes_its_target_and_gives_it_back() {
        let target = "https://a.example/cb?code=1&state=<\"'>";
        let page = RedirectingPage { base: "", target, nonce: "n" }.render().unwrap();
        assert!(!page.contains("<\"'>"));
        assert_eq!(script_redirect(&page).as_deref(), Some(target));
    }
}

//! A development GitLab: a faithful OAuth 2.0 and `OpenID` Connect provider with people, groups and projects, refusals and quirks
//! included, for the demo and for tests.
//!
//! ```text
//! browser ──▶ /oauth/authorize ──▶ persona chooser ──▶ consent ──▶ the client's callback
//! client  ──▶ /oauth/{token,userinfo,revoke,introspect,token/info,discovery/keys}, /.well-known/openid-configuration
//! client  ──▶ /api/v4/{user,groups/:id,projects/:id,…/members/all/:user_id,personal_access_tokens/self,job}
//! tests   ──▶ the handle, or /-/dev/… (see `dispatch`): states, roles, lifetimes, failures, false tokens
//!                └──▶ system hooks to wherever a command says
//! ```
//!
//! It answers as GitLab with its Doorkeeper settings does: errors at authorize are pages with status 200, a refresh kills the old
//! pair at once, blocked people are a 500 at userinfo and a 403 at the API. It has no passwords, so it listens on loopback only
//! unless forced, says in a banner on every page what it is, and marks each answer with `X-Labgate-Dev-Gitlab: 1` and its discovery
//! document with `labgate_development_gitlab`. Everybody has a personal access token `glpat-dev-USERNAME` with `read_api` and `read_user`.
//!
//! Left out: sign-up, the device flow, client credentials, SAML, and every page that labgate never meets.

mod api;
mod applications;
mod authorize;
mod bearer;
mod command;
mod dispatch;
mod hooks;
mod inspect;
mod job;
mod keys;
mod mint;
mod oidc;
mod pages;
mod people;
mod seed;
mod session;
mod state;
mod switches;
mod token;

#[cfg(test)]
mod tests;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

pub(in crate::demo) use self::pages::STYLESHEET;
use self::state::Instance;
pub use self::{
    applications::Application,
    command::{Command, CommandError},
    keys::{Keys, Signature, Tamper},
    mint::Mint,
    pages::script_redirect,
    people::{Role, UserState, Visibility},
    seed::{MAINTAINERS_OF, Person, TEAM, people},
    switches::{Document, Endpoint, Failure, Fault},
    token::Refreshes,
};
use super::serve::{self, Ending, Server};
use crate::clock::Clock;

/// The `client_id` of the application that is there from the start.
pub const CLIENT_ID: &str = "labgate-demo";
/// Its secret, which protects nothing but the development GitLab.
pub const CLIENT_SECRET: &str = "gloas-labgate-demo-for-development-only";

/// How a development GitLab is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Take another port of the same address if that one is taken.
    pub or_other_port: bool,
    /// Listen although the address is not loopback.
    pub force_public: bool,
    /// What it calls itself, the issuer; default where it listens.
    pub external_url: Option<String>,
    /// The relative URL root, such as `/gitlab`; default the path of the external URL.
    pub base_path: String,
    /// Redirect URIs of the application `labgate-demo`.
    pub redirect_uris: Vec<String>,
    /// Further applications, or a different one of that id.
    pub applications: Vec<Application>,
    /// The clock its tokens follow.
    pub clock: Clock,
    /// Signing keys made earlier; else two are made, which takes a moment.
    pub keys: Option<Keys>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            or_other_port: false,
            force_public: false,
            external_url: None,
            base_path: String::new(),
            redirect_uris: Vec::new(),
            applications: Vec::new(),
            clock: Clock::system(),
            keys: None,
        }
    }
}

/// A running development GitLab; dropping it ends it at once.
#[derive(Debug)]
pub struct DevGitlab {
    instance: Arc<Instance>,
    server: Server,
    addr: SocketAddr,
    taken: Option<SocketAddr>,
}

impl DevGitlab {
    /// Starts one on the current runtime.
    ///
    /// # Errors
    ///
    /// When the address is not loopback and that was not forced, can't be bound, or an application has a redirect URI that none may have.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let Options { listen, force_public, .. } = options;
        ensure!(
            force_public || listen.ip().is_loopback(),
            "the development GitLab lets anybody in without a password, so it does not listen on {listen} unless --force-public is given"
        );
        let keys = match options.keys {
            Some(keys) => keys,
            None => Keys::generate().await?,
        };
        let bound = serve::bind(listen, options.or_other_port)
            .await
            .with_context(|| format!("the development GitLab can't listen on {listen}"))?;
        let (addr, taken) = (bound.addr, bound.taken);
        let (external_url, base_path) = names(addr, options.external_url, &options.base_path)?;
        let uris: Vec<&str> = options.redirect_uris.iter().map(String::as_str).collect();
        let mut demo = Application::new(CLIENT_ID, CLIENT_SECRET, &uris);
        "labgate demo".clone_into(&mut demo.name);
        let instance = Instance::new(options.clock, base_path, external_url, force_public, keys);
        for application in std::iter::once(demo).chain(options.applications) {
            instance.apply(Command::Register(application))?;
        }
        let instance = Arc::new(instance);
        let shared = Arc::clone(&instance);
        let service = move |request| dispatch::respond(Arc::clone(&shared), request);
        let server = Server::start(bound, Ending::new(), service);
        Ok(Self { instance, server, addr, taken })
    }

    /// Its base URL by the address it listens on, with the relative root and without a final slash.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.addr, self.instance.base_path)
    }

    /// What it calls itself, the `iss` of its tokens.
    pub fn external_url(&self) -> &str {
        &self.instance.external_url
    }

    /// Where it listens.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address it was to listen on, if another program had that.
    pub const fn taken(&self) -> Option<SocketAddr> {
        self.taken
    }

    /// Changes something; see `Command`.
    ///
    /// # Errors
    ///
    /// When the command names what does not exist, or makes what does.
    pub fn command(&self, command: Command) -> Result<(), CommandError> {
        self.instance.apply(command)
    }

    /// Sets the state of an account.
    ///
    /// # Errors
    ///
    /// When there is no such user.
    pub fn set_state(&self, user: &str, state: UserState) -> Result<(), CommandError> {
        self.command(Command::SetState { user: user.to_owned(), state })
    }

    /// Sets the primary e-mail of an account.
    ///
    /// # Errors
    ///
    /// When there is no such user.
    pub fn set_email(&self, user: &str, email: &str, verified: bool) -> Result<(), CommandError> {
        let (user, email) = (user.to_owned(), Some(email.to_owned()));
        self.command(Command::SetEmail { user, email, verified })
    }

    /// Gives a direct role in a group, or takes it away.
    ///
    /// # Errors
    ///
    /// When there is no such user or group.
    pub fn set_role(
        &self,
        group: &str,
        user: &str,
        role: Option<Role>,
    ) -> Result<(), CommandError> {
        let (group, user) = (group.to_owned(), user.to_owned());
        self.command(Command::SetGroupRole { group, user, role })
    }

    /// Tells all changes from now on to this URL, as a system hook with this secret token.
    ///
    /// # Errors
    ///
    /// When the URL is not `http`.
    pub fn add_hook(&self, url: &str, token: &str) -> Result<(), CommandError> {
        self.command(Command::AddHook { url: url.to_owned(), token: token.to_owned() })
    }

    /// Makes this many groups with the user as developer in each.
    ///
    /// # Errors
    ///
    /// When there is no such user or the count is absurd.
    pub fn add_groups(&self, user: &str, count: u32) -> Result<(), CommandError> {
        self.command(Command::AddGroups { user: user.to_owned(), count })
    }

    /// Makes the next requests to an endpoint fail.
    pub fn fail(&self, fault: Fault) {
        self.instance.world().switches.fail(fault);
    }

    /// Forgets all failures that have not happened yet.
    pub fn clear_faults(&self) {
        self.instance.world().switches.clear_faults();
    }

    /// Stops answering, or answers again.
    pub fn set_silent(&self, silent: bool) {
        self.instance.world().switches.silent = silent;
    }

    /// Makes the ID tokens that follow different; the default makes them right again.
    pub fn tamper(&self, tamper: Tamper) {
        self.instance.world().switches.tamper = tamper;
    }

    /// Lays members over a JSON answer, null takes one away; an empty object makes it right again.
    pub fn overlay(&self, document: Document, members: Value) {
        if let Value::Object(members) = members {
            self.instance.world().switches.overlay(document, members);
        }
    }

    /// Sets the lifetime in seconds of access tokens made from codes.
    pub fn set_access_token_lifetime(&self, seconds: u64) {
        self.instance.world().switches.access_token_seconds = seconds;
    }

    /// Sets the lifetime in seconds of ID tokens.
    pub fn set_id_token_lifetime(&self, seconds: u64) {
        self.instance.world().switches.id_token_seconds = seconds;
    }

    /// Lets the times in tokens run ahead of the clock by this many seconds.
    pub fn set_skew(&self, seconds: i64) {
        self.instance.world().switches.skew_seconds = seconds;
    }

    /// Replaces the login key.
    ///
    /// # Errors
    ///
    /// When no key could be made.
    pub async fn rotate_login_key(&self) -> anyhow::Result<()> {
        dispatch::rotate_login_key(&self.instance).await
    }

    /// Requests to this endpoint so far.
    pub fn hits(&self, endpoint: Endpoint) -> u64 {
        self.instance.world().switches.hits().get(&endpoint).copied().unwrap_or_default()
    }

    /// What became of refresh tokens so far.
    pub fn refreshes(&self) -> Refreshes {
        self.instance.world().refreshes
    }

    /// Ends it and waits until its sockets are closed.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

/// The external URL and the relative root, each made from the other if it is not given.
fn names(
    addr: SocketAddr,
    external_url: Option<String>,
    base_path: &str,
) -> anyhow::Result<(String, String)> {
    let given = base_path.trim_matches('/');
    let base_path = if given.is_empty() { String::new() } else { format!("/{given}") };
    let Some(external_url) = external_url else {
        return Ok((format!("http://{addr}{base_path}"), base_path));
    };
    let external_url = external_url.trim_end_matches('/').to_owned();
    let parsed = url::Url::parse(&external_url)
        .with_context(|| format!("the external URL {external_url:?} is none"))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.query().is_some() {
        bail!("the external URL {external_url:?} must be http or https, without a query");
    }
    let own = parsed.path().trim_end_matches('/').to_owned();
    Ok((external_url, if base_path.is_empty() { own } else { base_path }))
}

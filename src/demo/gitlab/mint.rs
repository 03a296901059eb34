//! Tokens of callers without a browser, made by command: of OAuth applications, projects, groups and CI jobs, and ID tokens of jobs and sign-ins.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    DevGitlab, Role,
    command::CommandError,
    keys::{self, Signature, Tamper},
    oidc,
    people::Place,
    state::{Instance, Job, PersonalToken, Row, World, random_hex},
};
use crate::clock::Timestamp;

/// One token to be made, or a job to end.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the members are the words of the module's other types")]
pub enum Mint {
    /// An OAuth access token of this application, as a sign-in would give it.
    Oauth { user: String, client_id: String, token: String, scopes: Vec<String> },
    /// A project access token; its bot holds the role.
    Project {
        project: String,
        token: String,
        role: Role,
        scopes: Vec<String>,
        #[serde(default)]
        expires_at: Option<u64>,
    },
    /// A group access token; its bot holds the role.
    Group {
        group: String,
        token: String,
        role: Role,
        scopes: Vec<String>,
        #[serde(default)]
        expires_at: Option<u64>,
    },
    /// A running CI job with this `CI_JOB_TOKEN`.
    Job {
        project: String,
        user: String,
        token: String,
        #[serde(rename = "ref")]
        ref_name: String,
        #[serde(default)]
        tag: bool,
        #[serde(default)]
        source: Option<String>,
    },
    /// The end of the job with this token.
    JobEnd { token: String },
}

impl World {
    /// Carries out one of these.
    pub(super) fn mint(&mut self, mint: Mint, now: Timestamp) -> Result<(), CommandError> {
        match mint {
            Mint::Oauth { user, client_id, token, scopes } => {
                let user = self.id_of(&user)?;
                self.tokens.insert(Row {
                    access_token: token,
                    refresh_token: random_hex(),
                    client_id,
                    user,
                    scopes,
                    expires_in: self.switches.access_token_seconds,
                    created_at: now,
                    revoked: false,
                });
            },
            Mint::Project { project, token, role, scopes, expires_at } => {
                let id = self.project(&project)?.id;
                let bot = self.bot("project", id, now)?;
                self.project(&project)?.members.insert(bot, role);
                self.keep(token, bot, scopes, expires_at, now);
            },
            Mint::Group { group, token, role, scopes, expires_at } => {
                let id = self.group(&group)?.id;
                let bot = self.bot("group", id, now)?;
                self.group(&group)?.members.insert(bot, role);
                self.keep(token, bot, scopes, expires_at, now);
            },
            Mint::Job { project, user, token, ref_name, tag, source } => {
                let Place { id: project_id, path, .. } = self.project(&project)?.clone();
                let user = self.id_of(&user)?;
                let id = self.fresh_id();
                let source = source.unwrap_or_else(|| "push".to_owned());
                self.jobs.push(Job { id, token, project_id, path, user, ref_name, tag, source });
            },
            Mint::JobEnd { token } => {
                let before = self.jobs.len();
                self.jobs.retain(|job| job.token != token);
                if self.jobs.len() == before {
                    return Err(CommandError::Nothing("job"));
                }
            },
        }
        Ok(())
    }

    fn id_of(&self, username: &str) -> Result<u64, CommandError> {
        let user = self.directory.user_named(username);
        user.map(|user| user.id).ok_or_else(|| CommandError::NoUser(username.to_owned()))
    }

    /// The account of a project or group token, called as GitLab calls them.
    fn bot(&mut self, place: &str, id: u64, now: Timestamp) -> Result<u64, CommandError> {
        let hex: String = random_hex().chars().take(32).collect();
        let username = format!("{place}_{id}_bot_{hex}");
        let email = Some(format!("{username}@noreply.example.com"));
        self.add_user(username.clone(), email, true, now)?;
        self.id_of(&username)
    }

    fn keep(
        &mut self,
        token: String,
        user: u64,
        scopes: Vec<String>,
        expires_at: Option<u64>,
        now: Timestamp,
    ) {
        let id = self.fresh_id();
        self.personal.push(PersonalToken {
            token,
            id,
            name: "made by command".to_owned(),
            user,
            scopes,
            created_at: now,
            expires_at: expires_at.map(Timestamp::from_unix),
            revoked: false,
        });
    }
}

impl Instance {
    /// An ID token of a CI job of `acme/web/shop`, with these claims laid over its own; null takes one away.
    pub(super) fn ci_id_token(&self, claims: &Map<String, Value>, tamper: &Tamper) -> String {
        let now = self.clock.now().unix();
        let own = json!({
            "iss": self.external_url, "iat": now, "nbf": now.saturating_sub(5), "exp": now + 3600,
            "jti": random_hex(), "aud": "https://ci.example",
            "sub": "project_path:acme/web/shop:ref_type:branch:ref:main",
            "namespace_id": "12", "namespace_path": "acme/web", "project_id": "102",
            "project_path": "acme/web/shop", "job_project_id": "102",
            "job_project_path": "acme/web/shop", "user_id": "3", "user_login": "bob",
            "user_email": "bob@example.com", "pipeline_id": "7001", "pipeline_source": "push",
            "job_id": "9001", "ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main",
            "ref_protected": "true", "runner_environment": "self-hosted",
        });
        let Value::Object(mut own) = own else {
            return String::new();
        };
        keys::overlay(&mut own, claims);
        keys::token(&self.keys(), own, tamper)
    }
}

impl DevGitlab {
    /// Makes a token; see [`Mint`].
    ///
    /// # Errors
    ///
    /// When it names what does not exist.
    pub fn mint(&self, mint: Mint) -> Result<(), CommandError> {
        self.instance.world().mint(mint, self.instance.clock.now())
    }

    /// An ID token of a CI job of `acme/web/shop`, with these claims laid over its own; null takes one away.
    pub fn ci_id_token(&self, claims: &Map<String, Value>) -> String {
        self.instance.ci_id_token(claims, &Tamper::signature(Signature::Ci))
    }

    /// The same, made different as `tamper` says.
    pub fn false_ci_id_token(&self, claims: &Map<String, Value>, tamper: &Tamper) -> String {
        self.instance.ci_id_token(claims, tamper)
    }

    /// The ID token that a sign-in of `user` to this application would give.
    ///
    /// # Errors
    ///
    /// When there is no such user, or they can't sign in.
    pub fn login_id_token(&self, user: &str, client_id: &str) -> Result<String, CommandError> {
        let now = self.instance.clock.now();
        let world = self.instance.world();
        let row = Row {
            access_token: random_hex(),
            refresh_token: random_hex(),
            client_id: client_id.to_owned(),
            user: world.id_of(user)?,
            scopes: vec!["openid".to_owned(), "email".to_owned()],
            expires_in: 7200,
            created_at: now,
            revoked: false,
        };
        let claims = oidc::id_token_claims(&self.instance, &world, &row, Some("nonce"), now);
        drop(world);
        let claims = claims.ok_or_else(|| CommandError::NoUser(user.to_owned()))?;
        Ok(oidc::sign(&self.instance, claims))
    }
}

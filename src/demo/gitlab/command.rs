//! Commands that change a running development GitLab, the same by handle and by `POST /-/dev/commands`.
//!
//! As JSON a command is one object whose member `do` names it, for example `{"do": "set_state", "user": "alice", "state": "blocked"}`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    applications::{Application, may_register},
    hooks::{self, Hook},
    keys::Tamper,
    people::{Place, Role, User, UserState, Visibility},
    state::{Instance, PersonalToken, World},
    switches::{Document, Fault},
};
use crate::clock::Timestamp;

/// One change.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the members are the words of the module's other types")]
pub enum Command {
    /// Blocks, wakes, or otherwise changes an account.
    SetState { user: String, state: UserState },
    /// Gives an account another username.
    Rename { user: String, to: String },
    /// Changes the primary address and whether it is confirmed.
    SetEmail { user: String, email: Option<String>, verified: bool },
    /// Changes the address shown to everybody.
    SetPublicEmail { user: String, email: Option<String> },
    /// Changes flags; those left out stay.
    SetFlags { user: String, admin: Option<bool>, external: Option<bool>, two_factor: Option<bool> },
    /// Makes an account; `bot` for that of a project or group token, which can't sign in.
    AddUser {
        username: String,
        #[serde(default)]
        email: Option<String>,
        #[serde(default)]
        bot: bool,
    },
    /// Deletes an account with its memberships; its tokens are unknown from then on.
    DeleteUser { user: String },
    /// Makes a group; its path says where it stands.
    AddGroup {
        path: String,
        #[serde(default)]
        visibility: Visibility,
    },
    /// Renames a group with all that is below it.
    RenameGroup { path: String, to: String },
    /// Makes a project; its path says where it stands.
    AddProject {
        path: String,
        #[serde(default)]
        visibility: Visibility,
    },
    /// Renames a project, or moves it to another group; its former path redirects.
    RenameProject { path: String, to: String },
    /// Archives a project, or brings it back.
    ArchiveProject { path: String, archived: bool },
    /// Shares a project with the members of a group, at most with that role.
    ShareProject { project: String, with: String, role: Role },
    /// Gives a direct role in a group, or takes it away with null.
    SetGroupRole { group: String, user: String, role: Option<Role> },
    /// Gives a direct role in a project, or takes it away with null.
    SetProjectRole { project: String, user: String, role: Option<Role> },
    /// Shares a group with the members of another, at most with that role.
    ShareGroup { group: String, with: String, role: Role },
    /// Makes this many groups with the user as developer in each.
    AddGroups { user: String, count: u32 },
    /// Makes a personal access token; `expires_at` in Unix seconds.
    AddPersonalToken {
        user: String,
        token: String,
        scopes: Vec<String>,
        #[serde(default)]
        expires_at: Option<u64>,
    },
    /// Revokes a personal access token.
    RevokePersonalToken { token: String },
    /// Revokes all OAuth tokens of a user, as *Profile, Applications* does.
    RevokeTokens { user: String },
    /// Lifetime of access tokens made from codes; refreshed ones inherit theirs.
    SetAccessTokenLifetime { seconds: u64 },
    /// Lifetime of ID tokens.
    SetIdTokenLifetime { seconds: u64 },
    /// How far the times in tokens run ahead of the clock.
    SetSkew { seconds: i64 },
    /// Makes the next requests fail.
    Fail(Fault),
    /// Forgets all failures that have not happened yet.
    ClearFaults,
    /// Stops answering, or answers again; this path goes on answering.
    SetSilent { silent: bool },
    /// Makes the ID tokens that follow different; the default makes them right again.
    Tamper(Tamper),
    /// Lays members over a JSON answer; an empty object makes it right again.
    Overlay { document: Document, members: Map<String, Value> },
    /// Tells changes of people and groups to this `http` URL from now on, as a system hook with this secret token.
    AddHook { url: String, token: String },
    /// Forgets all hooks.
    ClearHooks,
    /// Registers an application, or replaces the one of that id.
    Register(Application),
    /// Removes an application.
    Unregister { client_id: String },
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is no such user.
    #[error("there is no user {0:?}")]
    NoUser(String),
    /// There is no such group.
    #[error("there is no group {0:?}")]
    NoGroup(String),
    /// There is no such project.
    #[error("there is no project {0:?}")]
    NoProject(String),
    /// There is no such personal access token or application.
    #[error("there is no such {0}")]
    Nothing(&'static str),
    /// The name is in use.
    #[error("{0:?} exists already")]
    Taken(String),
    /// No application may have this redirect URI.
    #[error("{0:?} can't be a redirect URI: it must be absolute and have no fragment")]
    RedirectUri(String),
    /// No hook may have this URL.
    #[error("{0:?} can't be called by a hook: it must be an http URL")]
    HookUrl(String),
    /// Too much at once.
    #[error("at most {0} at once")]
    TooMany(u32),
}

/// Hooks at once.
const HOOKS: usize = 8;

/// Groups that one command may make.
const GROUPS_AT_ONCE: u32 = 50_000;

impl Instance {
    /// Carries out one command, and tells the hooks of it.
    pub(super) fn apply(&self, command: Command) -> Result<(), CommandError> {
        let event = hooks::event(&self.world(), &command);
        self.carry_out(command)?;
        if let Some(event) = event {
            self.messenger.send(&self.world(), &event);
        }
        Ok(())
    }

    fn carry_out(&self, command: Command) -> Result<(), CommandError> {
        let now = self.clock.now();
        let world = &mut *self.world();
        match command {
            Command::SetState { user, state } => world.named(&user)?.state = state,
            Command::Rename { user, to } => {
                if world.directory.user_named(&to).is_some() {
                    return Err(CommandError::Taken(to));
                }
                world.named(&user)?.username = to;
            },
            Command::SetEmail { user, email, verified } => {
                let user = world.named(&user)?;
                (user.email, user.email_verified) = (email, verified);
            },
            Command::SetPublicEmail { user, email } => world.named(&user)?.public_email = email,
            Command::SetFlags { user, admin, external, two_factor } => {
                let user = world.named(&user)?;
                user.admin = admin.unwrap_or(user.admin);
                user.external = external.unwrap_or(user.external);
                user.two_factor = two_factor.unwrap_or(user.two_factor);
            },
            Command::AddUser { username, email, bot } => {
                world.add_user(username, email, bot, now)?;
            },
            Command::DeleteUser { user } => {
                let id = world.named(&user)?.id;
                world.delete_user(id);
            },
            Command::AddGroup { path, visibility } => {
                let id = world.fresh_id();
                add(&mut world.directory.groups, id, path, visibility)?;
            },
            Command::RenameGroup { path, to } => world.rename_group(&path, &to)?,
            Command::AddProject { path, visibility } => {
                let id = world.fresh_id();
                add(&mut world.directory.projects, id, path, visibility)?;
            },
            Command::SetGroupRole { group, user, role } => {
                let id = world.named(&user)?.id;
                set_role(world.group(&group)?, id, role);
            },
            Command::SetProjectRole { project, user, role } => {
                let id = world.named(&user)?.id;
                set_role(world.project(&project)?, id, role);
            },
            Command::ShareGroup { group, with, role } => {
                let with = world.group(&with)?.id;
                world.group(&group)?.share(with, role);
            },
            Command::RenameProject { path, to } => world.rename_project(&path, &to)?,
            Command::ArchiveProject { path, archived } => world.project(&path)?.archived = archived,
            Command::ShareProject { project, with, role } => {
                let with = world.group(&with)?.id;
                world.project(&project)?.share(with, role);
            },
            Command::AddGroups { user, count } => world.add_groups(&user, count)?,
            Command::AddPersonalToken { user, token, scopes, expires_at } => {
                let (user, id) = (world.named(&user)?.id, world.fresh_id());
                world.personal.push(PersonalToken {
                    token,
                    id,
                    name: "made by command".to_owned(),
                    user,
                    scopes,
                    created_at: now,
                    expires_at: expires_at.map(Timestamp::from_unix),
                    revoked: false,
                });
            },
            Command::RevokePersonalToken { token } => {
                let found = world.personal.iter_mut().find(|personal| personal.token == token);
                found.ok_or(CommandError::Nothing("personal access token"))?.revoked = true;
            },
            Command::RevokeTokens { user } => {
                let id = world.named(&user)?.id;
                world.tokens.revoke_all(|row| row.user == id);
            },
            Command::SetAccessTokenLifetime { seconds } => {
                world.switches.access_token_seconds = seconds;
            },
            Command::SetIdTokenLifetime { seconds } => world.switches.id_token_seconds = seconds,
            Command::SetSkew { seconds } => world.switches.skew_seconds = seconds,
            Command::Fail(fault) => world.switches.fail(fault),
            Command::ClearFaults => world.switches.clear_faults(),
            Command::SetSilent { silent } => world.switches.silent = silent,
            Command::Tamper(tamper) => world.switches.tamper = tamper,
            Command::Overlay { document, members } => world.switches.overlay(document, members),
            Command::AddHook { url, token } => {
                world.hooks.push(Hook::new(&url, token)?);
                // The oldest goes when somebody keeps adding.
                let many = world.hooks.len().saturating_sub(HOOKS);
                world.hooks.drain(..many);
            },
            Command::ClearHooks => world.hooks.clear(),
            Command::Register(application) => world.register(application)?,
            Command::Unregister { client_id } => world.unregister(&client_id)?,
        }
        Ok(())
    }
}

impl World {
    fn unregister(&mut self, client_id: &str) -> Result<(), CommandError> {
        let before = self.applications.len();
        self.applications.retain(|known| known.client_id != client_id);
        match self.applications.len() == before {
            true => Err(CommandError::Nothing("application")),
            false => Ok(()),
        }
    }

    fn named(&mut self, username: &str) -> Result<&mut User, CommandError> {
        let missing = || CommandError::NoUser(username.to_owned());
        let mut users = self.directory.users.iter_mut();
        users.find(|user| user.username.eq_ignore_ascii_case(username)).ok_or_else(missing)
    }

    fn group(&mut self, path: &str) -> Result<&mut Place, CommandError> {
        let missing = || CommandError::NoGroup(path.to_owned());
        self.directory.groups.iter_mut().find(|group| group.path == path).ok_or_else(missing)
    }

    fn add_user(
        &mut self,
        username: String,
        email: Option<String>,
        bot: bool,
        now: Timestamp,
    ) -> Result<(), CommandError> {
        if self.directory.user_named(&username).is_some() {
            return Err(CommandError::Taken(username));
        }
        let id = self.fresh_id();
        self.directory.users.push(User {
            id,
            name: username.clone(),
            username,
            email_verified: email.is_some(),
            email,
            public_email: None,
            state: UserState::Active,
            admin: false,
            external: false,
            two_factor: false,
            bot,
            signed_in_at: None,
            created_at: now,
        });
        Ok(())
    }

    fn delete_user(&mut self, id: u64) {
        let directory = &mut self.directory;
        directory.users.retain(|user| user.id != id);
        for place in directory.groups.iter_mut().chain(&mut directory.projects) {
            place.members.remove(&id);
        }
        self.tokens.revoke_all(|row| row.user == id);
        self.personal.retain(|token| token.user != id);
    }

    fn project(&mut self, path: &str) -> Result<&mut Place, CommandError> {
        let project = self.directory.projects.iter_mut().find(|project| project.path == path);
        project.ok_or_else(|| CommandError::NoProject(path.to_owned()))
    }

    fn rename_project(&mut self, path: &str, to: &str) -> Result<(), CommandError> {
        if self.directory.project(to).is_some() {
            return Err(CommandError::Taken(to.to_owned()));
        }
        let project = self.project(path)?;
        let id = project.id;
        to.clone_into(&mut project.path);
        self.directory.moved.insert(path.to_ascii_lowercase(), id);
        Ok(())
    }

    fn rename_group(&mut self, path: &str, to: &str) -> Result<(), CommandError> {
        if self.directory.group(to).is_some() {
            return Err(CommandError::Taken(to.to_owned()));
        }
        self.group(path)?;
        let below = format!("{path}/");
        let directory = &mut self.directory;
        for place in directory.groups.iter_mut().chain(&mut directory.projects) {
            if place.path == path {
                to.clone_into(&mut place.path);
            } else if let Some(rest) = place.path.strip_prefix(&below) {
                place.path = format!("{to}/{rest}");
            }
        }
        Ok(())
    }

    fn add_groups(&mut self, user: &str, count: u32) -> Result<(), CommandError> {
        if count > GROUPS_AT_ONCE {
            return Err(CommandError::TooMany(GROUPS_AT_ONCE));
        }
        let user = self.named(user)?.id;
        for _ in 0..count {
            let id = self.fresh_id();
            let path = format!("generated/for-many-claims/group-{id:06}");
            let mut group = Place::new(id, &path, Visibility::Private);
            group.members.insert(user, Role::Developer);
            self.directory.groups.push(group);
        }
        Ok(())
    }

    pub(super) fn register(&mut self, application: Application) -> Result<(), CommandError> {
        if let Some(bad) = application.redirect_uris.iter().find(|uri| !may_register(uri)) {
            return Err(CommandError::RedirectUri(bad.clone()));
        }
        self.applications.retain(|known| known.client_id != application.client_id);
        self.applications.push(application);
        Ok(())
    }
}

fn set_role(place: &mut Place, user: u64, role: Option<Role>) {
    match role {
        Some(role) => place.members.insert(user, role),
        None => place.members.remove(&user),
    };
}

fn add(
    places: &mut Vec<Place>,
    id: u64,
    path: String,
    visibility: Visibility,
) -> Result<(), CommandError> {
    if places.iter().any(|place| place.path.eq_ignore_ascii_case(&path)) {
        return Err(CommandError::Taken(path));
    }
    places.push(Place::new(id, &path, visibility));
    Ok(())
}

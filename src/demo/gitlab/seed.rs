//! The people every development GitLab starts with, and the table that tells what each may see in the demo.
//!
//! The demo's routes are `/private` for everybody signed in, `/team` for members of `acme`, and `/maintainers` for maintainers of
//! `acme/ops`; whoever writes routes for them should keep to these two groups.

use super::people::{Directory, Place, Role, User, UserState, Visibility};
use crate::clock::Timestamp;

/// The group that the demo's `/team` is for.
pub const TEAM: &str = "acme";
/// The group whose maintainers the demo's `/maintainers` is for.
pub const MAINTAINERS_OF: &str = "acme/ops";

/// One of the people of the demo, as its table lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Person {
    /// The username, which is also the label of the button that signs in.
    pub username: &'static str,
    /// The display name.
    pub name: &'static str,
    /// The roles held, in words.
    pub roles: &'static str,
    /// What opens in the demo, in words.
    pub may_see: &'static str,
}

/// Everybody who can be chosen at sign-in, in the order of the buttons.
pub fn people() -> Vec<Person> {
    vec![
        Person {
            username: "root",
            name: "Administrator",
            roles: "administrator; owner of acme",
            may_see: "everything",
        },
        Person {
            username: "alice",
            name: "Alice Example",
            roles: "developer in acme, maintainer of acme/ops",
            may_see: "everything",
        },
        Person {
            username: "bob",
            name: "Bob Example",
            roles: "developer in acme, maintainer of acme/web",
            may_see: "/private and /team",
        },
        Person {
            username: "carol",
            name: "Carol Example",
            roles: "in no group; external, e-mail unverified",
            may_see: "/private",
        },
        Person {
            username: "dave",
            name: "Dave Example",
            roles: "developer in acme, but blocked",
            may_see: "nothing: cannot sign in",
        },
    ]
}

/// The users, groups and projects at the start.
pub(super) fn directory(now: Timestamp) -> Directory {
    let users = people().iter().zip(1..).map(|(person, id)| user(person, id, now)).collect();
    let mut acme = Place::new(10, TEAM, Visibility::Private);
    acme.members.extend([
        (1, Role::Owner),
        (2, Role::Developer),
        (3, Role::Developer),
        (5, Role::Developer),
    ]);
    let mut ops = Place::new(11, MAINTAINERS_OF, Visibility::Private);
    ops.members.insert(2, Role::Maintainer);
    let mut web = Place::new(12, "acme/web", Visibility::Private);
    web.members.insert(3, Role::Maintainer);
    let open = Place::new(20, "open", Visibility::Public);
    let runbooks = Place::new(101, "acme/ops/runbooks", Visibility::Private);
    let mut shop = Place::new(102, "acme/web/shop", Visibility::Private);
    shop.members.insert(4, Role::Reporter);
    let handbook = Place::new(103, "open/handbook", Visibility::Public);
    Directory {
        users,
        groups: vec![acme, ops, web, open],
        projects: vec![runbooks, shop, handbook],
        ..Directory::default()
    }
}

fn user(person: &Person, id: u64, now: Timestamp) -> User {
    User {
        id,
        username: person.username.to_owned(),
        name: person.name.to_owned(),
        email: Some(format!("{}@example.com", person.username)),
        email_verified: person.username != "carol",
        public_email: None,
        state: if person.username == "dave" { UserState::Blocked } else { UserState::Active },
        admin: person.username == "root",
        external: person.username == "carol",
        two_factor: person.username == "alice",
        bot: false,
        signed_in_at: None,
        created_at: now,
    }
}

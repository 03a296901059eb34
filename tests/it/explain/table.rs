//! The table: everybody, every job and every route, with who is to pass where, by what GitLab knows of them and not by what labgate says.
//!
//! ```text
//! acme        root owner, alice and bob developer      acme-evil   grace owner
//! ├── ops     alice maintainer, heidi planner,         └── shop
//! │   │       frank guest                              open        nobody; public
//! │   └── runbooks                                     └── handbook
//! └── web     bob maintainer, ivan reporter            hall        nobody; internal
//!     └── shop   carol reporter, erin guest
//! ```

use labgate::demo::gitlab::{Command, DevGitlab, Role, Visibility};

/// Everybody, with what `explain` is told of them; it is what the development GitLab knows.
pub const PEOPLE: [(&str, &[&str]); 10] = [
    ("root", &["--email", "root@example.com", "--group", "acme=owner"]),
    (
        "alice",
        &[
            "--email",
            "alice@example.com",
            "--two-factor",
            "--group",
            "acme=developer",
            "--group",
            "acme/ops=maintainer",
        ],
    ),
    (
        "bob",
        &[
            "--email",
            "bob@example.com",
            "--group",
            "acme=developer",
            "--group",
            "acme/web=maintainer",
        ],
    ),
    // Her address is not verified.
    ("carol", &["--external", "--project", "acme/web/shop=reporter"]),
    ("erin", &["--email", "erin@corp.test", "--project", "acme/web/shop=guest", "--two-factor"]),
    ("frank", &["--email", "frank@corp.test", "--group", "acme/ops=guest"]),
    (
        "grace",
        &[
            "--email",
            "grace@acme",
            "--group",
            "acme-evil=owner",
            "--project",
            "acme-evil/shop=owner",
        ],
    ),
    // Called like the group.
    ("acme", &["--email", "acme@corp.test", "--external", "--two-factor"]),
    ("heidi", &["--email", "heidi@else.test", "--group", "acme/ops=planner"]),
    ("ivan", &["--email", "ivan@else.test", "--group", "acme/web=reporter"]),
];

/// CI jobs: claims laid over those of a job of `acme/web/shop` on its protected branch `main`, and the same as `explain` is told of them.
pub const JOBS: [(&str, &str, &[&str]); 6] = [
    ("main", "{}", &[]),
    (
        "release",
        r#"{ "ref": "release/1.2", "ref_protected": "false" }"#,
        &["ref=release/1.2", "ref_protected=false"],
    ),
    // Of a tag that is called like the branch.
    ("tag", r#"{ "ref_type": "tag" }"#, &["ref_type=tag"]),
    (
        "v1",
        r#"{ "ref": "v1", "ref_type": "tag", "environment": "staging" }"#,
        &["ref=v1", "ref_type=tag", "environment=staging"],
    ),
    (
        "nightly",
        r#"{ "environment": "production", "pipeline_source": "schedule" }"#,
        &["environment=production", "pipeline_source=schedule"],
    ),
    (
        // Started by somebody whom every rule on users would let in.
        "handbook",
        r#"{ "project_path": "open/handbook", "namespace_path": "open", "user_login": "alice", "user_email": "alice@example.com", "user_access_level": "owner", "groups_direct": ["acme"] }"#,
        &["project_path=open/handbook"],
    ),
];

const EVERYBODY: &str = "root alice bob carol erin frank grace acme heidi ivan";
const EVERY_JOB: &str = "main release tag v1 nightly handbook";
const SHOPS: &str = "main release tag v1 nightly";

/// One route, and who is to pass there.
#[derive(Clone, Copy)]
pub struct Row {
    pub allow: &'static str,
    /// Further keys of the route.
    pub keys: &'static str,
    /// How it is asked for.
    pub method: &'static str,
    /// Who fulfils it, one list for each rule, parted by `|`.
    people: &'static str,
    jobs: &'static str,
    /// What those read who may not pass: in browsers, by tokens, and jobs. Where it is not the rules that refuse, nobody passes.
    refusals: [&'static str; 3],
}

/// By what somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Browser,
    Token,
    Job,
}

/// A refusal by the rules.
pub const FORBIDDEN: &str = "forbidden";

const fn row(allow: &'static str, people: &'static str, jobs: &'static str) -> Row {
    Row { allow, keys: "", method: "GET", people, jobs, refusals: [FORBIDDEN; 3] }
}

impl Row {
    const fn with(self, keys: &'static str) -> Self {
        Self { keys, ..self }
    }

    const fn asked_by(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    const fn but(self, by: By, refusal: &'static str) -> Self {
        let mut refusals = self.refusals;
        refusals[by as usize] = refusal;
        Self { refusals, ..self }
    }

    /// The code of the refusal that is to be read there.
    pub fn refusal(&self, by: By) -> &'static str {
        self.refusals[by as usize]
    }

    /// Whether `who` is to pass.
    pub fn admits(&self, who: &str, by: By) -> bool {
        self.refusal(by) == FORBIDDEN && self.lists(by).any(|list| is_in(who, list))
    }

    /// Which rules are to hold for `who`; none where a word decides, or where nobody is looked at.
    pub fn holding(&self, who: &str, by: By) -> Vec<bool> {
        let unseen = ["sign_in_required", "method_not_allowed"].contains(&self.refusal(by));
        match unseen || !self.allow.starts_with('[') {
            true => Vec::new(),
            false => self.lists(by).map(|list| is_in(who, list)).collect(),
        }
    }

    fn lists(&self, by: By) -> impl Iterator<Item = &'static str> {
        if by == By::Job { self.jobs } else { self.people }.split('|')
    }
}

fn is_in(who: &str, list: &str) -> bool {
    list.split_whitespace().any(|name| name == who)
}

/// The route `/p/NUMBER` for each, with the people and the jobs who fulfil its rules.
pub const TABLE: [Row; 74] = [
    row(r#""public""#, EVERYBODY, EVERY_JOB),
    row(r#""signed-in""#, EVERYBODY, ""),
    row(r#"[{ user = "ALICE" }]"#, "alice", ""),
    row(r#"[{ user = "acme" }]"#, "acme", ""),
    row(r#"[{ user = "ali" }]"#, "", ""),
    row(r#"[{ email = "Erin@corp.test" }]"#, "erin", ""),
    row(r#"[{ email = "carol@example.com" }]"#, "", ""),
    row(r#"[{ email_domain = "example.com" }]"#, "root alice bob", ""),
    row(r#"[{ email_domain = "corp.test" }]"#, "erin frank acme", ""),
    row(r#"[{ email_domain = "test" }]"#, "", ""),
    row(r#"[{ users_file = "USERS_FILE" }]"#, "alice frank", ""),
    row(r#"[{ users_file = "USERS_FILE", group = "acme/ops", role = "planner" }]"#, "alice", ""),
    // Groups: direct and inherited; a project's member is none of its group's, and seeing is not being in.
    row(r#"[{ group = "acme" }]"#, "root alice bob", ""),
    row(r#"[{ group = "ACME/Ops" }]"#, "root alice bob frank heidi", ""),
    row(r#"[{ group = "acme/web" }]"#, "root alice bob ivan", ""),
    row(r#"[{ group = "acme-evil" }]"#, "grace", ""),
    row(r#"[{ group = "open" }]"#, "", ""),
    row(r#"[{ group = "hall" }]"#, "", ""),
    row(r#"[{ group = "acme", role = "guest" }]"#, "root alice bob", ""),
    row(r#"[{ group = "acme", role = "developer" }]"#, "root alice bob", ""),
    row(r#"[{ group = "acme", role = "maintainer" }]"#, "root", ""),
    row(r#"[{ group = "acme", role = "owner" }]"#, "root", ""),
    row(r#"[{ group = "acme/ops", role = "guest" }]"#, "root alice bob frank heidi", ""),
    row(r#"[{ group = "acme/ops", role = "planner" }]"#, "root alice bob heidi", ""),
    row(r#"[{ group = "acme/ops", role = "reporter" }]"#, "root alice bob", ""),
    row(r#"[{ group = "acme/ops", role = "maintainer" }]"#, "root alice", ""),
    row(r#"[{ group = "acme/web", role = "planner" }]"#, "root alice bob ivan", ""),
    row(r#"[{ group = "acme/web", role = "reporter" }]"#, "root alice bob ivan", ""),
    row(r#"[{ group = "acme/web", role = "developer" }]"#, "root alice bob", ""),
    row(r#"[{ group = "acme/web", role = "maintainer" }]"#, "root bob", ""),
    row(r#"[{ group = "open", role = "guest" }]"#, "", ""),
    row(r#"[{ group = "hall", role = "guest" }]"#, "", ""),
    // Projects: their own members, and those of the groups around them.
    row(r#"[{ project = "acme/web/shop" }]"#, "root alice bob carol erin ivan", ""),
    row(r#"[{ project = "acme/web/shop", role = "guest" }]"#, "root alice bob carol erin ivan", ""),
    row(r#"[{ project = "acme/web/shop", role = "planner" }]"#, "root alice bob carol ivan", ""),
    row(r#"[{ project = "acme/WEB/shop", role = "reporter" }]"#, "root alice bob carol ivan", ""),
    row(r#"[{ project = "acme/web/shop", role = "developer" }]"#, "root alice bob", ""),
    row(r#"[{ project = "acme/web/shop", role = "owner" }]"#, "root", ""),
    row(r#"[{ project = "acme/ops/runbooks" }]"#, "root alice bob frank heidi", ""),
    row(r#"[{ project = "acme/ops/runbooks", role = "planner" }]"#, "root alice bob heidi", ""),
    row(r#"[{ project = "acme/ops/runbooks", role = "maintainer" }]"#, "root alice", ""),
    row(r#"[{ project = "club/shop" }]"#, "", ""),
    row(r#"[{ project = "open/handbook" }]"#, "", ""),
    row(r#"[{ project = "acme-evil/shop", role = "owner" }]"#, "grace", ""),
    // The account itself, and keys together.
    row("[{ two_factor = true }]", "alice erin acme", ""),
    row("[{ two_factor = false }]", "root bob carol frank grace heidi ivan", ""),
    row("[{ external = true }]", "carol acme", ""),
    row("[{ external = false }]", "root alice bob erin frank grace heidi ivan", ""),
    row(r#"[{ group = "acme", two_factor = true }]"#, "alice", ""),
    row(
        r#"[{ project = "acme/web/shop", external = false, two_factor = true }]"#,
        "alice erin",
        "",
    ),
    row(
        r#"[{ group = "acme/ops", project = "acme/web/shop", role = "developer" }]"#,
        "root alice bob",
        "",
    ),
    row(r#"[{ user = "carol", group = "acme" }, { user = "bob", external = true }]"#, " | ", " | "),
    row(
        r#"[{ user = "frank" }, { email_domain = "corp.test", two_factor = true }, { group = "acme", role = "owner" }]"#,
        "frank | erin acme | root",
        " | | ",
    ),
    row(r#"[{ group = "acme" }, { user = "bob" }]"#, "root alice bob | bob", " | "),
    // Those of CI jobs, which no user fulfils.
    row(r#"[{ ci_project = "ACME/web/shop" }]"#, "", SHOPS),
    row(r#"[{ ci_project = "acme/web" }]"#, "", ""),
    row(r#"[{ ci_namespace = "acme/web" }]"#, "", SHOPS),
    row(r#"[{ ci_namespace = "acme" }]"#, "", ""),
    row(r#"[{ ref = "main" }]"#, "", "main nightly handbook"),
    row(r#"[{ ref = "release/*" }]"#, "", "release"),
    row(r#"[{ ref = "refs/tags/v*" }]"#, "", "v1"),
    row("[{ ref_protected = true }]", "", "main tag v1 nightly handbook"),
    row("[{ ref_protected = false }]", "", "release"),
    row(r#"[{ environment = "production" }]"#, "", "nightly"),
    row(r#"[{ pipeline_source = "schedule" }]"#, "", "nightly"),
    row(
        r#"[{ ci_project = "acme/web/shop", ref = "main", ref_protected = true, environment = "production" }]"#,
        "",
        "nightly",
    ),
    row(r#"[{ ci_project = "acme/web/shop", user = "bob" }]"#, "", ""),
    row(
        r#"[{ ci_project = "acme/web/shop", environment = "staging" }, { user = "alice" }, { ci_namespace = "open" }]"#,
        " | alice | ",
        "v1 | | handbook",
    ),
    // Keys of the route beside its rules.
    row(r#"[{ user = "bob" }, { ci_namespace = "open" }]"#, "bob | ", " | handbook")
        .with("gitlab = [\"main\"]\nmethods = [\"POST\", \"PUT\"]")
        .asked_by("POST"),
    row(r#"[{ user = "bob" }, { ref = "main" }]"#, "", "")
        .with("methods = [\"POST\", \"PUT\"]")
        .but(By::Browser, "method_not_allowed")
        .but(By::Token, "method_not_allowed")
        .but(By::Job, "method_not_allowed"),
    // Nobody of the other GitLab is here, and it takes no tokens.
    row(r#""signed-in""#, "", "")
        .with("gitlab = [\"other\"]")
        .but(By::Token, "sign_in_required")
        .but(By::Job, "sign_in_required"),
    row(r#"[{ user = "bob" }, { ref = "main" }]"#, "bob | ", " | main nightly handbook")
        .with("tokens = [\"personal\"]")
        .but(By::Job, "token_kind"),
    row(r#"[{ user = "bob" }, { ref = "main" }]"#, "bob | ", " | main nightly handbook")
        .with("tokens = [\"project\", \"ci\"]")
        .but(By::Token, "token_kind"),
    row(r#"[{ user = "bob" }, { ref = "main" }]"#, "bob | ", " | main nightly handbook")
        .with("tokens = []")
        .but(By::Token, "sign_in_required")
        .but(By::Job, "sign_in_required"),
];

/// The table as routes, and one to sign in at.
pub fn routes(users_file: &str) -> String {
    let route = |(number, row): (usize, &Row)| {
        let Row { keys, allow, .. } = row;
        format!(
            "[[route]]\npath = \"/p/{number}\"\nupstream = \"UPSTREAM\"\n{keys}\nallow = {allow}\n"
        )
    };
    let private = "[[route]]\npath = \"/private\"\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n\
         [[route]]\npath = \"/post\"\nmethods = [\"POST\"]\nupstream = \"UPSTREAM\"\nallow = \"public\"\n";
    let routes: String = TABLE.iter().enumerate().map(route).chain([private.to_owned()]).collect();
    routes.replace("USERS_FILE", users_file)
}

/// The other GitLab.
pub const OTHER: &str =
    "[gitlab.other]\nbase_url = \"GITLAB\"\nclient_id = \"x\"\nclient_secret = \"y\"\n";

/// The users file: a name, an address, and one that is not verified.
pub const USERS: &str = "# who may\nALICE\nfrank@corp.test\ncarol@example.com\n";

/// The route with these rules.
pub fn at(allow: &str) -> String {
    let number = TABLE.iter().position(|row| row.allow == allow).expect("a row");
    format!("/p/{number}")
}

/// Makes those people and places that the development GitLab does not begin with.
pub fn furnish(gitlab: &DevGitlab) {
    let tell = |command| gitlab.command(command).expect("carried out");
    for (username, email) in [
        ("erin", "erin@corp.test"),
        ("frank", "frank@corp.test"),
        ("grace", "grace@acme"),
        ("acme", "acme@corp.test"),
        ("heidi", "heidi@else.test"),
        ("ivan", "ivan@else.test"),
    ] {
        tell(Command::AddUser { username: username.into(), email: Some(email.into()), bot: false });
    }
    for (path, visibility) in [("acme-evil", Visibility::Private), ("hall", Visibility::Internal)] {
        tell(Command::AddGroup { path: path.into(), visibility });
    }
    let (path, visibility) = ("acme-evil/shop".into(), Visibility::Private);
    tell(Command::AddProject { path, visibility });
    for (group, user, role) in [
        ("acme/ops", "frank", Role::Guest),
        ("acme/ops", "heidi", Role::Planner),
        ("acme/web", "ivan", Role::Reporter),
        ("acme-evil", "grace", Role::Owner),
    ] {
        gitlab.set_role(group, user, Some(role)).expect("a group");
    }
    let (project, user, role) = ("acme/web/shop".into(), "erin".into(), Some(Role::Guest));
    tell(Command::SetProjectRole { project, user, role });
    for (user, external) in [("erin", false), ("acme", true)] {
        let (user, two_factor) = (user.into(), Some(true));
        tell(Command::SetFlags { user, admin: None, external: Some(external), two_factor });
    }
}

#[test]
fn it_speaks_of_those_who_exist_and_says_yes_and_no_to_each() {
    let people = PEOPLE.map(|(name, _)| name);
    let jobs = JOBS.map(|(name, ..)| name);
    for (column, known) in [
        (TABLE.map(|row| row.people), people.as_slice()),
        (TABLE.map(|row| row.jobs), jobs.as_slice()),
    ] {
        for name in column.iter().flat_map(|lists| lists.split(['|', ' '])) {
            assert!(name.is_empty() || known.contains(&name), "{name}");
        }
        for name in known {
            let admitted = column.iter().filter(|lists| lists.contains(name)).count();
            assert!((3..TABLE.len() - 3).contains(&admitted), "{name}: {admitted}");
        }
    }
}

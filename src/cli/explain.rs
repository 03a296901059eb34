//! `labgate explain`: which route and which rule somebody would meet at a URL, and why; only `--online` asks the network.
//!
//! The verdict is that of the running proxy, for it comes from the same route table and the same guard. Who somebody is and what they hold is
//! what the arguments say, or what GitLab says to the operator's own token; without it, roles in a group count in what lies below it, as at GitLab, and all that rules name is taken to exist.

use std::{fmt::Write, path::PathBuf, process::ExitCode, str::FromStr};

use anyhow::{Context, anyhow};
use clap::Args;
use http::Method;
use serde::Serialize;

use super::{Environment, MISTAKE, ci_claims, print, run::background, say, sketched};
use crate::{
    authorize::{Finding, Verdict},
    config::{self, AccessLevel, Config, GroupPath, ProjectPath},
    gate::{Ending, Explanation, Plan},
    gitlab::LookedUp,
    identity::{Identity, Membership, ProjectMembership},
    refusal::Refusal,
};

/// What is asked for, and by whom.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch that people type")]
pub(super) struct Arguments {
    /// What is asked for: a URL, or a path at the public URL.
    #[arg(long, value_name = "URL")]
    url: String,
    /// Who asks, by GitLab username; without it, nobody who is signed in.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Their verified e-mail address.
    #[arg(long, value_name = "ADDRESS", requires = "user")]
    email: Option<String>,
    /// A group that they are a member of, with their role there; `minimal` unless said. May be repeated.
    #[arg(long, value_name = "PATH=ROLE", requires = "user")]
    group: Vec<Held>,
    /// A project that they are a member of, with their role there; `minimal` unless said. May be repeated.
    #[arg(long, value_name = "PATH=ROLE", requires = "user")]
    project: Vec<Held>,
    /// They have a second factor set up.
    #[arg(long, requires = "user")]
    two_factor: bool,
    /// They are an external user.
    #[arg(long, requires = "user")]
    external: bool,
    /// A claim of the ID token of the CI job that asks, such as `project_path=acme/web/shop`; that one is needed. May be repeated.
    #[arg(
        long,
        value_name = "CLAIM=VALUE",
        conflicts_with_all = ["user", "email", "group", "project", "two_factor", "external", "online"]
    )]
    ci: Vec<ci_claims::Claim>,
    /// The GitLab that they come from, by the name of its table; needed if there are several.
    #[arg(long, value_name = "NAME")]
    gitlab: Option<String>,
    /// Ask GitLab what they hold, with the token in `LABGATE_GITLAB_TOKEN`, which needs the scope `read_api`; only an administrator's sees their address
    /// and flags.
    #[arg(
        long,
        requires = "user",
        conflicts_with_all = ["email", "group", "project", "two_factor", "external"]
    )]
    online: bool,
    /// The method of the request.
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: Method,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// A place and the role held there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    path: String,
    level: AccessLevel,
}

impl FromStr for Held {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, role) = text.split_once('=').unwrap_or((text, "minimal"));
        let path = String::from(GroupPath::try_from(path.to_owned())?);
        Ok(Self { path, level: role.parse()? })
    }
}

/// Ends with 0 if the request would pass, with 1 if not, with 2 if it can't be told.
pub(super) fn run(
    arguments: &Arguments,
    path: Option<PathBuf>,
    env: &Environment,
) -> anyhow::Result<ExitCode> {
    let plan = match sketched(path, env) {
        Ok(plan) => plan,
        Err(code) => return Ok(code),
    };
    let who = match arguments.online {
        true => match looked_up(arguments, &plan, env) {
            Err(Missed::Mistake(mistake)) => Err(mistake),
            Err(Missed::Failure(failure)) => return Err(failure),
            Ok(identity) => Ok(Some(identity)),
        },
        false => identity(arguments, &plan.config),
    };
    let told = who.and_then(|identity| {
        let told = plan.explain(&arguments.url, &arguments.method, identity.as_ref());
        told.map(|told| (identity, told)).map_err(|error| error.to_string())
    });
    let (identity, told) = match told {
        Ok(told) => told,
        Err(mistake) => {
            say(&format!("labgate: error: {mistake}\n"));
            return Ok(ExitCode::from(MISTAKE));
        },
    };
    let report = Report::new(arguments, identity.as_ref(), &told);
    match arguments.json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?,
        false => print(&report.text(&told)?)?,
    }
    Ok(if report.passes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Who asks, with all that rules could look at.
fn identity(arguments: &Arguments, config: &Config) -> Result<Option<Identity>, String> {
    if arguments.user.is_none() && arguments.ci.is_empty() {
        return Ok(None);
    }
    let (gitlab, table) = gitlab(arguments, config)?;
    let Some(user) = &arguments.user else {
        let issuer = table.base_url.as_str().trim_end_matches('/');
        return ci_claims::identity(&arguments.ci, gitlab, issuer).map(Some);
    };
    let membership = |Held { path, level }: &Held| Membership { path: path.clone(), level: *level };
    let mut identity = Identity {
        gitlab: gitlab.into(),
        issuer: table.base_url.as_str().trim_end_matches('/').into(),
        username: user.clone(),
        email: arguments.email.clone(),
        groups: arguments.group.iter().map(membership).collect(),
        two_factor: Some(arguments.two_factor),
        external: Some(arguments.external),
        ..Identity::default()
    };
    identity.projects =
        projects(config).map(|path| in_project(path, arguments, &identity)).collect();
    Ok(Some(identity.inheriting(groups(config))))
}

/// The GitLab that they come from.
fn gitlab<'a>(
    arguments: &'a Arguments,
    config: &'a Config,
) -> Result<(&'a str, &'a config::GitLab), String> {
    let known: Vec<_> = config.gitlab.keys().map(String::as_str).collect();
    let name = match (&arguments.gitlab, known.as_slice()) {
        (Some(name), _) => name,
        (None, [only]) => *only,
        (None, _) => return Err(format!("say which GitLab with --gitlab: {}", known.join(", "))),
    };
    let table = config.gitlab.get(name);
    table.map(|table| (name, table)).ok_or_else(|| format!("there is no `[gitlab.{name}]`"))
}

/// Why GitLab did not tell who asks.
enum Missed {
    /// Not asked: the arguments or the environment don't say what it takes.
    Mistake(String),
    /// It was asked in vain.
    Failure(anyhow::Error),
}

/// Who asks, as GitLab says.
fn looked_up(arguments: &Arguments, plan: &Plan, env: &Environment) -> Result<Identity, Missed> {
    let user = arguments.user.as_deref().unwrap_or_default();
    let (name, _) = gitlab(arguments, &plan.config).map_err(Missed::Mistake)?;
    let token = env.get(TOKEN).map(|token| token.trim()).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| {
        Missed::Mistake(format!("--online needs a token with the scope read_api in {TOKEN}"))
    })?;
    let ask = || -> anyhow::Result<Option<LookedUp>> {
        let provider = plan.provider(name, &|name| env.get(name).cloned())?;
        let answer = background()?.block_on(provider.look_up(token, user));
        answer.with_context(|| format!("gitlab.{name} does not tell of {user}"))
    };
    let found = ask().map_err(Missed::Failure)?;
    let LookedUp { identity, unseen, shared } =
        found.ok_or_else(|| Missed::Failure(anyhow!("gitlab.{name} knows no user {user}")))?;
    if !unseen.is_empty() {
        let unseen = unseen.join(", ");
        say(&format!(
            "labgate: the token's owner sees nothing of these, so they are not counted: {unseen}\n"
        ));
    }
    if !shared.is_empty() {
        let shared = shared.join(", ");
        say(&format!(
            "labgate: {user} reaches these by sharing alone, which counts only where sign-ins ask for read_api: {shared}\n"
        ));
    }
    Ok(identity)
}

/// Holds the token that `--online` asks with.
const TOKEN: &str = "LABGATE_GITLAB_TOKEN";

/// Every group that a rule mentions.
fn groups(config: &Config) -> impl Iterator<Item = &GroupPath> {
    let rules = config.route.iter().filter_map(|route| route.allow.as_ref()?.rules());
    rules.flatten().filter_map(|rule| rule.group.as_ref())
}

/// Every project that a rule mentions.
fn projects(config: &Config) -> impl Iterator<Item = &ProjectPath> {
    let rules = config.route.iter().filter_map(|route| route.allow.as_ref()?.rules());
    rules.flatten().filter_map(|rule| rule.project.as_ref())
}

/// The effective role in the project: what is said of it, or of a group around it.
fn in_project(project: &ProjectPath, arguments: &Arguments, who: &Identity) -> ProjectMembership {
    let own = arguments.project.iter().filter(|held| project.is(&held.path)).map(|held| held.level);
    let namespace = project.as_str().rsplit_once('/').map(|(namespace, _)| namespace.to_owned());
    let namespace = namespace.and_then(|path| GroupPath::try_from(path).ok());
    let inherited = namespace.and_then(|group| who.inheriting([&group]).level_in(&group));
    ProjectMembership { path: project.as_str().into(), level: own.max().max(inherited) }
}

/// What is told, as JSON has it.
#[derive(Serialize)]
struct Report<'a> {
    url: &'a str,
    method: &'a str,
    user: Option<&'a str>,
    gitlab: Option<&'a str>,
    /// `browser` or `ci`; of a CI job `user` is its project.
    kind: Option<&'static str>,
    passes: bool,
    /// `passes`, `own`, `sign_in`, or the code of the refusal.
    verdict: &'static str,
    route: Option<Route<'a>>,
    rules: Vec<Rule<'a>>,
    /// Why the token of a CI job does not count there.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    in_the_way: &'a [String],
}

#[derive(Serialize)]
struct Route<'a> {
    index: usize,
    name: &'a str,
    upstream: Option<&'a str>,
}

#[derive(Serialize)]
struct Rule<'a> {
    holds: bool,
    conditions: Vec<Condition<'a>>,
}

#[derive(Serialize)]
struct Condition<'a> {
    needed: &'a str,
    held: &'a str,
    holds: bool,
}

impl<'a> Report<'a> {
    fn new(arguments: &'a Arguments, who: Option<&'a Identity>, told: &'a Explanation) -> Self {
        let route = told.route.as_ref();
        Self {
            url: &arguments.url,
            method: arguments.method.as_str(),
            user: who.map(|who| who.username.as_str()),
            gitlab: who.map(|who| who.gitlab.as_str()),
            kind: who.map(|who| who.kind.as_str()),
            passes: matches!(told.ending, Ending::Passes | Ending::Own),
            verdict: match &told.ending {
                Ending::Passes => "passes",
                Ending::Own => "own",
                Ending::SignIn => "sign_in",
                Ending::Forbidden(_) => "forbidden",
                Ending::Refused(refusal) => refusal.code(),
            },
            route: route.map(|route| Route {
                index: route.index,
                name: &route.name,
                upstream: route.upstream.as_deref(),
            }),
            rules: route
                .map(|route| route.rules.iter().map(Rule::from).collect())
                .unwrap_or_default(),
            in_the_way: &told.in_the_way,
        }
    }

    /// The same for people.
    fn text(&self, told: &Explanation) -> anyhow::Result<String> {
        let mut text = format!("{} {}\n", self.method, self.url);
        match (self.user, self.gitlab) {
            (Some(project), Some(gitlab)) if self.kind == Some("ci") => {
                writeln!(text, "asked by a CI job of {project} of {gitlab}")?;
            },
            (Some(user), Some(gitlab)) => writeln!(text, "asked by {user} of {gitlab}")?,
            _ => writeln!(text, "asked by nobody who is signed in")?,
        }
        match &self.route {
            Some(Route { index, name, upstream }) => {
                let leads = upstream.map_or_else(
                    || "is only asked about by front proxies".to_owned(),
                    |upstream| format!("leads to {upstream}"),
                );
                writeln!(text, "route[{index}] {name} {leads}")?;
            },
            None => writeln!(text, "no route is asked")?,
        }
        for (index, rule) in self.rules.iter().enumerate() {
            writeln!(
                text,
                "  allow[{index}] {}",
                if rule.holds { "holds" } else { "does not hold" }
            )?;
            for Condition { needed, held, holds } in &rule.conditions {
                let sign = if *holds { '+' } else { '-' };
                writeln!(text, "    {sign} needed: {needed}; there is: {held}")?;
            }
        }
        text.push_str(match &told.ending {
            Ending::Passes => "It passes.\n",
            Ending::Own => "It is one of labgate's own paths.\n",
            Ending::SignIn if !self.in_the_way.is_empty() => {
                "No CI job's token counts here, so it is refused as nobody who is signed in.\n"
            },
            Ending::SignIn => "It must sign in first.\n",
            Ending::Forbidden(_) => "It is refused.\n",
            Ending::Refused(Refusal::Token(_)) => "Its token does not count here: ",
            Ending::Refused(_) => "It is refused before anybody is asked for: ",
        });
        if let Ending::Refused(refusal) = &told.ending {
            writeln!(text, "{} ({})", refusal.code(), refusal.status().as_u16())?;
        }
        for lack in self.in_the_way {
            writeln!(text, "  in the way: {lack}")?;
        }
        if let (Ending::Forbidden(unmet), true) = (&told.ending, self.rules.is_empty()) {
            // No rule was asked: the route is for users of another GitLab.
            for rule in unmet {
                writeln!(text, "  needed: {}; there is: {}", rule.needed, rule.held)?;
            }
        }
        Ok(text)
    }
}

impl<'a> From<&'a Vec<Finding>> for Rule<'a> {
    fn from(rule: &'a Vec<Finding>) -> Self {
        let condition = |Finding { needed, held, verdict }: &'a Finding| Condition {
            needed,
            held,
            holds: *verdict == Verdict::Holds,
        };
        let conditions: Vec<_> = rule.iter().map(condition).collect();
        Self { holds: conditions.iter().all(|condition| condition.holds), conditions }
    }
}

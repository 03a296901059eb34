//! Every cell of the table: what the running proxy does is what is expected there, and what `explain` says, with the same reasons.

use std::path::{Path, PathBuf};

use http::Method;
use labgate::demo::gitlab::{Command, DevGitlab};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    explain,
    table::{By, FORBIDDEN, JOBS, OTHER, PEOPLE, Row, TABLE, USERS, at, furnish, routes},
};
use crate::{
    support::{Answer, Browser, HOST, Lab, Setup, labgate, outcome, send},
    tokens::{ALL, code},
};

/// The lab of the table, and its configuration as a file.
pub struct Site {
    pub lab: Lab,
    pub config: PathBuf,
    _folder: TempDir,
}

impl Site {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("users.txt"), USERS).expect("written");
        let routes = routes(file("users.txt").to_str().expect("text"));
        let lab = Setup::default().gitlab(ALL).routes(&routes).more(OTHER).start().await;
        furnish(&lab.gitlab);
        let config = file("labgate.toml");
        std::fs::write(&config, &lab.config).expect("written");
        Self { lab, config, _folder: folder }
    }

    /// A browser in which `user` is signed in.
    pub async fn signed_in(&self, user: &str) -> Browser {
        let mut browser = self.lab.browser();
        let start = browser.open("/oauth2/start?gitlab=main&rd=%2Fprivate").await;
        assert_eq!(browser.finish_sign_in(start, user).await.status, 200, "{user}");
        browser
    }
}

/// What somebody met in the running proxy.
struct Met {
    passed: bool,
    answer: Answer,
}

impl Met {
    /// `passes`, or the code of the refusal.
    fn verdict(&self) -> String {
        if self.passed { "passes".into() } else { code(&self.answer) }
    }

    /// What each rule needed and what there was, of a refusal by the rules.
    fn reasons(&self) -> Vec<Reason> {
        let document = self.answer.json();
        let rules = document["rules"].as_array().cloned().unwrap_or_default();
        rules.iter().map(|rule| (text(rule, "needed"), text(rule, "held"))).collect()
    }
}

/// What was needed, and what there was.
type Reason = (String, String);

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().expect("text").to_owned()
}

/// What `explain` tells.
struct Told {
    ended: i32,
    report: Value,
    /// The same for people.
    words: String,
}

impl Told {
    fn of(config: &Path, number: usize, facts: &[&str]) -> Self {
        let url = format!("https://{HOST}/p/{number}");
        let method = TABLE[number].method;
        let asked = [&["--url", &url, "--method", method, "--gitlab", "main"], facts].concat();
        let (ended, out, err) = explain(config, &[&asked[..], &["--json"]].concat());
        let report: Value =
            serde_json::from_str(&out).unwrap_or_else(|error| panic!("{facts:?}: {error}: {err}"));
        // People are told more only where no rule was asked.
        let words = match report["rules"].as_array().is_some_and(Vec::is_empty) {
            true => explain(config, &asked).1,
            false => String::new(),
        };
        Self { ended, report, words }
    }

    fn verdict(&self) -> String {
        match text(&self.report, "verdict").as_str() {
            "sign_in" => "sign_in_required".into(),
            verdict => verdict.into(),
        }
    }

    /// Which rules hold.
    fn holding(&self) -> Vec<bool> {
        let rules = self.report["rules"].as_array().expect("rules");
        rules.iter().map(|rule| rule["holds"].as_bool().expect("yes or no")).collect()
    }

    /// What each rule needs, and what there is in place of what does not hold: as the refusal says it.
    fn reasons(&self) -> Vec<Reason> {
        let reason = |rule: &Value| {
            let conditions = rule["conditions"].as_array().expect("conditions");
            let needed: Vec<_> = conditions.iter().map(|key| text(key, "needed")).collect();
            let failing = conditions.iter().filter(|condition| condition["holds"] == false);
            let held: Vec<_> = failing.map(|condition| text(condition, "held")).collect();
            (needed.join(", and "), held.join(", and "))
        };
        self.report["rules"].as_array().expect("rules").iter().map(reason).collect()
    }

    /// It says of a cell what is expected there.
    fn is_as_expected(&self, row: &Row, number: usize, who: &str, by: By) {
        let cell = format!("{who} at {}: {}", row.allow, self.report);
        let passes = row.admits(who, by);
        assert_eq!(self.verdict(), verdict(row, who, by), "{cell}");
        assert_eq!((self.ended, &self.report["passes"]), (i32::from(!passes), &passes.into()));
        assert_eq!(self.holding(), row.holding(who, by), "{cell}");
        if row.refusal(by) != "method_not_allowed" {
            assert_eq!(self.report["route"]["index"], number, "{cell}");
        }
    }

    /// The same of somebody who asks by `by`: in a browser they are signed in, a token is only theirs.
    fn as_seen(&self, by: By, person: &str) -> Vec<Reason> {
        let reasons = self.reasons();
        match by {
            By::Browser | By::Job => reasons,
            By::Token => {
                let seen = |held: String| {
                    held.replace(&format!("signed in as {person}"), &format!("a token of {person}"))
                };
                reasons.into_iter().map(|(needed, held)| (needed, seen(held))).collect()
            },
        }
    }

    /// `met` was refused for the reasons that are told here.
    fn is_the_reason(&self, met: &Met, who: &str, by: By) {
        let cell = format!("{by:?} of {who}: {}", self.report);
        let reasons = met.reasons();
        assert!(!reasons.is_empty(), "{cell}");
        if self.report["rules"].as_array().is_some_and(Vec::is_empty) {
            for (needed, held) in reasons {
                let line = format!("  needed: {needed}; there is: {held}\n");
                assert!(self.words.contains(&line), "{cell}: {line}{}", self.words);
            }
        } else {
            assert_eq!(reasons, self.as_seen(by, who), "{cell}");
        }
    }
}

/// What is to be met in a cell.
fn verdict(row: &Row, who: &str, by: By) -> &'static str {
    if row.admits(who, by) { "passes" } else { row.refusal(by) }
}

/// What is met by whoever sends these headers.
async fn with_token(lab: &Lab, number: usize, token: &str) -> Met {
    let request = http::Request::builder()
        .method(TABLE[number].method)
        .uri(format!("/p/{number}"))
        .header("host", HOST)
        .header("authorization", format!("Bearer {token}"));
    let before = lab.sample.hits();
    let answer = send(lab.app.addr(), request.body(String::new()).expect("a request")).await;
    Met { passed: lab.sample.hits() > before, answer }
}

async fn in_browser(lab: &Lab, number: usize, browser: &mut Browser) -> Met {
    let method: Method = TABLE[number].method.parse().expect("a method");
    let script = [("sec-fetch-mode", "cors"), ("sec-fetch-site", "same-origin"), ("accept", "*/*")];
    let before = lab.sample.hits();
    let answer = browser.request(method, &format!("/p/{number}"), &script, "").await;
    Met { passed: lab.sample.hits() > before, answer }
}

/// A token of theirs with which GitLab tells all.
fn token_of(gitlab: &DevGitlab, person: &str) -> String {
    let token = format!("glpat-table-{person}");
    let command = Command::AddPersonalToken {
        user: person.into(),
        token: token.clone(),
        scopes: vec!["read_api".into()],
        expires_at: None,
    };
    gitlab.command(command).expect("made");
    token
}

#[tokio::test(flavor = "multi_thread")]
async fn people_pass_where_they_should_and_are_told_why_where_not() {
    let site = Site::start().await;
    let lab = &site.lab;
    for (person, facts) in PEOPLE {
        let token = token_of(&lab.gitlab, person);
        let mut browser = site.signed_in(person).await;
        let facts = [&["--user", person], facts].concat();
        for (number, row) in TABLE.iter().enumerate() {
            let told = Told::of(&site.config, number, &facts);
            told.is_as_expected(row, number, person, By::Browser);
            let by_token = with_token(lab, number, &token).await;
            for (by, met) in
                [(By::Browser, in_browser(lab, number, &mut browser).await), (By::Token, by_token)]
            {
                let cell = format!("{by:?} of {person} at {}", row.allow);
                assert_eq!(met.verdict(), verdict(row, person, by), "{cell}");
                if met.verdict() == FORBIDDEN {
                    told.is_the_reason(&met, person, by);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_pass_where_they_should_and_are_told_why_where_not() {
    let site = Site::start().await;
    for (job, claims, told) in JOBS {
        let claims: Value = serde_json::from_str(claims).expect("JSON");
        let token = site.lab.gitlab.ci_id_token(claims.as_object().expect("an object"));
        let facts = facts_of(told);
        for (number, row) in TABLE.iter().enumerate() {
            let told = Told::of(&site.config, number, &facts);
            told.is_as_expected(row, number, job, By::Job);
            let met = with_token(&site.lab, number, &token).await;
            let cell = format!("the job {job} at {}: {}", row.allow, met.answer.text());
            assert_eq!(met.verdict(), verdict(row, job, By::Job), "{cell}");
            if met.verdict() == FORBIDDEN {
                told.is_the_reason(&met, job, By::Job);
            }
        }
    }
}

/// The usual job as `explain` is told of it, but for what `told` says otherwise.
fn facts_of(told: &[&'static str]) -> Vec<&'static str> {
    let usual =
        ["project_path=acme/web/shop", "ref=main", "ref_protected=true", "pipeline_source=push"];
    let name = |claim: &str| claim.split('=').next().expect("a name").to_owned();
    let usual =
        usual.into_iter().filter(|claim| told.iter().all(|other| name(other) != name(claim)));
    told.iter().copied().chain(usual).flat_map(|claim| ["--ci", claim]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn online_it_says_what_gitlab_knows() {
    let site = Site::start().await;
    let online = |row: &Row, url: &str, user: &str, token: &str| {
        let path = site.config.to_str().expect("text");
        let asked = ["explain", "--config", path, "--gitlab", "main", "--online", "--json"];
        let what = ["--method", row.method, "--url", url, "--user", user];
        let arguments = [&asked[..], &what[..]].concat();
        outcome(&mut labgate(&arguments, &[("LABGATE_GITLAB_TOKEN", token)]))
    };
    let (admin, usual) = ("glpat-dev-root", TABLE[0]);
    for person in ["root", "alice", "carol", "erin", "grace", "heidi"] {
        for (number, row) in TABLE.iter().enumerate().step_by(3) {
            let (code, out, err) = online(row, &format!("/p/{number}"), person, admin);
            let passes = row.admits(person, By::Browser);
            assert_eq!(code, i32::from(!passes), "{person} at {}: {out}{err}", row.allow);
        }
    }
    // Somebody who is no administrator sees less, and is told so.
    let url = at(r#"[{ group = "acme/ops", role = "maintainer" }]"#);
    let (code, _, err) = online(&usual, &url, "alice", "glpat-dev-carol");
    assert!(
        code == 1 && err.contains("sees nothing of these") && err.contains("acme/ops"),
        "{err}"
    );
    let url = at("[{ two_factor = true }]");
    let (code, out, _) = online(&usual, &url, "alice", "glpat-dev-bob");
    assert!(code == 1 && out.contains("GitLab has not said"), "{out}");
    for (user, token, ends, complaint) in [
        ("dave", admin, 1, "the account is blocked"),
        ("nobody", admin, 1, "knows no user nobody"),
        ("alice", "glpat-wrong", 1, "not valid any more"),
        ("alice", " ", 2, "LABGATE_GITLAB_TOKEN"),
    ] {
        let (code, out, err) = online(&usual, "/p/0", user, token);
        assert_eq!((code, out.as_str()), (ends, ""), "{user} {token}: {err}");
        assert!(err.contains(complaint) && !err.contains("glpat"), "{complaint}: {err}");
    }
}

//! Whole answers: every refusal in both languages, snapshots of pages, hostile values.

use std::{collections::BTreeSet, env, fs, path::Path, time::Duration};

use http::{Method, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;

use super::*;
use crate::{
    body::BoxError,
    refusal::{Attempt, Brought, Forbidden, HookTrouble, Lost, Place, Unmet, UpstreamTrouble},
};

const REQUEST_ID: &str = "0123456789abcdef0123456789abcdef";
const SWITCH: &str = "https://app.test/oauth2/start?rd=%2Fops&switch=1";
const SECRET: &str = "glpat-very-secret";

fn voice(html: bool) -> Voice<'static> {
    Voice { html, request_id: REQUEST_ID, prefix: "/oauth2", again: None, front: None }
}

fn secret_cause() -> BoxError {
    SECRET.into()
}

fn forbidden() -> Forbidden {
    Forbidden {
        username: "carol".into(),
        gitlab: "GitLab at Acme".into(),
        brought: Brought::Session { switch_url: SWITCH.into() },
        rules: vec![
            Unmet {
                needed: "at least Developer in the group acme/ops".into(),
                held: "Reporter in the group acme/ops".into(),
                places: vec![Place {
                    path: "acme/ops".into(),
                    members_url: "https://gitlab.test/groups/acme/ops/-/group_members".into(),
                }],
                ..Unmet::default()
            },
            Unmet { needed: "to be the user root".into(), ..Unmet::default() },
        ],
        hide_rules: false,
    }
}

fn attempts() -> Vec<Attempt> {
    let codes = [
        "access_denied",
        "invalid_request",
        "invalid_scope",
        "unauthorized_client",
        "unsupported_response_type",
        "login_required",
        "interaction_required",
        "account_selection_required",
        "consent_required",
        "server_error",
        "temporarily_unavailable",
        "unknown",
    ];
    let retry_after = Duration::from_secs(30);
    let source = secret_cause();
    let mut attempts = vec![
        Attempt::State,
        Attempt::Parameters("state"),
        Attempt::Denied,
        Attempt::CodeExpired(secret_cause()),
        Attempt::Account(secret_cause()),
        Attempt::Client(secret_cause()),
        Attempt::Answer(secret_cause()),
        Attempt::ClockSkew(secret_cause()),
        Attempt::Unavailable { retry_after, source },
        Attempt::UnknownGitLab,
        Attempt::Ticket(SECRET),
        Attempt::Unproven(secret_cause()),
    ];
    attempts.extend(Lost::ALL.map(Attempt::Lost));
    attempts.extend(Lost::ALL.map(Attempt::Loop));
    attempts.extend(codes.map(Attempt::Refused));
    attempts
}

fn unsent(url: &str) -> Refusal {
    Refusal::Unsent(SignIn { url: url.into(), navigation: false, basic: false })
}

/// One of each kind, but for redirects to sign in.
fn refusals() -> Vec<Refusal> {
    let sign_in = SignIn {
        url: "https://app.test/oauth2/start?rd=%2Freports".into(),
        navigation: false,
        basic: false,
    };
    let mut refusals = vec![
        Refusal::Malformed("two Host fields"),
        Refusal::Misdirected,
        Refusal::NotFound,
        Refusal::MethodNotAllowed(vec![Method::GET, Method::HEAD]),
        Refusal::SignIn(sign_in.clone()),
        Refusal::Unsent(sign_in),
        Refusal::Forbidden(Box::new(forbidden())),
        Refusal::Unconfirmed { gitlab: "main".into(), retry_after: Duration::ZERO },
        Refusal::Upstream(UpstreamTrouble::Unreachable(secret_cause())),
        Refusal::Upstream(UpstreamTrouble::Slow),
        Refusal::Upstream(UpstreamTrouble::Broken(secret_cause())),
        Refusal::Exhausted("connections"),
        Refusal::CrossSite,
        Refusal::Hook(HookTrouble::Token),
        Refusal::Hook(HookTrouble::Body("it is no JSON")),
        Refusal::Hook(HookTrouble::TooLarge),
        Refusal::Hook(HookTrouble::Slow),
        Refusal::Hook(HookTrouble::TooMany { retry_after: Duration::from_secs(3) }),
        Refusal::Internal(secret_cause()),
    ];
    refusals.extend(attempts().into_iter().map(Refusal::Attempt));
    refusals
}

async fn text(response: Response) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn assert_own_headers(response: &Response) {
    let headers = response.headers();
    assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert_eq!(headers[header::X_FRAME_OPTIONS], "DENY");
    assert!(headers.contains_key(header::REFERRER_POLICY));
    let vary = headers[header::VARY].to_str().unwrap();
    assert!(vary.contains("Cookie") && vary.contains("Accept"));
    let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    for directive in ["default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"] {
        assert!(policy.contains(directive), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains("script-src"), "{policy}");
}

#[tokio::test]
async fn every_refusal_is_a_page_with_words_and_request_id() {
    for refusal in refusals() {
        if matches!(refusal, Refusal::SignIn(_)) {
            continue;
        }
        let words = refusal.words();
        let response = refuse(&refusal, &voice(true));
        assert_eq!(response.status(), refusal.status(), "{refusal:?}");
        assert_own_headers(&response);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
        let page = text(response).await;
        for part in [words.title, &words.detail, words.advice, REQUEST_ID] {
            let escaped = part.replace('\'', "&#39;");
            assert!(!part.is_empty() && page.contains(&escaped), "{refusal:?} lacks {part:?}");
        }
        assert!(!page.contains(SECRET), "{refusal:?} tells its cause");
        assert_eq!(page.matches("<h1>").count(), 1);
        assert!(page.contains("<html lang=\"en\">") && page.contains("<main>"));
    }
}

#[tokio::test]
async fn every_refusal_is_a_problem_document() {
    for refusal in refusals() {
        let words = refusal.words();
        let response = refuse(&refusal, &voice(false));
        assert_eq!(response.status(), refusal.status(), "{refusal:?}");
        assert_own_headers(&response);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let body = text(response).await;
        assert!(!body.contains(SECRET), "{refusal:?} tells its cause");
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["type"], format!("urn:labgate:problem:{}", refusal.code()));
        assert_eq!(problem["status"], refusal.status().as_u16());
        assert_eq!(problem["title"], words.title);
        assert_eq!(problem["detail"], &*words.detail);
        assert_eq!(problem["request_id"], REQUEST_ID);
    }
}

#[test]
fn every_attempt_has_words_of_its_own() {
    let all = attempts();
    let told: BTreeSet<String> = all.iter().map(|attempt| format!("{attempt:?}")).collect();
    assert_eq!(told.len(), all.len());
    // The same thing by two names: a code that means Denied; three that mean a wrong registration; three that mean a sign-in at GitLab.
    let same = 1 + 2 + 2;
    let details: BTreeSet<String> =
        all.into_iter().map(|attempt| format!("{:?}", Refusal::Attempt(attempt).words())).collect();
    assert_eq!(details.len(), told.len() - same);
}

#[tokio::test]
async fn people_are_sent_to_sign_in_and_programs_are_told() {
    let url = "https://app.test/oauth2/start?rd=%2F".to_owned();
    let sign_in =
        |navigation| Refusal::SignIn(SignIn { url: url.clone(), navigation, basic: false });
    let response = refuse(&sign_in(true), &voice(true));
    assert_eq!(response.status(), StatusCode::FOUND);
    assert_eq!(response.headers()[header::LOCATION], url);
    assert_own_headers(&response);
    // A form that was posted, or a script: a page would help nobody.
    let response = refuse(&sign_in(false), &voice(true));
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer realm=\"labgate\"");
    assert!(!response.headers().contains_key(header::LOCATION));
    let problem: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(problem["sign_in"], url);
}

#[test]
fn header_fields_say_what_would_help() {
    let methods = Refusal::MethodNotAllowed(vec![Method::GET, Method::POST]);
    for html in [true, false] {
        let response = refuse(&methods, &voice(html));
        assert_eq!(response.headers()[header::ALLOW], "GET, POST");
        let response = refuse(&Refusal::Exhausted("tunnels"), &voice(html));
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
    }
    let soon =
        Refusal::Unconfirmed { gitlab: "main".into(), retry_after: Duration::from_millis(10) };
    assert_eq!(refuse(&soon, &voice(true)).headers()[header::RETRY_AFTER], "1");
    assert!(!refuse(&Refusal::NotFound, &voice(true)).headers().contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn a_failed_sign_in_starts_over_where_it_was_meant_to_lead() {
    let again = Voice { again: Some("/oauth2/start?rd=%2Freports&gitlab=main"), ..voice(true) };
    let page = text(refuse(&Attempt::State.into(), &again)).await;
    assert!(page.contains("href=\"/oauth2/start?rd=%2Freports&#38;gitlab=main\""), "{page}");
    let page = text(refuse(&Attempt::State.into(), &voice(true))).await;
    assert!(page.contains("href=\"/oauth2/sign_in\""));
    // Starting over does not mend what only an operator can.
    let page = text(refuse(&Attempt::Client(secret_cause()).into(), &again)).await;
    assert!(!page.contains("Start again") && page.contains("client_secret"));
}

#[tokio::test]
async fn a_refusal_in_json_names_needs_and_holdings() {
    let refusal = Refusal::Forbidden(Box::new(forbidden()));
    let problem: Value =
        serde_json::from_str(&text(refuse(&refusal, &voice(false))).await).unwrap();
    assert_eq!(problem["user"], "carol");
    assert_eq!(problem["sign_in"], SWITCH);
    assert_eq!(problem["rules"][0]["needed"], forbidden().rules[0].needed);
    assert_eq!(problem["rules"][0]["held"], forbidden().rules[0].held);
}

#[tokio::test]
async fn whoever_brings_a_token_is_offered_no_other_account() {
    let ways = [
        (Brought::Token { lacks: None }, "It is a token of carol at GitLab at Acme"),
        (Brought::Token { lacks: Some("read_api") }, "Without the scope read_api"),
        (Brought::Job { expected: true }, "for which no rule here holds"),
        (Brought::Job { expected: false }, "No rule here is for CI jobs"),
    ];
    for (brought, words) in ways {
        for hide_rules in [false, true] {
            let refused = Forbidden { brought: brought.clone(), hide_rules, ..forbidden() };
            let refusal = Refusal::Forbidden(Box::new(refused));
            // A page would be no use, even if it were asked for.
            let response = refuse(&refusal, &voice(true));
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
            let body = text(response).await;
            let problem: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((&problem["user"], problem.get("sign_in")), (&"carol".into(), None));
            let of_no_rule = hide_rules && words.contains("is for CI jobs");
            assert_eq!(body.contains(words), !of_no_rule, "{body}");
            assert_eq!(problem.get("rules").is_none(), hide_rules, "{body}");
            for other in ["igned in", "ign in", "someone else"] {
                assert!(!body.contains(other), "{body}");
            }
            assert!(!hide_rules || !body.contains("`rules`"), "{body}");
        }
    }
}

const HOSTILE: [&str; 7] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "</style><script>alert(1)</script>",
    "{{ 7 * 7 }}&lt;script&gt;",
    "javascript:alert(1)",
    "\u{202e}</bdi><svg onload=alert(1)>",
];

/// Fails if `page` has a tag, attribute or link that no template of ours wrote.
fn assert_harmless(page: &str) {
    for evil in ["<script", "<img", "<svg onload", "</style><s", "' onmouseover", "=\"javascript:"]
    {
        let shown = page.replace("name=\"rd\" value=\"javascript:", "");
        assert!(!shown.contains(evil), "{evil} in {page}");
    }
    assert_eq!(page.matches("<style>").count(), 1);
    assert_eq!(page.matches("</bdi>").count(), page.matches("<bdi>").count());
}

#[tokio::test]
async fn hostile_values_stay_text() {
    for hostile in HOSTILE {
        let voice = Voice {
            html: true,
            request_id: hostile,
            prefix: "/oauth2",
            again: Some(hostile),
            front: None,
        };
        let choices = [Choice { label: hostile.into(), url: hostile.into() }];
        let refusal = Refusal::Forbidden(Box::new(Forbidden {
            username: hostile.into(),
            gitlab: hostile.into(),
            brought: Brought::Session { switch_url: hostile.into() },
            rules: vec![Unmet {
                needed: hostile.into(),
                held: hostile.into(),
                places: vec![Place { path: hostile.into(), members_url: hostile.into() }],
                unknown: false,
            }],
            hide_rules: false,
        }));
        let ask = SignOut { username: Some(hostile), gitlab: Some(hostile), rd: hostile };
        let done = SignedOut { gitlab: Some((hostile, hostile)), rd: Some(hostile) };
        let pages = [
            sign_in_page(&choices, hostile, &voice),
            refuse(&refusal, &voice),
            refuse(&Attempt::State.into(), &voice),
            sign_out_page(&ask, &voice),
            signed_out_page(&done, &voice),
            signed_in_page(hostile, hostile, &voice),
            refuse(&unsent(hostile), &voice),
        ];
        for page in pages {
            assert_own_headers(&page);
            assert_harmless(&text(page).await);
        }
        // An error code comes from GitLab's answer, which anybody can write into a link.
        let refusal = Refusal::Attempt(Attempt::Refused(hostile));
        let page = text(refuse(&refusal, &self::voice(true))).await;
        assert!(!page.contains(hostile), "{page}");
    }
}

#[tokio::test]
async fn a_form_that_was_not_sent_is_answered_where_it_stays() {
    let url = "https://app.test/oauth2/sign_in?rd=%2Foauth2%2Fsigned_in";
    let response = refuse(&unsent(url), &voice(true));
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(!response.headers().contains_key(header::LOCATION));
    assert!(!response.headers().contains_key(header::REFRESH), "it would lose the form");
    let page = text(response).await;
    let links = page.matches(&format!("href=\"{url}\"")).count();
    assert!(
        links > 0 && page.matches("target=\"_blank\" rel=\"noopener\"").count() == links,
        "{page}"
    );
    let problem: Value =
        serde_json::from_str(&text(refuse(&unsent(url), &voice(false))).await).unwrap();
    assert_eq!(problem["sign_in"], url);
}

#[test]
fn hostile_addresses_become_no_header_and_no_policy() {
    for hostile in
        ["/a\r\nX: y", "https://evil.test;script-src *", "http://a b", "data:text/html,x"]
    {
        let ask = SignOut { username: Some("alice"), gitlab: None, rd: hostile };
        let response = sign_out_page(&ask, &voice(true));
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(!policy.contains("script-src") && !policy.contains("data:"), "{policy}");
        assert!(!response.headers().contains_key("x"));
    }
}

#[test]
fn only_the_page_with_a_form_may_send_one() {
    let ask =
        SignOut { username: Some("alice"), gitlab: None, rd: "https://other.test:8443/next?x=1" };
    let policy = |response: &Response| {
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        policy.to_owned()
    };
    let form = sign_out_page(&ask, &voice(true));
    assert!(policy(&form).contains("form-action 'self' https://other.test:8443;"));
    // The Origin of the form must not be `null`.
    assert_eq!(form.headers()[header::REFERRER_POLICY], "same-origin");
    let page = sign_in_page(&[], "", &voice(true));
    assert!(policy(&page).contains("form-action 'none';"));
    assert_eq!(page.headers()[header::REFERRER_POLICY], "no-referrer");
}

#[tokio::test]
async fn long_destinations_show_their_host_and_their_end() {
    let long = format!("app.test/{}/the-end", "x".repeat(500));
    let page = text(sign_in_page(&[], &long, &voice(true))).await;
    assert!(page.contains("app.test/xxx") && page.contains("the-end") && page.contains('…'));
    assert!(!page.contains(&"x".repeat(80)));
    let page = text(sign_in_page(&[], "app.test/a?token=secret#part", &voice(true))).await;
    assert!(page.contains("app.test/a<") && !page.contains("secret") && !page.contains("#part"));
}

/// Pages as they are; `BLESS=1` writes them anew.
#[tokio::test]
async fn pages_are_as_they_were() {
    let choices = [
        Choice {
            label: "GitLab at Acme".into(),
            url: "/oauth2/start?rd=%2Freports&gitlab=main".into(),
        },
        Choice { label: "gitlab.com".into(), url: "/oauth2/start?rd=%2Freports&gitlab=com".into() },
    ];
    let ask = SignOut { username: Some("alice"), gitlab: Some("GitLab at Acme"), rd: "/reports" };
    let done = SignedOut {
        gitlab: Some(("GitLab at Acme", "https://gitlab.acme.test/")),
        rd: Some("/reports"),
    };
    let voice = voice(true);
    let pages = [
        ("sign-in", sign_in_page(&choices, "app.test/reports", &voice)),
        ("refused", refuse(&Refusal::Forbidden(Box::new(forbidden())), &voice)),
        ("sign-out", sign_out_page(&ask, &voice)),
        ("signed-out", signed_out_page(&done, &voice)),
        ("signed-in", signed_in_page("alice", "GitLab at Acme", &voice)),
        (
            "unsent",
            refuse(&unsent("https://app.test/oauth2/sign_in?rd=%2Foauth2%2Fsigned_in"), &voice),
        ),
        ("error-loop", refuse(&Attempt::Loop(Lost::Cookies).into(), &voice)),
        ("error-frame", refuse(&Attempt::Lost(Lost::Frame).into(), &voice)),
        ("error-ticket", refuse(&Attempt::Ticket("late").into(), &voice)),
        ("error-state", refuse(&Attempt::State.into(), &voice)),
        ("error-upstream", refuse(&UpstreamTrouble::Unreachable(secret_cause()).into(), &voice)),
        ("error-client", refuse(&Attempt::Client(secret_cause()).into(), &voice)),
        ("error-busy", refuse(&Refusal::Exhausted("connections"), &voice)),
        ("error-not-found", refuse(&Refusal::NotFound, &voice)),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/pages");
    for (name, response) in pages {
        let page = text(response).await.replace(style::STYLE, "/* style.css */");
        let file = folder.join(format!("{name}.html"));
        if env::var_os("BLESS").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, &page).unwrap();
        }
        let known = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(page, known, "{name} has changed; if it should, run this test with BLESS=1");
    }
}

//! Who somebody is: what GitLab says of a person, in whatever shape, decides over rules and headers and nothing else.

use labgate::demo::gitlab::Document;
use serde_json::{Value, json};

use crate::support::{Browser, Lab, Setup};

#[tokio::test(flavor = "multi_thread")]
async fn an_address_counts_only_if_it_is_verified_and_of_that_very_domain() {
    let lab = lab("{ email_domain = \"corp.test\" }").await;
    for (email, verified, passes) in [
        ("a@corp.test", json!(true), true),
        ("a@CORP.test", json!(true), true),
        ("a@corp.test", json!(false), false),
        ("a@corp.test", json!("true"), false),
        ("a@corp.test", json!(1), false),
        ("a@corp.test", Value::Null, false),
        ("a@evil.test@corp.test", json!(true), false),
        ("a@corp.test@evil.test", json!(true), false),
        ("a@corp.test.evil.test", json!(true), false),
        ("a@evilcorp.test", json!(true), false),
        ("a@sub.corp.test", json!(true), false),
        ("\"a b\"@corp.test", json!(true), false),
        ("a@corp.test\n", json!(true), false),
        ("a@corp.test ", json!(true), false),
        ("a@c\u{43e}rp.test", json!(true), false),
        ("a@\u{ff43}orp.test", json!(true), false),
        ("@corp.test", json!(true), false),
        ("corp.test", json!(true), false),
        ("", json!(true), false),
    ] {
        lab.gitlab
            .overlay(Document::Userinfo, json!({ "email": email, "email_verified": verified }));
        let page = lab.browser().sign_in("/echo/ruled", "alice").await;
        assert_eq!(page.status == 200, passes, "{email:?} {verified}: {}", page.status);
        assert!(matches!(page.status, 200 | 403 | 502), "{email:?} {verified}: {}", page.status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_itself_and_nothing_that_looks_alike() {
    let lab = lab("{ group = \"team/inner\" }").await;
    for (groups, passes) in [
        (json!(["team/inner"]), true),
        // What is inherited from above GitLab lists by itself; and paths compare without case.
        (json!(["team", "team/inner"]), true),
        (json!(["team"]), false),
        (json!(["TEAM/Inner"]), true),
        (json!(["team/inner2"]), false),
        (json!(["team/inner/below"]), false),
        (json!(["x/team/inner"]), false),
        (json!(["team2"]), false),
        (json!(["tea"]), false),
        (json!(["team/"]), false),
        (json!([""]), false),
        (json!([]), false),
    ] {
        lab.gitlab.overlay(Document::Userinfo, only(&groups));
        let page = lab.browser().sign_in("/echo/ruled", "alice").await;
        assert_eq!(page.status, if passes { 200 } else { 403 }, "{groups}: {}", page.text());
    }
    // GitLab always sends the list; without one, something is wrong.
    for groups in [Value::Null, json!("team"), json!({ "team": 1 }), json!([["team"]]), json!([1])]
    {
        lab.gitlab.overlay(Document::Userinfo, only(&groups));
        let page = lab.browser().sign_in("/echo/ruled", "alice").await;
        assert!(matches!(page.status, 403 | 502), "{groups}: {}", page.status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_groups_stay_within_their_header_and_apart() {
    let lab = lab("{ user = \"alice\" }").await;
    let name = "Al\r\nX-Evil: 1\u{0}\u{1b}[31m Ä|%";
    lab.gitlab.overlay(Document::User, json!({ "name": name }));
    lab.gitlab.overlay(Document::Userinfo, only(&json!(["a,b", "c", "ü/e"])));
    let mut alice = lab.browser();
    alice.sign_in("/echo/ruled", "alice").await;
    let headers = headers(&mut alice).await;
    let value = |wanted: &str| {
        let mut values = headers.iter().filter(|(name, _)| name == wanted);
        (values.next().map(|(_, value)| value.as_str()), values.count())
    };
    assert_eq!(value("x-evil"), (None, 0));
    assert_eq!(value("x-name"), (Some("Al%0D%0AX-Evil: 1%00%1B[31m %C3%84|%25"), 0));
    let (groups, more) = value("x-groups");
    let groups: Vec<_> = groups.expect("groups").split(',').collect();
    assert_eq!(more, 0);
    assert!(groups.contains(&"a%2Cb") && groups.contains(&"c"), "{groups:?}");
    assert!(groups.iter().all(|group| group.is_ascii() && !group.contains(['\r', '\n'])));
    assert!(!groups.contains(&"a") && !groups.contains(&"b"), "{groups:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_username_that_is_none_signs_nobody_in_and_a_long_name_is_cut() {
    let lab = lab("{ user = \"alice\" }").await;
    for username in
        [json!(""), json!("al\r\nice"), json!("a".repeat(100_000)), json!(7), Value::Null]
    {
        lab.gitlab.overlay(Document::User, json!({ "username": username }));
        let mut browser = lab.browser();
        assert_eq!(browser.sign_in("/echo/ruled", "alice").await.status, 502);
        assert_eq!(browser.cookie_names(), [""; 0]);
    }
    lab.gitlab.overlay(Document::User, json!({ "name": "x".repeat(100_000) }));
    let mut alice = lab.browser();
    assert_eq!(alice.sign_in("/echo/ruled", "alice").await.status, 200);
    let headers = headers(&mut alice).await;
    let name = headers.iter().find(|(name, _)| name == "x-name").expect("a name");
    assert_eq!(name.1, "x".repeat(255));
}

/// A lab with a route for those for whom `rule` holds.
async fn lab(rule: &str) -> Lab {
    let routes = format!(
        "[[route]]\npath = \"/echo\"\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n\
         [[route]]\npath = \"/echo/ruled\"\nupstream = \"UPSTREAM\"\nallow = [{rule}]\n\
         [identity.headers]\nX-Name = \"name\"\nX-Groups = \"groups\"\n"
    );
    Setup::default().routes(&routes).start().await
}

/// Userinfo that speaks of these groups alone.
fn only(groups: &Value) -> Value {
    let role = |name: &str| format!("https://gitlab.org/claims/groups/{name}");
    json!({
        "groups": groups,
        role("owner"): null, role("maintainer"): null, role("developer"): null,
    })
}

async fn headers(browser: &mut Browser) -> Vec<(String, String)> {
    let echo = browser.xhr("/echo").await.json();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let pairs = echo["headers"].as_array().expect("pairs").iter();
    pairs.map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}

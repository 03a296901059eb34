//! Signing in: from the first request to the page that was wanted, with one GitLab or two, in several tabs, by way of every setting.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use labgate::demo::gitlab::{
    Application, CLIENT_ID, CLIENT_SECRET, Command, DevGitlab, Endpoint, Options,
};
use tokio::task::JoinSet;
use url::Url;

use crate::support::{Answer, Browser, Lab, Setup, keys};

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_signs_in_and_lands_where_they_wanted() {
    let lab = Lab::start().await;
    let mut browser = lab.browser();
    let page = browser.sign_in("/private?x=1&y=%2F", "alice").await;
    assert_eq!(page.url.as_str(), "https://app.example.test/private?x=1&y=%2F");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("Hello, alice"), "{}", page.text());
    assert_eq!(browser.cookie_names(), ["__Host-labgate"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_navigations_are_sent_to_sign_in() {
    let lab = Lab::start().await;
    let mut browser = lab.browser();
    let sign_in = "https://app.example.test/oauth2/sign_in?rd=%2Fprivate%3Fa%3Db";
    let answer = browser.navigate("/private?a=b").await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (302, sign_in));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(answer.body.is_empty() && answer.cookies().is_empty(), "{answer:?}");

    let json = [("accept", "application/json")];
    let cors = [("sec-fetch-mode", "cors"), ("accept", "text/html")];
    // What a person sends with a form is `it::unsent`'s.
    for (method, headers, body) in
        [(Method::GET, &json[..], ""), (Method::GET, &cors, ""), (Method::POST, &cors, "secret=1")]
    {
        let answer = browser.request(method.clone(), "/private?a=b", headers, body).await;
        assert_eq!(answer.status, 401, "{method} {headers:?}");
        assert!(answer.header("www-authenticate").starts_with("Bearer"));
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.json()["sign_in"], sign_in);
        assert_eq!(answer.header("location"), "");
        assert!(!answer.text().contains("secret"), "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_start_is_new_and_asks_as_it_should() {
    let lab = Lab::start().await;
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        let url = Url::parse(&lab.browser().begin("/private").await).expect("a URL");
        let query: Vec<_> = url.query_pairs().into_owned().collect();
        let params: BTreeMap<_, _> = query.iter().cloned().collect();
        assert_eq!(params.len(), query.len(), "doubled: {query:?}");
        assert_eq!(params["response_type"], "code");
        assert_eq!(params["code_challenge_method"], "S256");
        assert_eq!(params["scope"], "openid email read_user");
        assert_eq!(params["redirect_uri"], "https://app.example.test/oauth2/callback");
        for name in ["state", "nonce", "code_challenge"] {
            assert_eq!(params[name].len(), 43, "{name}");
            assert!(seen.insert(params[name].clone()), "{name} came before");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_query_moves_nothing_of_the_request_to_gitlab() {
    let lab = Setup::default()
        .gitlab(
            "forward_params = [\"login_hint\", \"max_age\"]\n\
             authorize_params = { max_age = \"3600\", acr_values = \"x y\" }\n",
        )
        .start()
        .await;
    let mut browser = lab.browser();
    let plain = Url::parse(&browser.begin("/").await).expect("a URL");
    let forged = "/oauth2/start?rd=/&login_hint=a%26scope%3Dapi&max_age=0&prompt=none&scope=api&redirect_uri=https://evil.test/\
                  &state=x&nonce=x&code_challenge=x&code_challenge_method=plain&client_id=x&request=x&request_uri=x&claims=x&response_mode=fragment";
    let answer = browser.navigate(forged).await;
    let url = Url::parse(answer.header("location")).expect("a URL");
    let random = ["state", "nonce", "code_challenge"];
    let query = |url: &Url| -> Vec<(String, String)> {
        let pairs = url.query_pairs().into_owned();
        pairs
            .filter(|(name, value)| !(random.contains(&name.as_str()) && value.len() == 43))
            .collect()
    };
    let mut expected = query(&plain);
    assert!(expected.contains(&("max_age".into(), "3600".into())), "{expected:?}");
    assert!(expected.contains(&("acr_values".into(), "x y".into())), "{expected:?}");
    expected.push(("login_hint".into(), "a&scope=api".into()));
    assert_eq!(query(&url), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_redirect_uri_follows_no_header() {
    let lab = Lab::start().await;
    for (name, value) in [
        ("x-forwarded-host", "evil.test"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-prefix", "/evil"),
        ("x-forwarded-port", "8443"),
        ("x-forwarded-uri", "//evil.test/"),
        ("x-auth-request-redirect", "https://evil.test/"),
        ("forwarded", "host=evil.test;proto=http"),
        ("x-original-url", "https://evil.test/"),
        ("referer", "https://evil.test/"),
    ] {
        let headers = [(name, value), ("accept", "text/html")];
        let answer = lab.browser().request(Method::GET, "/oauth2/start", &headers, "").await;
        assert_eq!(answer.status, 302, "{name}: {}", answer.text());
        let location = answer.header("location");
        let redirect = "redirect_uri=https%3A%2F%2Fapp.example.test%2Foauth2%2Fcallback&";
        assert!(location.contains(redirect), "{name}: {location}");
        assert!(!location.contains("evil"), "{name}: {location}");
        let answer = lab.browser().request(Method::GET, "/private", &headers, "").await;
        let expected = "https://app.example.test/oauth2/sign_in?rd=%2Fprivate";
        assert_eq!(answer.header("location"), expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_served_gets_no_sign_in() {
    let lab = Lab::start().await;
    let mut browser = lab.browser();
    for path in ["/oauth2/start", "/oauth2/sign_in", "/oauth2/callback?code=x&state=y"] {
        let answer = browser.navigate(&format!("https://evil.test{path}")).await;
        assert_eq!(answer.status, 421, "{path}");
        assert!(answer.cookies().is_empty(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_tabs_finish_in_any_order_each_at_its_page() {
    let lab = Lab::start().await;
    let mut browser = lab.browser();
    let mut tabs = Vec::new();
    for tab in 0..5 {
        let authorize = browser.begin(&format!("/private?tab={tab}")).await;
        tabs.push((tab, lab.callback(&authorize, "alice").await));
    }
    for order in [3, 0, 4, 1, 2] {
        let (tab, callback) = &tabs[order];
        let page = browser.open(callback).await;
        assert_eq!(page.url.as_str(), format!("https://app.example.test/private?tab={tab}"));
        assert!(page.text().contains("Hello, alice"));
    }
    assert_eq!(browser.cookie_names(), ["__Host-labgate"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_starts_stay_few_and_the_latest_still_count() {
    let lab = Lab::start().await;
    let mut browser = lab.browser();
    let first = browser.begin("/private?n=first").await;
    let mut last = String::new();
    for n in 0..50 {
        last = browser.begin(&format!("/private?n={n}")).await;
        assert!(browser.cookie_names().len() <= 5, "{:?}", browser.cookie_names());
    }
    let page = browser.open(&lab.callback(&first, "alice").await).await;
    assert_eq!(page.status, 400, "the oldest was evicted");
    let page = browser.open(&lab.callback(&last, "alice").await).await;
    assert_eq!(page.url.as_str(), "https://app.example.test/private?n=49");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_in_browser_that_replays_a_callback_is_sent_on() {
    let lab = Lab::start().await;
    let mut browser = lab.browser();
    let callback = lab.callback(&browser.begin("/private").await, "alice").await;
    assert_eq!(browser.open(&callback).await.status, 200);
    let (cookie, tokens) =
        (browser.cookie("__Host-labgate").map(str::to_owned), lab.gitlab.hits(Endpoint::Token));

    let answer = browser.navigate(&callback).await;
    let there = "https://app.example.test/";
    assert_eq!((answer.status.as_u16(), answer.header("location")), (302, there));
    assert_eq!(browser.cookie("__Host-labgate"), cookie.as_deref(), "the same session");

    // Without a session the same URL is worth nothing.
    let answer = lab.browser().navigate(&callback).await;
    assert_eq!(answer.status, 400);
    assert_eq!(lab.gitlab.hits(Endpoint::Token), tokens, "nothing was redeemed");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_callback_changes_no_session() {
    let lab = Lab::start().await;
    let mut attacker = lab.browser();
    let callback = lab.callback(&attacker.begin("/private").await, "bob").await;

    let page = lab.browser().open(&callback).await;
    assert_eq!(page.status, 400, "login CSRF");
    assert!(page.answer.cookies().is_empty());
    let mut victim = lab.signed_in("alice").await;
    victim.open(&callback).await;
    assert!(victim.open("/private").await.text().contains("Hello, alice"));
    assert_eq!(lab.gitlab.hits(Endpoint::Token), 1, "only alice's own code was redeemed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_of_another_attempt_is_worth_nothing() {
    let lab = Lab::start().await;
    let mut attacker = lab.browser();
    let stolen = lab.callback(&lab.browser().begin("/private").await, "alice").await;
    let code = Url::parse(&stolen).expect("a URL");
    let code = code.query_pairs().find(|(name, _)| name == "code").expect("a code").1.into_owned();
    let own = Url::parse(&attacker.begin("/private").await).expect("a URL");
    let state = own.query_pairs().find(|(name, _)| name == "state").expect("a state").1;
    // GitLab compares the verifier with the challenge of the attempt that the code belongs to.
    let page = attacker.open(&format!("/oauth2/callback?code={code}&state={state}")).await;
    assert_eq!(page.status, 403, "{}", page.text());
    assert_eq!(attacker.cookie_names(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlab_below_a_path() {
    let lab = Setup::default().base_path("/gitlab").start().await;
    let mut browser = lab.browser();
    let page = browser.sign_in("/private", "alice").await;
    assert!(page.text().contains("Hello, alice"), "{}", page.text());
    let asked = browser.visited.iter().any(|url| url.path() == "/gitlab/oauth/authorize");
    assert!(asked, "{:?}", browser.visited);
    let who = browser.xhr("/oauth2/userinfo").await.json();
    assert_eq!(who["issuer"], lab.gitlab.external_url());
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_and_labgate_reach_gitlab_by_different_names() {
    let lab = Setup::default()
        .external_url("http://gitlab.example.test/git")
        .gitlab("internal_url = \"INTERNAL\"\n")
        .start()
        .await;
    let mut browser = lab.browser();
    let page = browser.sign_in("/private", "alice").await;
    assert!(page.text().contains("Hello, alice"), "{}", page.text());
    let who = browser.xhr("/oauth2/userinfo").await.json();
    assert_eq!(who["issuer"], "http://gitlab.example.test/git");
    let internal = lab.gitlab.addr().to_string();
    assert!(!browser.visited.iter().any(|url| url.as_str().contains(&internal)));
    let page = browser.post("/oauth2/sign_out", "").await.text();
    assert!(page.contains("http://gitlab.example.test/git"), "{page}");
    assert!(!page.contains(&internal), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_client_needs_no_secret() {
    let lab = Setup::default().gitlab("# no client_secret = here\n").start().await;
    let uri = ["https://app.example.test/oauth2/callback"];
    let application = Application::new(CLIENT_ID, "", &uri).public();
    lab.gitlab.command(Command::Register(application)).expect("an application");
    let mut browser = lab.signed_in("alice").await;
    // It can refresh, too.
    lab.clock.turn(8000);
    assert_eq!(browser.xhr("/private").await.status, 200);
    assert!(lab.gitlab.hits(Endpoint::Token) >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unverified_address_counts_only_where_it_is_trusted() {
    let rule = "[[route]]\nupstream = \"UPSTREAM\"\nallow = [{ email_domain = \"example.com\" }]\n\
                [[route]]\npath = \"/echo\"\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n";
    for (line, trusted) in [("", false), ("require_verified_email = false\n", true)] {
        let lab = Setup::default().gitlab(line).routes(rule).start().await;
        let mut carol = lab.browser();
        let page = carol.sign_in("/", "carol").await;
        assert_eq!(page.status, if trusted { 200 } else { 403 }, "{line}");
        let echo = carol.xhr("/echo").await;
        assert_eq!(header(&echo, "x-forwarded-user").as_deref(), Some("carol"));
        let email = header(&echo, "x-forwarded-email");
        assert_eq!(email.as_deref(), trusted.then_some("carol@example.com"));
        let who = carol.xhr("/oauth2/userinfo").await.json();
        assert_eq!(who["email"].as_str(), trusted.then_some("carol@example.com"));
        let mut alice = lab.browser();
        assert_eq!(alice.sign_in("/", "alice").await.status, 200, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_between_has_a_button_for_each_gitlab() {
    let (lab, other) = two_gitlabs().await;
    let mut browser = knows(&lab, &other);
    let page = browser.open("/private?q=%22%3E%3Cscript%3E").await;
    assert_eq!(page.status, 200);
    let html = page.text();
    assert!(html.contains("Continue with") && html.contains("Work") && html.contains("Play"));
    assert_eq!(html.matches("class=\"button\"").count(), 2, "{html}");
    assert!(!html.contains("<script"), "{html}");
    assert!(page.answer.header("content-security-policy").contains("frame-ancestors 'none'"));
    assert_eq!(page.answer.header("x-content-type-options"), "nosniff");
    assert_eq!(page.answer.header("cache-control"), "no-store");
    for (gitlab, issuer) in [("main", lab.gitlab.external_url()), ("other", other.external_url())] {
        let mut browser = knows(&lab, &other);
        let there = "https%3A%2F%2Fapp.example.test%2Fprivate%3Fa%3Db";
        let page =
            browser.sign_in(&format!("/oauth2/start?gitlab={gitlab}&rd={there}"), "alice").await;
        assert_eq!(page.url.as_str(), "https://app.example.test/private?a=b");
        let who = browser.xhr("/oauth2/userinfo").await.json();
        assert_eq!((who["gitlab"].as_str(), who["issuer"].as_str()), (Some(gitlab), Some(issuer)));
    }
    let page = browser.open("/oauth2/start?gitlab=nobody").await;
    assert_eq!(page.status, 404);
    assert!(page.text().contains("isn&#39;t used here"), "{}", page.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_username_on_two_gitlabs_is_two_people() {
    let (lab, other) = two_gitlabs().await;
    let sign_in = async |gitlab: &str, path: &str| {
        let mut browser = knows(&lab, &other);
        let start = format!("/oauth2/start?gitlab={gitlab}&rd={path}");
        let page = browser.sign_in(&start, "alice").await;
        (page, browser)
    };
    // A route that admits one of them needs no page between, and refuses the other's people.
    let (page, mut main) = sign_in("main", "/echo/main").await;
    assert_eq!(page.status, 200);
    let echo = main.xhr("/echo").await;
    assert_eq!(header(&echo, "x-gitlab").as_deref(), Some("main"));
    let (page, mut browser) = sign_in("other", "/echo/main").await;
    assert_eq!(page.status, 403);
    assert!(page.text().contains("an account at main"), "{}", page.text());
    let echo = browser.xhr("/echo").await;
    assert_eq!(header(&echo, "x-gitlab").as_deref(), Some("other"));
    let location = knows(&lab, &other).open("/echo/main").await.url;
    assert_eq!(
        Some(location.origin()),
        Url::parse(lab.gitlab.external_url()).ok().map(|u| u.origin())
    );
    // Both GitLabs have an alice and a group acme: a rule says whose it means.
    for (browser, own) in [(&mut main, "main"), (&mut browser, "other")] {
        for kind in ["user", "group"] {
            for of in ["main", "other"] {
                let answer = browser.xhr(&format!("/echo/{kind}-of-{of}")).await;
                let expected = if own == of { 200 } else { 403 };
                assert_eq!(answer.status, expected, "{kind} of {of} by alice of {own}");
                if own != of {
                    let held = answer.json()["rules"][0]["held"].clone();
                    assert_eq!(held, format!("from {own}"));
                }
            }
        }
    }
    // What happens to one of them does not touch the other.
    other.set_state("alice", labgate::demo::gitlab::UserState::Blocked).expect("alice");
    lab.clock.turn(400);
    assert_eq!(browser.xhr("/echo").await.status, 401);
    assert_eq!(main.xhr("/echo").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_one_gitlab_is_none_of_the_other() {
    let (lab, other) = two_gitlabs().await;
    let mut browser = knows(&lab, &other);
    // An answer that names its issuer (RFC 9207) is held to it before the code goes anywhere.
    for issuer in [lab.gitlab.external_url(), "", "https://evil.test"] {
        let state = state_at_other(&mut browser).await;
        let callback = format!("/oauth2/callback?code=x&state={state}&iss={issuer}");
        assert_eq!(browser.open(&callback).await.status, 400, "{issuer}");
        assert_eq!(other.hits(Endpoint::Token) + lab.gitlab.hits(Endpoint::Token), 0, "{issuer}");
    }
    // Without one, the code of the one is nothing to the other.
    let main = lab.browser().navigate("/oauth2/start?gitlab=main&rd=/private").await;
    let code = Url::parse(&lab.callback(main.header("location"), "alice").await).expect("a URL");
    let code = code.query_pairs().find(|(name, _)| name == "code").expect("a code").1.into_owned();
    let state = state_at_other(&mut browser).await;
    let page = browser.open(&format!("/oauth2/callback?code={code}&state={state}")).await;
    assert_eq!(page.status, 403, "{}", page.text());
    assert_eq!(lab.gitlab.hits(Endpoint::Token), 0);
}

/// The state of a sign-in with the GitLab called `other`, just begun.
async fn state_at_other(browser: &mut Browser) -> String {
    let answer = browser.navigate("/oauth2/start?gitlab=other&rd=/private").await;
    let url = Url::parse(answer.header("location")).expect("a URL");
    url.query_pairs().find(|(name, _)| name == "state").expect("a state").1.into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_user_stays_the_same_person_and_a_reused_name_is_another() {
    let lab = Lab::start().await;
    let mut alice = lab.signed_in("alice").await;
    let sub = alice.xhr("/oauth2/userinfo").await.json()["sub"].clone();
    let rename = |user: &str, to: &str| {
        let command = Command::Rename { user: user.into(), to: to.into() };
        lab.gitlab.command(command).expect("a user");
    };
    rename("alice", "alicia");
    rename("bob", "alice");
    lab.clock.turn(400);
    assert!(alice.open("/private").await.text().contains("Hello, alicia"));
    assert_eq!(alice.xhr("/oauth2/userinfo").await.json()["sub"], sub);
    let mut other = lab.signed_in("alice").await;
    assert_ne!(other.xhr("/oauth2/userinfo").await.json()["sub"], sub);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_people_at_once_each_get_their_own_session() {
    let lab = Setup::default().workers(2).start().await;
    for user in 0..20 {
        let username = format!("user{user}");
        let email = Some(format!("{username}@example.com"));
        let command = Command::AddUser { username, email, bot: false };
        lab.gitlab.command(command).expect("a new user");
    }
    let mut all = JoinSet::new();
    for n in 0..200 {
        let (mut browser, user) = (lab.browser(), format!("user{}", n % 20));
        all.spawn(async move {
            let page = browser.sign_in(&format!("/private?n={n}"), &user).await;
            assert_eq!(page.status, 200, "{user}: {}", page.text());
            assert_eq!(page.url.query(), Some(format!("n={n}").as_str()));
            assert!(page.text().contains(&format!("Hello, {user}<")), "{user}: {}", page.text());
            let who = browser.xhr("/oauth2/userinfo").await.json();
            assert_eq!(who["username"], user);
            (browser.cookie("__Host-labgate").expect("a session").to_owned(), user)
        });
    }
    let done = all.join_all().await;
    let cookies: BTreeSet<_> = done.iter().map(|(cookie, _)| cookie).collect();
    assert_eq!(cookies.len(), 200);
}

/// A lab with a second GitLab, at an address of its own as cookies know no ports.
async fn two_gitlabs() -> (Lab, DevGitlab) {
    let other = DevGitlab::start(Options {
        listen: ([127, 0, 0, 2], 0).into(),
        redirect_uris: vec!["https://app.example.test/oauth2/callback".into()],
        keys: Some(keys().await),
        ..Options::default()
    })
    .await
    .expect("a second GitLab");
    let (url, id, secret) = (other.external_url(), CLIENT_ID, CLIENT_SECRET);
    let route = |path: &str, more: &str| {
        format!(
            "[[route]]\npath = \"{path}\"\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n{more}\n"
        )
    };
    let ruled = |path: &str, rule: &str| {
        route(path, "").replace("\"signed-in\"", &format!("[{{ gitlab = {rule} }}]"))
    };
    let routes = [
        route("/private", ""),
        route("/echo", ""),
        route("/echo/main", "gitlab = [\"main\"]"),
        ruled("/echo/user-of-main", "\"main\", user = \"alice\""),
        ruled("/echo/user-of-other", "\"other\", user = \"alice\""),
        ruled("/echo/group-of-main", "\"main\", group = \"acme\""),
        ruled("/echo/group-of-other", "\"other\", group = \"acme\""),
    ];
    let lab = Setup::default()
        .gitlab("label = \"Work\"\n")
        .routes(&routes.concat())
        .more(&format!(
            "[gitlab.other]\nbase_url = \"{url}\"\nclient_id = \"{id}\"\nclient_secret = \"{secret}\"\nlabel = \"Play\"\n\
             [identity.headers]\nX-Gitlab = \"gitlab\"\nX-User = \"username\"\n"
        ))
        .start()
        .await;
    (lab, other)
}

fn knows(lab: &Lab, other: &DevGitlab) -> Browser {
    lab.browser().also_knows(other.addr(), other.external_url())
}

/// A header as the echo received it.
fn header(echo: &Answer, name: &str) -> Option<String> {
    assert_eq!(echo.status, 200, "{}", echo.text());
    let headers = echo.json()["headers"].clone();
    let pairs = headers.as_array().expect("pairs").iter();
    let mut values = pairs.filter(|pair| pair[0] == name);
    values.next().map(|pair| pair[1].as_str().expect("text").to_owned())
}

/// With several GitLabs the page between asks first, and loses nothing of what was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_between_keeps_forwarded_parameters() {
    let other = "[gitlab.other]\nbase_url = \"https://git.other.test\"\nclient_id = \"x\"\n";
    let lab =
        Setup::default().gitlab("forward_params = [\"login_hint\"]\n").more(other).start().await;
    let mut browser = lab.browser();
    let page = browser.navigate("/oauth2/sign_in?rd=%2Fprivate&login_hint=al%26ice&gitlab=x").await;
    assert_eq!(page.status, 200);
    let text = page.text().replace("&#38;", "&");
    let link = text
        .split('"')
        .find(|text| text.contains("/start?") && text.contains("gitlab=main"))
        .expect("a button for main")
        .to_owned();
    let answer = browser.navigate(&link).await;
    assert!(answer.header("location").contains("login_hint=al%26ice"), "{link}");
}

/// Only people come back from GitLab.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_callback_is_a_page_whatever_is_accepted() {
    let lab = Lab::start().await;
    let answer = lab.browser().xhr("/oauth2/callback?code=x&state=y").await;
    assert_eq!(answer.status, 400);
    assert!(answer.header("content-type").starts_with("text/html"), "{:?}", answer.headers);
}

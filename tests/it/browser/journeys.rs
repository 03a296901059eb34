//! The ways that people take through the demo.

use super::{demo::Demo, driver::Chromium};

/// What each person of the demo meets at these paths: true where it opens.
const PEOPLE: [(&str, [(&str, bool); 3]); 4] = [
    ("root", [("/private", true), ("/team", true), ("/maintainers", true)]),
    ("alice", [("/private", true), ("/team", true), ("/maintainers", true)]),
    ("bob", [("/private", true), ("/team", true), ("/maintainers", false)]),
    ("carol", [("/private", true), ("/team", false), ("/maintainers", false)]),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_person_sees_what_they_may_and_reads_why_not() {
    let demo = Demo::start(&[]);
    let chromium = Chromium::start().await;
    for (person, pages) in PEOPLE {
        chromium.forget_cookies().await;
        let landing = demo.at("/private?from=a%20link&twice=1&twice=2");
        chromium.open(&landing).await;
        chromium.heading("Who are you today?").await;
        chromium.sign_in_at_gitlab(person, &landing).await;
        chromium.heading(&format!("Hello, {person}")).await;
        assert_eq!(chromium.run("return document.cookie").await, "", "a script reads cookies");
        for (path, opens) in pages {
            chromium.open(&demo.at(path)).await;
            match opens {
                true => chromium.heading(&format!("Hello, {person}")).await,
                false => chromium.heading("You don't have access").await,
            }
        }
    }

    // The last refusal, read closely: who, what is needed, what is held, and a way on.
    chromium.open(&demo.at("/maintainers")).await;
    let refused = chromium.text().await;
    for words in ["carol", "at least Maintainer in the group acme/ops", "not a member"] {
        assert!(refused.contains(words), "{words:?} is missing:\n{refused}");
    }
    chromium.click("Sign in as someone else").await;
    chromium.heading("Who are you today?").await;
    chromium.sign_in_at_gitlab("alice", &demo.at("/maintainers")).await;
    chromium.heading("Hello, alice").await;

    // dave is blocked: GitLab says so itself, and he is a stranger to the app.
    chromium.forget_cookies().await;
    chromium.open(&demo.at("/private")).await;
    chromium.click("dave").await;
    chromium.says("blocked").await;
    assert!(chromium.url().await.starts_with(&demo.gitlab));
    chromium.open(&demo.at("/private")).await;
    chromium.heading("Who are you today?").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tabs_the_back_button_streams_and_signing_out_work() {
    let demo = Demo::start(&[]);
    let chromium = Chromium::start().await;

    two_tabs_each_land_where_they_wanted(&demo, &chromium).await;
    back_leads_out_of_the_sign_in(&demo, &chromium).await;
    streams_are_live(&demo, &chromium).await;
    signed_out_is_signed_out(&demo, &chromium).await;
    declining_helps_on(&demo, &chromium).await;
}

async fn two_tabs_each_land_where_they_wanted(demo: &Demo, chromium: &Chromium) {
    chromium.open(&demo.at("/private?tab=1")).await;
    chromium.heading("Who are you today?").await;
    let first = chromium.new_tab().await;
    chromium.open(&demo.at("/team?tab=2")).await;
    chromium.sign_in_at_gitlab("bob", &demo.at("/team?tab=2")).await;
    let second = chromium.switch(first).await;
    chromium.sign_in_at_gitlab("bob", &demo.at("/private?tab=1")).await;
    chromium.heading("Hello, bob").await;
    let first = chromium.switch(second).await;
    chromium.reload().await;
    chromium.heading("Hello, bob").await;
    chromium.switch(first).await;
}

async fn back_leads_out_of_the_sign_in(demo: &Demo, chromium: &Chromium) {
    chromium.forget_cookies().await;
    chromium.open(&demo.at("/")).await;
    chromium.click("Private").await;
    chromium.sign_in_at_gitlab("alice", &demo.at("/private")).await;
    chromium.heading("Hello, alice").await;
    // Consent lies behind /private, and GitLab sends on from there at once, with a state that is used up: labgate must send alice on as
    // well, not tell her of an error or sign her out. The same when she chooses herself once more on the page before.
    chromium.back().await;
    chromium.arrives(&demo.at("/")).await;
    chromium.heading("Hello, alice").await;
    chromium.back().await;
    chromium.heading("Who are you today?").await;
    chromium.sign_in_at_gitlab("alice", &demo.at("/")).await;
    chromium.heading("Hello, alice").await;
    chromium.open(&demo.at("/private")).await;
    chromium.heading("Hello, alice").await;
}

async fn streams_are_live(demo: &Demo, chromium: &Chromium) {
    chromium.open(&demo.at("/live")).await;
    let count = async || {
        let text = chromium.run("return document.getElementById('count').textContent").await;
        text.as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default()
    };
    chromium.says("hello from the browser").await;
    let before = count().await;
    chromium.enter("#words", "an echo through labgate").await;
    chromium.says("an echo through labgate").await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while count().await < before + 2 {
        assert!(std::time::Instant::now() < deadline, "the counter stands still at {before}");
    }
    let complaints = chromium.complaints().await;
    assert!(complaints.iter().all(|line| line.source == "network"), "{complaints:?}");
}

async fn signed_out_is_signed_out(demo: &Demo, chromium: &Chromium) {
    chromium.open(&demo.at("/private")).await;
    chromium.click("Sign out").await;
    chromium.says("You are signed in as alice").await;
    chromium.click("Stay signed in").await;
    chromium.arrives(&demo.at("/private")).await;
    chromium.heading("Hello, alice").await;
    // GitLab still knows alice, as the page says, so one click brings her back.
    sign_out(chromium).await;
    chromium.click("Sign in again").await;
    chromium.arrives(&demo.at("/private")).await;
    chromium.heading("Hello, alice").await;
    sign_out(chromium).await;
    // Also out at GitLab, as the page says one should on a shared computer; then the app asks again.
    chromium.click("sign out of the development GitLab").await;
    chromium.heading("Development GitLab").await;
    chromium.click("Sign out").await;
    chromium.heading("Who are you today?").await;
    chromium.open(&demo.at("/private")).await;
    chromium.heading("Who are you today?").await;
}

async fn sign_out(chromium: &Chromium) {
    chromium.click("Sign out").await;
    chromium.says("Stay signed in").await;
    chromium.click("Sign out").await;
    chromium.heading("Signed out").await;
}

async fn declining_helps_on(demo: &Demo, chromium: &Chromium) {
    chromium.forget_cookies().await;
    chromium.open(&demo.at("/team?deep=1")).await;
    chromium.click("root").await;
    chromium.heading("Authorize labgate demo?").await;
    chromium.click("Deny").await;
    chromium.heading("You were not signed in").await;
    chromium.says("start again and choose Authorize").await;
    chromium.click("Start again").await;
    chromium.consent(&demo.at("/team?deep=1")).await;
    chromium.heading("Hello, root").await;
}

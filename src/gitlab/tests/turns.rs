//! How many questions one person may put at once.

use serde_json::json;
use tokio::sync::Semaphore;

use super::{
    identify::{INFO, USER, info, ok, project, user},
    script::Script,
    *,
};

/// A GitLab that answers questions about members one for each permit, and a provider whose rules name so many projects.
async fn holding(projects: usize) -> (Script, Provider, Arc<Semaphore>) {
    let hold = Arc::new(Semaphore::new(0));
    let member = ok(&json!({ "access_level": 30 })).held(&hold);
    let script = Script::new(move |hit| match hit.path() {
        USER => ok(&user()),
        INFO => ok(&info()),
        _ => member.clone(),
    })
    .await;
    let projects = (0..projects).map(|number| project(&format!("acme/project-{number}"))).collect();
    let needs = Needs { projects, ..Needs::default() };
    let provider = provider_of(&config(&script.url("/")), needs);
    (script, provider, hold)
}

#[tokio::test]
async fn a_sign_in_with_twenty_projects_waits_for_one_round() {
    let (script, provider, hold) = holding(20).await;
    let identity = provider.identify_newcomer("token");
    let one_round = async {
        // Nothing is answered before all has been asked.
        script.reached(2 + 20).await;
        hold.add_permits(20);
    };
    let both = async { tokio::join!(identity, one_round).0 };
    let identity = tokio::time::timeout(Duration::from_secs(30), both).await.expect("one round");
    assert_eq!(identity.unwrap().projects.len(), 20);
}

#[tokio::test]
async fn one_person_takes_no_more_than_twenty_turns() {
    // In the lane of people, which would let 48 through.
    let (script, provider, hold) = holding(60).await;
    let identity = provider.identify("token");
    let rounds = async {
        for asked in [20, 40, 60] {
            script.reached(2 + asked).await;
            // Whatever else was sent arrives.
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
            hold.add_permits(20);
        }
    };
    let both = async { tokio::join!(identity, rounds).0 };
    let identity = tokio::time::timeout(Duration::from_secs(30), both).await.expect("an answer");
    assert_eq!(identity.unwrap().projects.len(), 60);
    assert_eq!(script.most_at_once(), 20);
}

//! How many questions one person may put at once.

use serde_json::json;
use tokio::sync::Semaphore;

use super::{
    identify::{INFO, USER, info, ok, project, user},
    script::Script,
    *,
};

#[tokio::test]
async fn one_person_takes_no_more_than_twenty_turns() {
    let hold = Arc::new(Semaphore::new(0));
    let member = ok(&json!({ "access_level": 30 })).held(&hold);
    let script = Script::new(move |hit| match hit.path() {
        USER => ok(&user()),
        INFO => ok(&info()),
        _ => member.clone(),
    })
    .await;
    let projects = (0..60).map(|number| project(&format!("acme/project-{number}"))).collect();
    let needs = Needs { projects, ..Needs::default() };
    // In the lane of people, which would let 48 through.
    let provider = provider_of(&config(&script.url("/")), needs);
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

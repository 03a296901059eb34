//! Tokens of callers without a browser, as GitLab answers about them: those of projects, groups and jobs, and of other applications.

use super::*;

fn mint(lab: &Lab, what: Value) {
    let mint = serde_json::from_value(what).unwrap();
    lab.gitlab.mint(mint).unwrap();
}

#[tokio::test]
async fn tokens_of_projects_and_groups_are_bots_that_are_members_there() {
    let lab = Lab::new().await;
    let scopes = json!(["read_api"]);
    mint(
        &lab,
        json!({ "kind": "project", "project": "acme/web/shop", "token": "p", "role": "guest", "scopes": scopes }),
    );
    mint(
        &lab,
        json!({ "kind": "group", "group": "acme", "token": "g", "role": "owner", "scopes": scopes }),
    );
    for (token, name, place, level) in [
        ("p", "project_102_bot_", "projects/acme%2Fweb%2Fshop", 10),
        ("g", "group_10_bot_", "groups/acme%2Fweb", 50),
    ] {
        let user = lab.bearer("/api/v4/user", token).await.json();
        let username = user["username"].as_str().unwrap();
        assert!(username.starts_with(name) && user["bot"] == true, "{user}");
        let id = user["id"].as_u64().unwrap();
        let own = lab.bearer("/api/v4/personal_access_tokens/self", token).await.json();
        assert_eq!((own["user_id"].as_u64(), &own["active"]), (Some(id), &json!(true)));
        let path = format!("/api/v4/{place}/members/all/{id}");
        assert_eq!(lab.bearer(&path, token).await.json()["access_level"], level);
    }
    let elsewhere = lab.bearer("/api/v4/groups/acme%2Fops", "p").await;
    assert_eq!(elsewhere.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_job_token_tells_of_its_job_and_of_nothing_else() {
    let lab = Lab::new().await;
    let job = json!({ "kind": "job", "project": "acme/web/shop", "user": "bob", "token": "j", "ref": "main" });
    mint(&lab, job);
    let with =
        async |headers: &[(&str, &str)], path: &str| lab.send(Method::GET, path, headers, "").await;
    let path = "/api/v4/job";
    for headers in [("job-token", "j"), ("authorization", "Bearer j")] {
        let job = with(&[headers], path).await.json();
        assert_eq!(job["pipeline"]["project_id"], 102);
        assert_eq!((&job["ref"], &job["tag"]), (&json!("main"), &json!(false)));
        assert_eq!(job["user"]["username"], "bob");
        let url = job["web_url"].as_str().unwrap();
        assert!(url.starts_with(&format!("{}/acme/web/shop/-/jobs/", lab.gitlab.external_url())));
    }
    assert_eq!(with(&[("job-token", "x")], path).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(with(&[], path).await.status, StatusCode::UNAUTHORIZED);
    let other = with(&[("authorization", "Bearer glpat-dev-bob")], path).await;
    assert_eq!(other.status, StatusCode::NOT_FOUND);
    assert_eq!(other.json()["message"], "404 Job Not Found");
    let user = with(&[("authorization", "Bearer j")], "/api/v4/user").await;
    assert_eq!(user.status, StatusCode::UNAUTHORIZED);
    lab.gitlab.set_state("bob", UserState::Blocked).unwrap();
    assert_eq!(with(&[("job-token", "j")], path).await.status, StatusCode::FORBIDDEN);
    lab.gitlab.set_state("bob", UserState::Active).unwrap();
    mint(&lab, json!({ "kind": "job_end", "token": "j" }));
    assert_eq!(with(&[("job-token", "j")], path).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn oauth_tokens_say_whose_application_they_were_given_to() {
    let lab = Lab::new().await;
    let token = json!({ "kind": "oauth", "user": "alice", "client_id": "another", "token": "o", "scopes": ["openid"] });
    mint(&lab, token);
    let info = lab.bearer("/oauth/token/info", "o").await.json();
    assert_eq!(info["application"]["uid"], "another");
    let private = [("private-token", "o")];
    let user = lab.send(Method::GET, "/api/v4/user", &private, "").await;
    assert_eq!(user.status, StatusCode::UNAUTHORIZED, "no private token");
    assert_eq!(
        lab.bearer("/oauth/token/info", "glpat-dev-bob").await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn control_paths_make_tokens_of_all_kinds() {
    let lab = Lab::new().await;
    let json = [("content-type", "application/json")];
    let post = async |path: &str, body: &str| lab.send(Method::POST, path, &json, body).await;
    let body = r#"{ "do": "mint", "kind": "job", "project": "acme/web/shop", "user": "bob", "token": "j", "ref": "v1", "tag": true }"#;
    assert_eq!(post("/-/dev/commands", body).await.status, StatusCode::NO_CONTENT);
    let job = lab.bearer("/api/v4/job", "j").await.json();
    assert_eq!((&job["ref"], &job["tag"]), (&json!("v1"), &json!(true)));
    let unknown = r#"{ "do": "mint", "kind": "oauth", "user": "nobody", "client_id": "x", "token": "o", "scopes": [] }"#;
    assert_eq!(post("/-/dev/commands", unknown).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let token = post("/-/dev/ci_id_token", r#"{ "ref": "other", "aud": null }"#).await.json();
    let token = token["id_token"].as_str().unwrap();
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((&claims["ref"], claims.get("aud")), (&json!("other"), None));
}

//! Ways past a decision that was made rightly: other letters, other hosts, other methods, and answers that nobody takes (threats E1, E5, E6, H2).

use crate::support::{Lab, Message, Setup, Wire};

async fn ask(lab: &Lab, head: &str) -> Message {
    Wire::say(lab.app.addr(), format!("{head}\r\n\r\n")).await.answer().await
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_in_another_case_do_not_lead_past_a_stricter_rule() {
    let routes = "[[route]]\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n\
        [[route]]\npath = \"/echo/admin\"\nupstream = \"UPSTREAM\"\nallow = [{ user = \"root\" }]\n";
    let lab = Setup::default().routes(routes).start().await;
    let session = lab.signed_in("alice").await.session();
    for (path, status) in [
        ("/echo/other", 200),
        ("/echo/admin", 403),
        ("/echo/ADMIN/users", 400),
        ("/ECHO/admin", 400),
        ("/Echo/x/../Admin", 400),
        ("/echo/%41dmin", 400),
    ] {
        let before = lab.sample.hits();
        let head = format!("GET {path} HTTP/1.1\r\nHost: app.example.test\r\nCookie: {session}");
        assert_eq!(ask(&lab, &head).await.status(), status, "{path}");
        assert_eq!(lab.sample.hits() > before, status == 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_hears_the_host_that_was_judged() {
    let routes = "[[route]]\nhost = \"private.example.test\"\nupstream = \"UPSTREAM\"\n\
        allow = \"signed-in\"\n\
        [[route]]\nhost = \"public.example.test\"\nupstream = \"UPSTREAM\"\nallow = \"public\"\n";
    let setup = Setup::default().routes(routes).server("trusted_proxies = [\"127.0.0.0/8\"]");
    let lab = setup.start().await;
    for target in ["/echo", "http://private.example.test/echo"] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: private.example.test");
        assert_eq!(ask(&lab, &head).await.status(), 401, "{target}");
        let head = format!("{head}\r\nX-Forwarded-Host: public.example.test");
        let echo = ask(&lab, &head).await.json();
        let text = echo["headers"].to_string();
        assert!(text.contains(r#"["host","public.example.test"]"#), "{target}: {text}");
        assert!(!text.contains("private"), "{target}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_method_that_was_judged_is_not_overridden() {
    let routes = "[[route]]\nmethods = [\"POST\"]\nupstream = \"UPSTREAM\"\nallow = \"public\"\n\
        [[route]]\nmethods = [\"DELETE\"]\nupstream = \"UPSTREAM\"\nallow = \"signed-in\"\n";
    let lab = Setup::default().routes(routes).start().await;
    let head = "POST /echo HTTP/1.1\r\nHost: app.example.test\r\nContent-Length: 0\r\n\
        X-HTTP-Method-Override: DELETE\r\nX-HTTP-Method: DELETE\r\nX-Method-Override: DELETE\r\n\
        X_HTTP_Method_Override: DELETE";
    let echo = ask(&lab, head).await.json();
    assert_eq!(echo["method"], "POST");
    assert!(!echo.to_string().contains("DELETE"), "{echo}");
}

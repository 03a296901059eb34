//! Requests as they come off the wire, and what they ask for.

use http::Request;

use super::*;
use crate::config::TrustedProxies;

const STRANGER: &str = "192.0.2.1:1234";
const PROXY: &str = "10.0.0.1:1234";

/// A request in the making: its parts, and who sends it.
struct Case {
    request: http::request::Builder,
    peer: &'static str,
    public: Option<&'static str>,
}

fn get(uri: &str) -> Case {
    Case { request: Request::get(uri), peer: STRANGER, public: None }
}

impl Case {
    fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    fn method(mut self, method: &str) -> Self {
        self.request = self.request.method(method);
        self
    }

    fn version(mut self, version: Version) -> Self {
        self.request = self.request.version(version);
        self
    }

    fn from(mut self, peer: &'static str) -> Self {
        self.peer = peer;
        self
    }

    fn public(mut self, url: &'static str) -> Self {
        self.public = Some(url);
        self
    }

    fn read(self) -> Result<Target, &'static str> {
        let request = self.request.body(()).unwrap();
        let peer = Peer { addr: self.peer.parse().unwrap(), core: 0 };
        let trust = Trust::new(&TrustedProxies(vec!["10.0.0.0/8".parse().unwrap()]));
        let public = self.public.map(|url| Origin::of(&url.parse().unwrap()).unwrap());
        Target::read(&request, &peer, &trust, public.as_ref())
    }

    fn url(self) -> String {
        self.read().unwrap().url()
    }
}

fn at(path: &str) -> Target {
    get(path).header("host", "app").read().unwrap()
}

#[test]
fn the_host_is_named_once_and_well() {
    let app = || get("/x?y").header("host", "App.example.:8080");
    assert_eq!(app().url(), "http://app.example:8080/x?y");
    let absolute = || get("http://app.example/x?y");
    let twin = |case: Case| case.header("host", "other.example");
    assert_eq!(twin(absolute()).url(), "http://app.example/x?y");
    assert_eq!(twin(get("https://app.example?y")).url(), "http://app.example/?y");
    assert_eq!(twin(get("http://app.example")).url(), "http://app.example/");
    let h2 = || absolute().version(Version::HTTP_2);
    assert_eq!(h2().url(), "http://app.example/x?y");
    assert_eq!(h2().header("host", "APP.example").url(), "http://app.example/x?y");

    let refused = [
        ("no Host", get("/")),
        ("no Host in HTTP/1.0", get("/").version(Version::HTTP_10)),
        ("no Host beside a URL", absolute()),
        ("two Hosts", app().header("host", "app.example:8080")),
        ("a list", get("/").header("host", "app, evil")),
        ("empty", get("/").header("host", "")),
        ("a bad port", get("/").header("host", "app:x")),
        ("user info", get("/").header("host", "me@app")),
        ("user info in the target", twin(get("http://me@app/"))),
        ("a bad Host beside a URL", absolute().header("host", "a b")),
        ("another scheme", twin(get("ftp://app.example/"))),
        ("authority-form", twin(get("app.example:80"))),
        ("HTTP/2 disagrees", twin(h2())),
        ("HTTP/2 with two Hosts", h2().header("host", "app.example").header("host", "app.example")),
        ("high bytes", get("/").header("host", "b\u{fc}cher")),
    ];
    for (what, case) in refused {
        assert!(case.read().is_err(), "{what}");
    }
}

#[test]
fn odd_methods_and_targets_are_refused() {
    let host = |case: Case| case.header("host", "app");
    let star = || host(get("*"));
    let options = star().method("OPTIONS").read().unwrap();
    assert_eq!((options.path(), options.is_ambiguous()), ("*", false));
    assert!(star().read().is_err());
    assert!(host(get("/")).method("TRACE").read().is_err());
    assert!(host(get("/")).method("CONNECT").read().is_err());
    assert!(host(get("app:80")).method("CONNECT").read().is_err());
    assert!(host(get("/")).method("PROPFIND").read().is_ok());
}

#[test]
fn only_trusted_peers_speak_for_the_browser() {
    let spoofed = || {
        get("/")
            .header("host", "app:4180")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "shop.example")
            .header("x-forwarded-port", "8443")
            .header("x-forwarded-for", "6.6.6.6")
            .header("x-request-id", "abc")
    };
    let stranger = spoofed().read().unwrap();
    assert_eq!(stranger.url(), "http://app:4180/");
    assert_eq!(stranger.client.to_string(), "192.0.2.1");
    assert!(!stranger.trusted && !stranger.relayed);

    let proxied = spoofed().from(PROXY).read().unwrap();
    assert_eq!(proxied.url(), "https://shop.example:8443/");
    assert_eq!(proxied.client.to_string(), "6.6.6.6");
    assert!(proxied.trusted && proxied.relayed);
    assert!(!get("/").header("host", "app").from(PROXY).read().unwrap().relayed);
    let mapped = spoofed().from("[::ffff:10.0.0.1]:1").read().unwrap();
    assert_eq!(mapped.url(), proxied.url());

    let bad = spoofed().header("x-forwarded-proto", "gopher");
    assert!(bad.from(PROXY).read().is_err());
    let bad_but_ignored = spoofed().header("x-forwarded-proto", "gopher");
    assert!(bad_but_ignored.read().is_ok());
}

#[test]
fn the_port_beside_the_host_wins_over_the_forwarded_one() {
    let case = |host, port| {
        let case = get("/").header("host", host).from(PROXY);
        case.header("x-forwarded-proto", "https").header("x-forwarded-port", port).url()
    };
    assert_eq!(case("app", "443"), "https://app/");
    assert_eq!(case("app", "8443"), "https://app:8443/");
    assert_eq!(case("app:8443", "443"), "https://app:8443/");
}

#[test]
fn public_url_is_what_the_browser_sees() {
    let case = |host| {
        let case = get("/x").header("host", host);
        case.public("https://app.example:8443")
    };
    assert_eq!(case("app.example").url(), "https://app.example:8443/x");
    assert_eq!(case("app.example:4180").url(), "https://app.example:8443/x");
    assert_eq!(case("other.example").url(), "https://other.example/x");
    let downgrade = || case("app.example").header("x-forwarded-proto", "http");
    assert_eq!(downgrade().from(PROXY).url(), "https://app.example:8443/x");
    let renamed = case("labgate:4180").header("x-forwarded-host", "app.example");
    assert_eq!(renamed.from(PROXY).url(), "https://app.example:8443/x");
}

#[test]
fn request_ids_are_short_visible_and_from_trusted_peers() {
    let id = |peer, ids: &[&str]| {
        let case = get("/").header("host", "app").from(peer);
        let target = case.read().unwrap();
        let values = ids.iter().map(|id| (REQUEST_ID, id.parse().unwrap()));
        let headers: HeaderMap = values.collect();
        target.request_id(&headers).map(str::to_owned)
    };
    let longest = "x".repeat(128);
    assert_eq!(id(PROXY, &["a-1"]).as_deref(), Some("a-1"));
    assert_eq!(id(PROXY, &[&longest]).as_deref(), Some(longest.as_str()));
    let refused: [&[&str]; 6] =
        [&[], &[""], &["a", "a"], &["a b"], &["\u{e9}"], &[&format!("{longest}x")]];
    for ids in refused {
        assert_eq!(id(PROXY, ids), None, "{ids:?}");
    }
    assert_eq!(id(STRANGER, &["a-1"]), None);
}

#[test]
fn plain_paths_have_one_reading_and_cost_nothing() {
    let long = format!("/{}", "a-._~!$&'()*+,=:@".repeat(100));
    for path in ["/", "/a", "/a/", "/a/b.c/...d", "/a.b/c..", &long] {
        let target = at(path);
        assert_eq!(target.path(), path);
        assert!(!target.is_ambiguous(), "{path}");
        assert_eq!(target.readings().count(), 1, "{path}");
    }
}

#[test]
fn honest_escapes_are_unambiguous() {
    let table = [
        ("/a%20b", "/a b"),
        ("/%61dmin", "/admin"),
        ("/caf%C3%A9", "/caf\u{e9}"),
        ("/100%25", "/100%"),
        ("/what%3F", "/what"),
        ("/a;v=1/b", "/a/b"),
    ];
    for (path, reading) in table {
        let target = at(path);
        assert!(!target.is_ambiguous(), "{path}");
        let found = target.readings().any(|other| other == reading.as_bytes());
        assert!(found, "{path} as {reading}");
    }
    for path in ["/.well-known/acme", "/...", "/..a", "/a/.b"] {
        assert!(!at(path).is_ambiguous(), "{path}");
        assert_eq!(at(path).readings().count(), 1, "{path}");
    }
}

#[test]
fn every_trick_is_ambiguous_and_read_through() {
    let table = [
        "/open/../admin",
        "/open/./../admin",
        "/open/..;/admin",
        "/open/..;x=y/admin",
        "/open/.;/..;/admin",
        "/open/%2e%2e/admin",
        "/open/.%2E/admin",
        "/open/%2e./admin",
        "/open/..%2fadmin",
        "/open%2f..%2fadmin",
        "/open/%2e%2e%2fadmin",
        "/open/..\\admin",
        "/open\\..\\admin",
        "/open/..%5cadmin",
        "/open/%252e%252e/admin",
        "/open/%252e%252e%252fadmin",
        "/open/%25252e%25252e/admin",
        "/open/%c0%ae%c0%ae/admin",
        "/open/%e0%80%ae%e0%80%ae/admin",
        "/open/..%c0%afadmin",
        "/open/%ef%bc%8e%ef%bc%8e/admin",
        "/open/..%ef%bc%8fadmin",
        "/open/%e2%80%a4%e2%80%a4/admin",
        "/open/..//admin",
        "/open//../../admin",
        "/open/x/..//../admin",
        "/open/.%09./admin",
        "/open/.%0a./admin",
        "/open/..%00/admin",
        "/open/..%3b/admin",
        "/open/%2e%2e;/admin",
        "//admin",
        "/;/admin",
        "/.//admin",
        "/open/../../../admin",
        "/admin%00.css",
        "/admin%00/../open",
        "/open/\u{ff0e}\u{ff0e}/admin",
    ];
    for path in table {
        let target = at(path);
        assert!(target.is_ambiguous(), "{path}");
        let found = target.touches("/admin");
        let readings: Vec<_> = target.readings().map(String::from_utf8_lossy).collect();
        assert!(found, "{path} read as {readings:?}");
        assert_eq!(target.path(), path, "kept byte for byte");
    }
    for path in ["/a%2Fb", "/a%5Cb", "/a//b", "/a%zz", "/a%", "/a%7", "/a%u002e"] {
        assert!(at(path).is_ambiguous(), "{path}");
    }
    for path in [
        "/caf\u{e9}",
        "/a%c0%ae",
        "/a%e0%80%ae",
        "/a%f0%80%80%ae",
        "/a%7f",
        "/a%01",
        "/%2561",
        "/a/..",
        "/a/.",
    ] {
        assert!(at(path).is_ambiguous(), "{path}");
    }
}

#[test]
fn paths_with_too_many_readings_are_refused() {
    let bomb = "/%25252525252e%2f..;x\\//".repeat(100);
    let long = format!("/{}", "%2e%2e%2f;x/".repeat(5000));
    let costly = format!("/{}", "%2525a;b//..%5c%2e/".repeat(200));
    for path in [&bomb, &long, &costly] {
        assert!(get(path).header("host", "app").read().is_err());
    }
    let honest = format!("/{}", "%20".repeat(20_000));
    assert_eq!(at(&honest).readings().count(), 2);
}

#[test]
fn queries_take_no_part() {
    let target = at("/open?/../admin;%2e%2e//");
    assert!(!target.is_ambiguous());
    assert_eq!(target.path_and_query(), "/open?/../admin;%2e%2e//");
    assert!(!target.touches("/admin"));
}

#[test]
fn own_paths_cannot_be_reached_around() {
    assert_eq!(at("/oauth2").below("/oauth2"), Some(""));
    assert_eq!(at("/oauth2/start").below("/oauth2"), Some("/start"));
    assert_eq!(at("/oauth2x/start").below("/oauth2"), None);
    assert!(!at("/oauth2x/start").touches("/oauth2"));
    for path in [
        "/OAUTH2/start",
        "/%6fauth2/start",
        "/oauth2%2fstart",
        "/x/../oauth2/start",
        "//oauth2",
        "/oauth2;x/start",
    ] {
        assert_eq!(at(path).below("/oauth2"), None, "{path}");
        assert!(at(path).touches("/oauth2"), "{path}");
    }
}

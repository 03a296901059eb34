//! Which entry wins, and that no trick reaches a public one.

use http::Request;

use super::*;
use crate::target::{Peer, Trust};

/// Host, path, methods, value; values that begin with `public` are.
type Line = (&'static str, &'static str, &'static [&'static str], &'static str);

fn entries(lines: &[Line]) -> Vec<Entry<&'static str>> {
    let entry = |(host, path, methods, value): &Line| Entry {
        host: (!host.is_empty()).then(|| HostPattern::try_from((*host).to_owned()).unwrap()),
        path: PathPrefix::try_from((*path).to_owned()).unwrap(),
        methods: (!methods.is_empty())
            .then(|| methods.iter().map(|name| name.parse().unwrap()).collect()),
        value: *value,
    };
    lines.iter().map(entry).collect()
}

fn table(lines: &[Line]) -> RouteTable<&'static str> {
    RouteTable::new(entries(lines)).unwrap()
}

fn target(method: &str, host: &str, path: &str) -> Target {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("host", host).body(()).unwrap();
    let peer = Peer { addr: ([192, 0, 2, 1], 1).into(), core: 0 };
    Target::read(&request, &peer, &Trust::default(), None).unwrap()
}

fn resolve(
    table: &RouteTable<&'static str>,
    method: &str,
    host: &str,
    path: &str,
) -> Result<&'static str, Miss> {
    let is_public = |value: &&str| value.starts_with("public");
    let target = target(method, host, path);
    table.resolve(&target, is_public).copied()
}

#[test]
fn the_most_specific_host_then_path_wins() {
    let table = table(&[
        ("", "/", &[], "any"),
        ("", "/docs", &[], "any docs"),
        ("", "/docs/internal", &[], "any internal"),
        ("*.example.com", "/", &[], "wild"),
        ("*.example.com", "/docs", &[], "wild docs"),
        ("wiki.example.com", "/docs/internal", &[], "wiki internal"),
        ("wiki.example.com", "/edit", &[], "wiki edit"),
    ]);
    let cases = [
        ("other.test", "/", "any"),
        ("other.test", "/docs", "any docs"),
        ("other.test", "/docs/", "any docs"),
        ("other.test", "/docsx", "any"),
        ("other.test", "/docs/x?/docs/internal", "any docs"),
        ("other.test", "/docs/internal/x", "any internal"),
        ("a.example.com", "/docs/internal", "wild docs"),
        ("A.Example.COM.:80", "/docs", "wild docs"),
        ("a.b.example.com", "/docs", "any docs"),
        ("example.com", "/", "any"),
        ("evilexample.com", "/", "any"),
        ("wiki.example.com", "/docs/internal", "wiki internal"),
        ("wiki.example.com", "/docs", "wild docs"),
        ("wiki.example.com", "/edit/1", "wiki edit"),
        ("wiki.example.com", "/", "wild"),
        ("wiki.example.com.evil.test", "/edit", "any"),
    ];
    for (host, path, value) in cases {
        assert_eq!(resolve(&table, "GET", host, path), Ok(value), "{host}{path}");
    }
}

#[test]
fn misses_say_what_did_not_match() {
    let table = table(&[
        ("wiki.test", "/docs", &["GET", "HEAD"], "docs"),
        ("wiki.test", "/docs", &["PUT"], "write"),
        ("*.test", "/up", &[], "up"),
    ]);
    let methods =
        |names: &[&str]| Miss::NoMethod(names.iter().map(|name| name.parse().unwrap()).collect());
    let cases = [
        ("GET", "wiki.test", "/docs", Ok("docs")),
        ("PUT", "wiki.test", "/docs", Ok("write")),
        ("GET", "other.example", "/docs", Err(Miss::NoHost)),
        ("GET", "wiki.test", "/", Err(Miss::NoPath)),
        ("GET", "a.test", "/docs", Err(Miss::NoPath)),
        ("POST", "wiki.test", "/docs", Err(methods(&["GET", "HEAD", "PUT"]))),
        ("get", "wiki.test", "/docs", Err(methods(&["GET", "HEAD", "PUT"]))),
        ("POST", "wiki.test", "/up/x", Ok("up")),
    ];
    for (method, host, path, expected) in cases {
        let found = resolve(&table, method, host, path);
        assert_eq!(found, expected, "{method} {host}{path}");
    }
    let refusals = [
        (Miss::NoHost, 421),
        (Miss::NoPath, 404),
        (methods(&["GET"]), 405),
        (Miss::Ambiguous, 400),
    ];
    for (miss, status) in refusals {
        assert_eq!(Refusal::from(miss).status().as_u16(), status);
    }
}

#[test]
fn the_next_wider_route_decides_where_methods_are_in_the_way() {
    let table = table(&[
        ("wiki.test", "/a", &["GET"], "public read"),
        ("wiki.test", "/", &["POST"], "write"),
        ("", "/a", &["DELETE"], "delete"),
    ]);
    for (method, value) in [("GET", "public read"), ("POST", "write"), ("DELETE", "delete")] {
        assert_eq!(resolve(&table, method, "wiki.test", "/a"), Ok(value));
    }
    let head = resolve(&table, "HEAD", "wiki.test", "/a");
    let listed = vec![Method::DELETE, Method::GET, Method::POST];
    assert_eq!(head, Err(Miss::NoMethod(listed)));
}

#[test]
fn overlapping_entries_are_told_by_place() {
    let lines: [Line; 7] = [
        ("a.test", "/x", &["GET"], "0"),
        ("A.test", "/x/", &["POST", "GET"], "1: GET as in 0"),
        ("a.test", "/x", &["PUT"], "2"),
        ("", "/x", &[], "3"),
        ("*.a.test", "/x", &[], "4"),
        ("", "/x", &["GET"], "5: all as in 3"),
        ("a.test", "/", &[], "6"),
    ];
    let overlaps = RouteTable::new(entries(&lines)).unwrap_err();
    let pairs: Vec<_> = overlaps.iter().map(|pair| (pair.first, pair.second)).collect();
    assert_eq!(pairs, [(0, 1), (3, 5)]);
}

#[test]
fn all_readings_lead_to_one_route_or_nowhere() {
    let table = table(&[
        ("", "/", &[], "public"),
        ("", "/open", &[], "public open"),
        ("", "/admin", &[], "admin"),
        ("", "/team/a", &[], "team a"),
        ("", "/team/b", &[], "team b"),
    ]);
    let honest = [
        ("/", "public"),
        ("/open/a%20b", "public open"),
        ("/open/caf%C3%A9", "public open"),
        ("/open/x;v=1", "public open"),
        ("/Open", "public"),
        ("/.well-known/x", "public"),
        ("/admin/acme%2Fweb", "admin"),
        ("/admin//x", "admin"),
        ("/admin/x/../y", "admin"),
        ("/administrator", "public"),
        ("/team/a/x%252e", "team a"),
    ];
    for (path, value) in honest {
        assert_eq!(resolve(&table, "GET", "app", path), Ok(value), "{path}");
    }
    let tricks = [
        // Ambiguous, with public routes only.
        "/open/x/../y",
        "/open/a%2Fb",
        "/open//x",
        "/open\\x",
        "/open/%00",
        "/open/%2561",
        "/open/%c0%ae",
        "/caf\u{e9}",
        // A guarded one comes up in another reading.
        "/open/../admin",
        "/open/..;/admin",
        "/open/%2e%2e%2fadmin",
        "/%61dmin",
        "/%2561dmin",
        "/admin;x",
        "/admin%3fx",
        "/admin%00x",
        "//admin",
        "/\\admin",
        // In another case of letters.
        "/ADMIN",
        "/Admin/x",
        "/%41dmin",
        // Readings under two guarded routes.
        "/team/a/../b",
        "/team/a/%2e%2e/b",
        "/team/a/..%2fb",
        "/team/a/%ef%bc%8e%ef%bc%8e/b",
        "/admin/../open",
        "/admin/..%2f",
    ];
    for path in tricks {
        let found = resolve(&table, "GET", "app", path);
        assert_eq!(found, Err(Miss::Ambiguous), "{path}");
    }
}

#[test]
fn letters_in_another_case_count_like_the_guarded_spelling() {
    let table = table(&[("", "/", &[], "public"), ("", "/Admin", &["POST"], "admin")]);
    for path in ["/Admin", "/admin", "/ADMIN/x"] {
        assert_eq!(resolve(&table, "GET", "app", path), Ok("public"), "{path}");
    }
    assert_eq!(resolve(&table, "POST", "app", "/Admin"), Ok("admin"));
    for path in ["/admin", "/ADMIN/x"] {
        let found = resolve(&table, "POST", "app", path);
        assert_eq!(found, Err(Miss::Ambiguous), "{path}");
    }
}

#[test]
fn letters_in_another_case_lead_past_no_guarded_route() {
    let lines: [Line; 6] = [
        ("", "/", &[], "members"),
        ("", "/admin", &[], "root"),
        ("", "/open", &[], "public open"),
        ("", "/open/team/Vault", &["POST"], "vault"),
        ("", "/twin", &[], "twin"),
        ("", "/TWIN", &[], "TWIN"),
    ];
    let cases = [
        ("GET", "/admin/x", Ok("root")),
        ("GET", "/ADMIN", Err(Miss::Ambiguous)),
        ("GET", "/Admin/users", Err(Miss::Ambiguous)),
        ("GET", "/%41dmin", Err(Miss::Ambiguous)),
        ("GET", "/ADMIN//x", Err(Miss::Ambiguous)),
        ("GET", "/ADMINistrator", Ok("members")),
        ("GET", "/OPEN/x", Ok("members")),
        ("POST", "/open/team/vault", Err(Miss::Ambiguous)),
        ("GET", "/open/team/vault", Ok("public open")),
        ("GET", "/twin", Ok("twin")),
        ("GET", "/TWIN", Ok("TWIN")),
        ("GET", "/Twin", Err(Miss::Ambiguous)),
    ];
    for reversed in [false, true] {
        let mut lines = lines;
        if reversed {
            lines.reverse();
        }
        let table = table(&lines);
        for (method, path, expected) in cases.clone() {
            assert_eq!(resolve(&table, method, "app", path), expected, "{method} {path}");
        }
    }
}

#[test]
fn an_ambiguous_path_falls_to_the_next_wider_guarded_route() {
    let table = table(&[
        ("", "/", &[], "members"),
        ("", "/open", &[], "public open"),
        ("", "/admin", &[], "admin"),
    ]);
    let cases = [
        ("/open/x", Ok("public open")),
        ("/open/a%2Fb", Ok("members")),
        ("/open//x", Ok("members")),
        ("/open/../x", Ok("members")),
        ("/open/../admin", Err(Miss::Ambiguous)),
        ("/ADMIN", Err(Miss::Ambiguous)),
        ("/Open", Ok("members")),
    ];
    for (path, expected) in cases {
        assert_eq!(resolve(&table, "GET", "app", path), expected, "{path}");
    }
}

#[test]
fn a_reading_outside_all_routes_is_no_agreement() {
    let table = table(&[("", "/app", &[], "app")]);
    for path in ["/app/../x", "/%61pp"] {
        let found = resolve(&table, "GET", "app", path);
        assert_eq!(found, Err(Miss::Ambiguous), "{path}");
    }
    assert_eq!(resolve(&table, "GET", "app", "/%78"), Err(Miss::NoPath));
}

#[test]
fn a_catch_all_names_no_host() {
    let table = table(&[
        ("", "/", &[], "any"),
        ("wiki.test", "/", &[], "wiki"),
        ("*.review.test", "/", &[], "review"),
    ]);
    for host in ["wiki.test", "a.review.test"] {
        assert!(table.names_host(host), "{host}");
    }
    for host in [
        "evil.test",
        "review.test",
        "a.b.review.test",
        ".review.test",
        "wiki.test.evil.test",
        "x.wiki.test",
        "",
    ] {
        assert!(!table.names_host(host), "{host}");
    }
    assert_eq!(table.values().count(), 3);
}

/// What attackers build paths of.
const SHREDS: [&str; 24] = [
    "/",
    "/",
    "open",
    "admin",
    "ADMIN",
    "..",
    ".",
    "%2e",
    "%2E%2e",
    "%2f",
    "%5c",
    "\\",
    ";",
    ";a=b",
    "%00",
    "%09",
    "%25",
    "2e",
    "2f",
    "%61",
    "%c0%ae",
    "%ef%bc%8e",
    "x",
    "?",
];

/// What real parsers make of a path: the WHATWG's as received and decoded, and once more after that.
fn as_others_read(path: &str) -> Vec<String> {
    let decode = |text: &str| {
        let decoded = percent_encoding::percent_decode_str(text);
        decoded.decode_utf8_lossy().into_owned()
    };
    let parse = |text: &str| {
        let url = url::Url::parse(&format!("http://app{text}"));
        url.map_or_else(|_| text.to_owned(), |url| url.path().to_owned())
    };
    let once = parse(path);
    let twice = parse(&decode(&once));
    let plain = parse(&decode(path));
    vec![decode(&once), decode(&twice), decode(&plain), once, twice, plain]
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(4096))]

    #[test]
    fn no_heap_of_tricks_opens_a_guarded_path(
        picks in proptest::collection::vec(proptest::sample::select(&SHREDS[..]), 0..12)
    ) {
        let table = table(&[("", "/", &[], "public"), ("", "/admin", &[], "admin")]);
        let path = format!("/{}", picks.concat());
        let request = Request::get(&path).header("host", "app").body(()).unwrap();
        let peer = Peer { addr: ([192, 0, 2, 1], 1).into(), core: 0 };
        let Ok(target) = Target::read(&request, &peer, &Trust::default(), None) else {
            return Ok(());
        };
        if table.resolve(&target, |value| *value == "public") == Ok(&"public") {
            for reading in as_others_read(target.path()) {
                let guarded = target::covers_in_any_case("/admin", reading.as_bytes());
                proptest::prop_assert!(!guarded, "{path} is open, but {reading} is meant");
            }
        }
    }
}

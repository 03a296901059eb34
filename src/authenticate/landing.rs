//! Where a browser lands after signing in or out: the `rd` parameter, followed only to places that labgate serves.
//!
//! `rd` is read as a browser reads it (WHATWG URL), against the origin of the present request. It is followed to the same host or to one
//! that a route serves, with the same scheme, at the present port or the scheme's default; anything else becomes `/` of the present origin. The result is always
//! an absolute URL, so that a path like `//evil.example` stays a path.

use url::Url;

use crate::target::Origin;

/// The URL to send a browser to for `rd`, as asked for at `origin`; `serves` tells whether a route serves a host.
pub fn landing(rd: &str, origin: &Origin, prefix: &str, serves: &dyn Fn(&str) -> bool) -> String {
    follow(rd, origin, prefix, serves).unwrap_or_else(|| format!("{origin}/"))
}

fn follow(
    rd: &str,
    origin: &Origin,
    prefix: &str,
    serves: &dyn Fn(&str) -> bool,
) -> Option<String> {
    // Browsers drop or reinterpret these; whoever sends them means to be misread.
    let plain = !rd.is_empty()
        && rd.len() <= LONGEST
        && !rd.chars().any(|letter| letter == '\\' || letter.is_control());
    let base = Url::parse(&origin.to_string()).ok().filter(|_| plain)?;
    let url = base.join(rd).ok()?;
    let host = url.host_str()?;
    let known = url.host() == base.host() || serves(host);
    let port = url.port_or_known_default();
    let port_fits = port == base.port_or_known_default() || url.port().is_none();
    let anonymous = url.username().is_empty() && url.password().is_none();
    // Our own endpoints would loop, or sign the user out again.
    let ours = url
        .path()
        .strip_prefix(prefix)
        .is_some_and(|rest| (rest.is_empty() || rest.starts_with('/')) && rest != SIGNED_IN);
    let followed = url.scheme() == base.scheme() && known && port_fits && anonymous && !ours;
    followed.then(|| url.into())
}

/// The page that says to go back to another tab is the one of ours that may be landed on.
const SIGNED_IN: &str = "/signed_in";

/// Longest `rd` in bytes: an attempt's cookie has to hold it.
const LONGEST: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    fn land(rd: &str) -> String {
        let origin = Origin::of(&Url::parse("https://app.example.com").unwrap()).unwrap();
        landing(rd, &origin, "/oauth2", &|host| host == "wiki.example.com")
    }

    #[test]
    fn harmless_values_survive() {
        for (rd, landed) in [
            ("/a/b?c=d&e=%2F#f", "https://app.example.com/a/b?c=d&e=%2F#f"),
            ("/a%2Fb", "https://app.example.com/a%2Fb"),
            ("/käse", "https://app.example.com/k%C3%A4se"),
            ("https://app.example.com/x", "https://app.example.com/x"),
            ("https://wiki.example.com/x?y", "https://wiki.example.com/x?y"),
            ("https://wiki.example.com:443/", "https://wiki.example.com/"),
            ("/oauth2x", "https://app.example.com/oauth2x"),
            ("/oauth2/signed_in", "https://app.example.com/oauth2/signed_in"),
        ] {
            assert_eq!(land(rd), landed, "{rd}");
        }
    }

    #[test]
    fn a_path_of_two_slashes_stays_a_path() {
        assert_eq!(land("/.//evil.test/"), "https://app.example.com//evil.test/");
        assert_eq!(
            land("https://app.example.com//evil.test/"),
            "https://app.example.com//evil.test/"
        );
    }

    #[test]
    fn everything_else_becomes_the_root() {
        for rd in [
            "",
            "//evil.test",
            "///evil.test",
            "////evil.test/",
            "https:///evil.test",
            "http://app.example.com/",
            "https://app.example.com:8443/",
            "https://wiki.example.com:8443/",
            "https://user@app.example.com/",
            "https://app.example.com@evil.test/",
            "https://app.example.com.evil.test/",
            "https://evilapp.example.com/",
            "https://other.example.com/",
            "/\\evil.test",
            "\\\\evil.test",
            "/\t/evil.test",
            "\u{1}//evil.test",
            "/\r\nLocation: https://evil.test",
            "javascript:alert(1)",
            "data:text/html,x",
            "blob:https://app.example.com/1",
            "intent://evil.test#Intent;end",
            "https://evil。test/",
            "https://0x7f000001/",
            "https://[::1]/",
            "/oauth2/sign_out",
            "/oauth2/signed_in/",
            "/oauth2/signed_in/../sign_out",
            "/oauth2",
            "/x/../oauth2/sign_out?rd=/",
        ] {
            assert_eq!(land(rd), "https://app.example.com/", "{rd:?}");
        }
        assert_eq!(land(&format!("/{}", "a".repeat(LONGEST))), "https://app.example.com/");
    }
}

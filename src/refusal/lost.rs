//! Why a browser doesn't bring back what it was given: the likely cause, as far as it shows in a request, and its words.

use super::Words;

/// The likely cause of a cookie that never comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The page stands in another site's frame, where browsers keep `SameSite` cookies back.
    Frame,
    /// The browser seems to use http, where it keeps no `Secure` cookies.
    Http,
    /// A proxy that is not trusted says that the browser uses another scheme.
    Untold,
    /// A proxy that is not trusted says that the browser uses another host.
    Host,
    /// A cookie comes back that no key of this labgate opens.
    Keys,
    /// The session comes back, but is over at once.
    Clock,
    /// Nothing shows: the browser, or something on the way, keeps cookies from coming back.
    Cookies,
}

impl Lost {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Frame, Self::Http, Self::Untold, Self::Host, Self::Keys, Self::Clock, Self::Cookies];

    /// A stable word for the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Http => "http",
            Self::Untold => "untold",
            Self::Host => "host",
            Self::Keys => "keys",
            Self::Clock => "clock",
            Self::Cookies => "cookies",
        }
    }

    /// What a person may read who can't get in for it.
    pub(super) const fn words(self, title: &'static str) -> Words {
        let (detail, advice, operator) = match self {
            Self::Frame => (
                "This page is shown inside another site, where your browser keeps this site's cookies back.",
                "Open this site in a tab of its own and sign in there.",
                "Cookies with SameSite=Lax don't reach a frame of another site, and GitLab can't be shown in one. See `session.cookie.same_site`, and have people sign in in a tab of its own first.",
            ),
            Self::Http => (
                "Your browser seems to have come here by http, and the cookie that remembers you is for https only.",
                "Start again at the address that begins with https://.",
                "Redirect http to https before labgate. If people do come by https, `server.public_url` is right and something else removes the cookie on the way.",
            ),
            Self::Untold => (
                "This server was told two different things about how your browser reaches it, so the cookie that remembers you does not fit.",
                "You can't mend this yourself. Tell whoever runs this site, and give them the request id below.",
                "The proxy before labgate sends X-Forwarded-Proto, but is not in `server.trusted_proxies`, so it does not count. Add it there, or set `server.public_url`.",
            ),
            Self::Host => (
                "Your browser seems to use another address for this site than the one that it signs people in at.",
                "Use the address that you were given for this site, with the same host name all the way.",
                "The proxy before labgate sends another name in X-Forwarded-Host than in Host, and is not in `server.trusted_proxies`. Have it keep Host, add it there, or redirect the other name to that of `server.public_url`.",
            ),
            Self::Keys => (
                "Your browser brings back what it was given, but this server can't read it.",
                "You can't mend this yourself. Tell whoever runs this site, and give them the request id below.",
                "Replicas that seal with different keys can't read each other's sessions: give all of them the same `session.keys`. Or the proxy before labgate changes or cuts cookies.",
            ),
            Self::Clock => (
                "Each session is over as soon as it has begun.",
                "You can't mend this yourself. Tell whoever runs this site, and give them the request id below.",
                "Compare `date -u` of all replicas, and see the log for why sessions end: `session.lifetime`, or a revocation.",
            ),
            Self::Cookies => (
                "Your browser does not bring back the cookie that remembers you, though the sign-in itself works.",
                "Allow cookies for this site, or try a private window without extensions. Then start again.",
                "If it happens to everybody: the proxy before labgate must pass Set-Cookie and Cookie on unchanged, with header buffers of 8 KB, and people must begin and end at the same host and scheme. Check `server.public_url`.",
            ),
        };
        Words::new(title, detail, advice).operator(operator)
    }
}

//! Why a front proxy's question can't be answered: nearly always something that whoever set the proxy up has to mend.

use http::StatusCode;

use super::{Fault, Refusal, Words};

/// Why a front proxy's question can't be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontTrouble {
    /// Whoever asks is none of the proxies that may.
    Untrusted,
    /// The question is not as the dialect says; what is wrong with it.
    Headers(&'static str),
    /// No route serves what it asks about.
    NoRoute,
    /// It asks about one of labgate's own paths.
    OwnPath,
    /// The question is longer than anything that is read.
    TooLarge,
    /// The answer lets pass, and the proxy did nothing with it.
    Unused,
}

impl From<FrontTrouble> for Refusal {
    fn from(trouble: FrontTrouble) -> Self {
        Self::Front(trouble)
    }
}

impl FrontTrouble {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Untrusted | Self::Headers(_) | Self::NoRoute | Self::OwnPath => {
                StatusCode::FORBIDDEN
            },
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unused => StatusCode::BAD_GATEWAY,
        }
    }

    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Untrusted => "front_untrusted",
            Self::Headers(_) => "front_headers",
            Self::NoRoute => "front_no_route",
            Self::OwnPath => "front_own_path",
            Self::TooLarge => "front_too_large",
            Self::Unused => "front_answer_unused",
        }
    }

    pub(super) fn fault(self) -> Fault {
        match self {
            Self::Untrusted | Self::Headers(_) | Self::NoRoute | Self::OwnPath | Self::TooLarge => {
                Fault::Client
            },
            Self::Unused => Fault::Us,
        }
    }

    pub(super) fn words(self) -> Words {
        match self {
            Self::Untrusted => Words::new(
                "Only the proxy in front may ask that",
                "This address is for the server's own proxies, and the request did not come from one of them.",
                "Open the site itself.",
            )
            .operator("If it did, add the proxy's address to `server.trusted_proxies`."),
            Self::Headers(problem) => Words::new(
                "The proxy in front doesn't ask properly",
                "",
                "If you sent such headers yourself, leave them out. Otherwise tell whoever runs this site, and give them the request id below.",
            )
            .detail(format!("What it asks about can't be told for certain: {problem}."))
            .operator("Compare the proxy's configuration with what `labgate front` prints."),
            Self::NoRoute => Words::new(
                "There is nothing here",
                "No page or application is served at this address.",
                "Check the address for a typing mistake, or go back.",
            )
            .operator("No [[route]] serves this host and path; the log has both."),
            Self::OwnPath => Words::new(
                "The proxy in front keeps sign-ins away",
                "It asks whether you may open a page that is there to sign you in.",
                "You can't mend this yourself. Tell whoever runs this site, and give them the request id below.",
            )
            .operator("Paths below `server.prefix` must go to labgate itself, without the question; compare with what `labgate front` prints."),
            Self::TooLarge => Words::new(
                "This request is too large",
                "It is larger than what can be judged before it is let pass.",
                "Send less at once. If you see this in a browser, this site's cookies may have grown too large: delete them and try again.",
            )
            .operator("Envoy need not send bodies along: leave `with_request_body` out."),
            Self::Unused => Words::new(
                "The proxy in front has a problem",
                "You may open this, but the proxy did not get that far.",
                "Try again. If it stays, tell whoever runs this site, and give them the request id below.",
            )
            .operator("The proxy's own log says why: labgate's answer may have been too large for its buffers, or too late."),
        }
    }
}

//! Why a call to GitLab gave no usable answer, in words that tell an operator what to mend.

use std::{error::Error, time::Duration};

use crate::body::BoxError;

/// Why GitLab gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Not tried: it has been out of reach, or asked for a pause.
    #[error("GitLab is known to be out of reach; next attempt in {} s", .0.as_secs() + 1)]
    Down(Duration),
    /// Too many calls are under way.
    #[error("too many calls to GitLab are under way")]
    Busy,
    /// As many calls about tokens that it does not know were made in this minute as may be.
    #[error("as many calls about unknown tokens were made in a minute as may be")]
    Spent(Duration),
    /// The host name is not known.
    #[error("the host name {0} can't be resolved")]
    Name(String, #[source] BoxError),
    /// Nobody listens there.
    #[error("{0} refuses connections")]
    Refused(String, #[source] BoxError),
    /// The certificate is not to be believed.
    #[error("the certificate of {0} is not accepted: {1}")]
    Certificate(String, Certificate, #[source] BoxError),
    /// No connection, for another reason.
    #[error("no connection to {0}")]
    Connect(String, #[source] BoxError),
    /// No answer in time.
    #[error("no complete answer in time")]
    Timeout,
    /// The connection broke before the answer was complete.
    #[error("the connection broke before the answer was complete")]
    Broken(#[source] BoxError),
    /// The answer is longer than any right one.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// GitLab asks to slow down (429).
    #[error("GitLab asks for fewer requests")]
    TooMany(Option<Duration>),
    /// A redirect, which is never followed: the base URL leads elsewhere.
    #[error("redirected with status {0}; does the base URL lead to GitLab itself?")]
    Redirect(u16),
    /// A status that is no verdict on anything.
    #[error("GitLab answers with status {0}")]
    Status(u16, Option<Duration>),
    /// A page instead of data, as proxies and maintenance pages send.
    #[error("not JSON, with status {0}")]
    NotJson(u16),
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Certificate {
    /// Signed by nobody we know.
    #[error("unknown issuer; name the authority's PEM file with `ca`")]
    UnknownIssuer,
    /// A self-signed certificate that says it is an authority.
    #[error(
        "it is an authority's own certificate, which can't identify a server; make one with `basicConstraints=CA:FALSE`"
    )]
    CaAsServer,
    /// For another host.
    #[error("it is for another host name")]
    OtherName,
    /// Out of date.
    #[error("it has expired")]
    Expired,
    /// Too early.
    #[error("it is not valid yet; is this machine's clock right?")]
    NotYetValid,
    /// For a rarer reason.
    #[error("it is not valid")]
    Other,
}

impl CallError {
    /// How long GitLab asked to wait, or how long it won't be called.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Down(wait) | Self::Spent(wait) => Some(*wait),
            Self::TooMany(wait) | Self::Status(_, wait) => *wait,
            _ => None,
        }
    }

    /// Whether GitLab may have acted on the call although no usable answer came back.
    pub fn is_sent(&self) -> bool {
        match self {
            Self::Down(_)
            | Self::Busy
            | Self::Spent(_)
            | Self::Name(..)
            | Self::Refused(..)
            | Self::Certificate(..)
            | Self::Connect(..)
            | Self::TooMany(_) => false,
            Self::Timeout
            | Self::Broken(_)
            | Self::TooLong(_)
            | Self::Redirect(_)
            | Self::Status(..)
            | Self::NotJson(_) => true,
        }
    }

    /// One word for metrics, or GitLab's status.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Down(_) => "down".into(),
            Self::Busy | Self::Spent(_) => "busy".into(),
            Self::Name(..) | Self::Refused(..) | Self::Connect(..) => "connect".into(),
            Self::Certificate(..) => "tls".into(),
            Self::Timeout => "timeout".into(),
            Self::Broken(_) | Self::TooLong(_) => "body".into(),
            Self::TooMany(_) => "429".into(),
            Self::Redirect(status) | Self::Status(status, _) | Self::NotJson(status) => {
                status.to_string()
            },
        }
    }
}

/// `error` and its causes, outermost first.
pub(super) fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

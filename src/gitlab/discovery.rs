//! Whether GitLab is there, and what it calls itself: of the discovery document only the issuer counts, and only if it names the configured base URL.

use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde::Deserialize;
use tokio::time::{sleep, timeout};
use url::Url;

use super::{CallError, IdTokenError, Provider, failure::chain, http::USUAL, lane::Lane};

/// Between two looks at discovery while all is well.
const RARELY: Duration = Duration::from_hours(1);
/// Between two looks while GitLab is out of reach.
const OFTEN: Duration = Duration::from_secs(1);
/// The longest of those.
const SELDOM: Duration = Duration::from_secs(30);

/// Why discovery says nothing.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// It can't be had.
    #[error("GitLab's discovery document can't be read")]
    Unavailable(#[source] CallError),
    /// It is none.
    #[error("GitLab's discovery document is malformed")]
    Answer,
    /// It names an issuer other than the configured base URL.
    #[error("discovery names the issuer {found}, not {expected}; is `base_url` what browsers see?")]
    Issuer {
        /// What it says.
        found: String,
        /// What the configuration says.
        expected: String,
    },
}

/// What is known of the issuer.
pub(super) struct Discovery {
    expected: String,
    found: ArcSwapOption<Found>,
}

struct Found {
    issuer: String,
    development: bool,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    #[serde(default)]
    labgate_development_gitlab: bool,
}

impl Discovery {
    pub(super) fn new(base: &Url) -> Self {
        let expected = base.as_str().trim_end_matches('/').to_owned();
        Self { expected, found: ArcSwapOption::empty() }
    }

    pub(super) fn issuer(&self) -> String {
        let found = self.found.load();
        found.as_ref().map_or_else(|| self.expected.clone(), |found| found.issuer.clone())
    }

    pub(super) fn is_development(&self) -> bool {
        self.found.load().as_ref().is_some_and(|found| found.development)
    }

    pub(super) fn is_known(&self) -> bool {
        self.found.load().is_some()
    }

    /// Takes over what the document says; an issuer may differ from the base URL in its final slash only.
    fn accept(&self, document: Document) -> Result<(), DiscoveryError> {
        let same = Url::parse(&document.issuer)
            .is_ok_and(|issuer| issuer.as_str().trim_end_matches('/') == self.expected);
        if !same {
            self.found.store(None);
            return Err(DiscoveryError::Issuer {
                found: document.issuer.chars().take(200).collect(),
                expected: self.expected.clone(),
            });
        }
        let found =
            Found { issuer: document.issuer, development: document.labgate_development_gitlab };
        self.found.store(Some(found.into()));
        Ok(())
    }
}

impl Provider {
    /// Reads discovery once and remembers the issuer.
    ///
    /// # Errors
    /// See [`DiscoveryError`].
    pub async fn probe(&self) -> Result<(), DiscoveryError> {
        let path = ".well-known/openid-configuration";
        let answer = self.client.get(Lane::Public, "discovery", path, None, USUAL).await;
        let answer = answer.map_err(DiscoveryError::Unavailable)?;
        match answer.status.as_u16() {
            200 => {
                let document = serde_json::from_slice(&answer.body);
                self.discovery.accept(document.map_err(|_| DiscoveryError::Answer)?)
            },
            status => Err(DiscoveryError::Unavailable(CallError::Status(status, None))),
        }
    }

    /// Keeps an eye on GitLab for ever: discovery at start, rarely while all is well, often while GitLab is out of reach, so that its return is
    /// noticed although nobody waits for it. Says in the log when it goes and comes.
    pub async fn watch(&self) {
        let mut pause = OFTEN;
        let mut trouble = None;
        loop {
            match self.probe().await {
                Ok(()) => {
                    if trouble.take().is_some() {
                        tracing::info!(gitlab.name = self.name, "GitLab answers again");
                    }
                    pause = OFTEN;
                    let _: Result<(), _> = timeout(RARELY, self.client.went_down()).await;
                },
                Err(DiscoveryError::Unavailable(CallError::Down(_))) => {},
                Err(error) => {
                    let causes: Vec<_> = chain(&error).map(ToString::to_string).collect();
                    let causes = Some(causes.join(": "));
                    if trouble != causes {
                        self.say(causes.as_deref().unwrap_or_default());
                        trouble = causes;
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(SELDOM);
                },
            }
            sleep(self.client.wait(Lane::Public)).await;
        }
    }

    /// Once for each kind of trouble, not once a try.
    fn say(&self, trouble: &str) {
        tracing::warn!(
            gitlab.name = self.name,
            gitlab.url = %self.client.url(""),
            error = trouble,
            "GitLab can't be used; nobody can sign in with it until it answers"
        );
    }

    /// The issuer; asks discovery if nobody has yet, and goes by the base URL if that can't be had.
    pub(super) async fn known_issuer(&self) -> Result<String, IdTokenError> {
        if !self.discovery.is_known()
            && let Err(DiscoveryError::Issuer { expected, .. }) = self.probe().await
        {
            return Err(IdTokenError::Issuer { expected });
        }
        Ok(self.discovery.issuer())
    }
}

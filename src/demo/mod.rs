//! What `labgate demo` and the integration tests run against: a development GitLab and a sample app, both on loopback.
//!
//! Both prefer a fixed port and take another if that one is taken; what became of it is data, the words are printed by `cli`. The
//! proxy between them, and its configuration, are left to `cli` and `app`.

mod answer;
mod serve;

pub mod gitlab;
pub mod upstream;

use std::net::{Ipv4Addr, SocketAddr};

use self::{gitlab::DevGitlab, upstream::SampleApp};

/// The port that the development GitLab prefers in the demo.
pub const GITLAB_PORT: u16 = 4181;
/// The port that the sample app prefers in the demo.
pub const APP_PORT: u16 = 4182;

/// Both halves of the demo; dropping it ends them at once.
#[derive(Debug)]
pub struct Demo {
    /// The development GitLab.
    pub gitlab: DevGitlab,
    /// The sample app, unless an app of one's own is protected.
    pub app: Option<SampleApp>,
}

impl Demo {
    /// Starts both on their preferred loopback ports, or on others if those are taken.
    ///
    /// # Errors
    ///
    /// When no port can be had, or a redirect URI is none.
    pub async fn start(redirect_uris: Vec<String>, sample_app: bool) -> anyhow::Result<Self> {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self::start_at(at(GITLAB_PORT), sample_app.then(|| at(APP_PORT)), redirect_uris).await
    }

    async fn start_at(
        gitlab: SocketAddr,
        app: Option<SocketAddr>,
        redirect_uris: Vec<String>,
    ) -> anyhow::Result<Self> {
        let gitlab = DevGitlab::start(gitlab::Options {
            listen: gitlab,
            or_other_port: true,
            redirect_uris,
            ..gitlab::Options::default()
        })
        .await?;
        let app = match app {
            Some(listen) => {
                let options =
                    upstream::Options { listen, or_other_port: true, force_public: false };
                Some(SampleApp::start(options).await?)
            },
            None => None,
        };
        Ok(Self { gitlab, app })
    }

    /// One sentence for each part that did not get its preferred port.
    pub fn notices(&self) -> Vec<String> {
        let app = self.app.as_ref();
        let parts = [
            ("development GitLab", self.gitlab.taken(), Some(self.gitlab.addr())),
            ("sample app", app.and_then(SampleApp::taken), app.map(SampleApp::addr)),
        ];
        let moved = parts.into_iter().filter_map(|(part, taken, addr)| {
            Some(format!("{} is taken, so the {part} listens on {}", taken?, addr?))
        });
        moved.collect()
    }

    /// Ends both and waits until their sockets are closed.
    pub async fn stop(self) {
        if let Some(app) = self.app {
            app.stop().await;
        }
        self.gitlab.stop().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_demos_run_side_by_side_and_say_which_ports_were_taken() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let first = Demo::start_at(any, Some(any), Vec::new()).await.unwrap();
        assert!(first.notices().is_empty());
        let (gitlab, app) = (first.gitlab.addr(), first.app.as_ref().unwrap().addr());
        let second = Demo::start_at(gitlab, Some(app), Vec::new()).await.unwrap();
        let moved = second.gitlab.addr();
        let expected = format!("{gitlab} is taken, so the development GitLab listens on {moved}");
        assert_eq!(second.notices()[0], expected);
        assert!(second.notices()[1].starts_with(&format!("{app} is taken, so the sample app")));
        first.stop().await;
        let alone = Demo::start_at(any, None, Vec::new()).await.unwrap();
        assert!(alone.app.is_none() && alone.notices().is_empty());
    }
}

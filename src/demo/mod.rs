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
        let gitlab = DevGitlab::start(gitlab::Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, GITLAB_PORT)),
            or_other_port: true,
            redirect_uris,
            ..gitlab::Options::default()
        })
        .await?;
        let app = if sample_app {
            let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, APP_PORT));
            let options = upstream::Options {
                listen,
                or_other_port: true,
                force_public: false,
            };
            Some(SampleApp::start(options).await?)
        } else {
            None
        };
        Ok(Self { gitlab, app })
    }

    /// One sentence for each part that did not get its preferred port.
    pub fn notices(&self) -> Vec<String> {
        let app = self.app.as_ref();
        let parts = [
            (
                "development GitLab",
                self.gitlab.taken(),
                Some(self.gitlab.addr()),
            ),
            (
                "sample app",
                app.and_then(SampleApp::taken),
                app.map(SampleApp::addr),
            ),
        ];
        let moved = parts.into_iter().filter_map(|(part, taken, addr)| {
            Some(format!(
                "{} is taken, so the {part} listens on {}",
                taken?, addr?
            ))
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
        let first = Demo::start(Vec::new(), true).await.unwrap();
        let second = Demo::start(Vec::new(), true).await.unwrap();
        assert_ne!(first.gitlab.addr(), second.gitlab.addr());
        let notices = second.notices();
        assert_eq!(
            notices.len(),
            2,
            "whoever holds them, the second found both taken"
        );
        assert!(notices[0].contains(&format!("listens on {}", second.gitlab.addr())));
        assert!(notices[1].contains("127.0.0.1:4182 is taken"));
        first.stop().await;
        let alone = Demo::start(Vec::new(), false).await.unwrap();
        assert!(alone.app.is_none());
    }
}

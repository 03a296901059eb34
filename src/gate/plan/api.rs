//! `[gitlab.NAME] api`: there is something to prove by whom a call is made, and nobody else is listened to.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{super::build::needs, Draft};

impl Draft<'_> {
    pub(super) fn apis(&mut self) {
        let server = &self.config.server;
        let mut taken: BTreeMap<SocketAddr, String> =
            [(server.listen, "server.listen".into()), (server.admin, "server.admin".into())].into();
        for (name, gitlab) in &self.config.gitlab {
            let Some(api) = &gitlab.api else { continue };
            let (key, listen) = (format!("gitlab.{name}.api"), format!("gitlab.{name}.api.listen"));
            if self.config.identity.assertion.is_none() {
                self.advise(
                    &key,
                    "applications have nothing to show for whom they ask",
                    "give `identity.assertion` a key from `labgate keygen assertion`",
                );
            }
            match (api.listen.ip().is_loopback(), api.insecure_allow_other_machines) {
                (true, _) => {},
                (false, false) => self.advise(
                    &listen,
                    "other machines could show assertions that they have seen",
                    "listen on 127.0.0.1; or say `insecure_allow_other_machines = true` if that is meant",
                ),
                (false, true) => self.warn(
                    &listen,
                    "other machines can call GitLab as anybody whose assertion they have seen",
                    "keep it behind a network policy that lets in the applications alone",
                ),
            }
            if let Some(other) = taken.insert(api.listen, listen.clone())
                && api.listen.port() != 0
            {
                self.error(listen, format!("`{other}` listens there already"));
            }
            let scopes = needs(self.config, name).scopes(&gitlab.scopes);
            if !scopes.iter().any(|scope| ["api", "read_api"].contains(&scope.as_str())) {
                self.warn(
                    &key,
                    format!(
                        "with the scopes `{}` GitLab tells little but who the user is",
                        scopes.join(" ")
                    ),
                    "add `read_api` to `scopes`, here and where the application is registered",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::gate::Plan;

    fn told(api: &str, more: &str) -> (bool, String) {
        let text = format!(
            "server.public_url = \"https://a.example\"\n\
             gitlab.main = {{ client_id = \"x\", base_url = \"https://git.example\", scopes = [\"openid\", \"read_api\"], api = {api} }}\n\
             session.keys = [\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"]\n\
             [[route]]\nupstream = \"http://127.0.0.1:3000\"\nallow = \"signed-in\"\n{more}"
        );
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let pem = key.serialize_pem();
        let env = |name: &str| (name == "PEM").then(|| pem.clone());
        let (plan, problems) = Plan::draw(&toml::from_str(&text).unwrap(), &env);
        let told =
            problems.into_iter().map(|problem| format!("{}: {}", problem.key, problem.message));
        (plan.is_some(), told.collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn a_way_to_the_api_is_for_this_machine_and_needs_a_key() {
        let key = "[identity]\nassertion = { key = { env = \"PEM\" } }\n";
        let loopback = "{ listen = \"127.0.0.1:4192\" }";
        assert_eq!(told(loopback, key), (true, String::new()));
        let other = format!(
            "{key}[gitlab.other]\nclient_id = \"y\"\nbase_url = \"https://other.example\"\n\
             scopes = [\"openid\", \"api\"]\napi = {loopback}\n"
        );
        let little = format!(
            "{key}[gitlab.other]\nclient_id = \"y\"\nbase_url = \"https://other.example\"\napi = {{ listen = \"127.0.0.1:1\" }}\n"
        );
        for (api, more, sound, problem) in [
            (loopback, "", false, "gitlab.main.api: applications have nothing to show"),
            (
                "{ listen = \"0.0.0.0:4192\" }",
                key,
                false,
                "gitlab.main.api.listen: other machines could",
            ),
            (
                "{ listen = \"0.0.0.0:4192\", insecure_allow_other_machines = true }",
                key,
                true,
                "gitlab.main.api.listen: other machines can",
            ),
            (
                "{ listen = \"127.0.0.1:4190\" }",
                key,
                false,
                "gitlab.main.api.listen: `server.admin` listens",
            ),
            (loopback, &other, false, "gitlab.other.api.listen: `gitlab.main.api.listen` listens"),
            (loopback, &little, true, "gitlab.other.api: with the scopes `openid email read_user`"),
        ] {
            let (plan, told) = told(api, more);
            assert!(told.starts_with(problem), "{api}: {told}");
            assert_eq!(plan, sound, "{api}");
        }
    }
}

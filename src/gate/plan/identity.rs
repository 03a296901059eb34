//! `[identity]`: headers have names and claims, keys sign, and what is to be handed on has somebody who wants it.

use super::{Draft, chain};
use crate::{
    config::{Route, TokenKind},
    identity::{AssertionKeyError, Assertions, HeaderTable},
};

impl Draft<'_> {
    pub(super) fn headers(&mut self) -> Option<HeaderTable> {
        let table = match HeaderTable::new(&self.config.identity.table()) {
            Ok(table) => table,
            Err(errors) => {
                for error in errors {
                    self.error(format!("identity.headers.{}", error.header), error.reason);
                }
                return None;
            },
        };
        let [assertion, token] = table.told_in_passing();
        match (assertion, &self.config.identity.assertion) {
            (Some(header), None) => self.advise(
                &format!("identity.headers.{header}"),
                "no key is given to sign assertions with",
                "make one with `labgate keygen assertion`, and name it in `identity.assertion.key`",
            ),
            (None, Some(_)) => self.warn(
                "identity.assertion",
                "no header hands it on",
                "add `X-Labgate-Assertion = \"assertion\"` to `[identity.headers]`",
            ),
            (Some(_), Some(_)) | (None, None) => {},
        }
        self.tokens(token.map(ToString::to_string).as_deref());
        Some(table)
    }

    /// Who gets access tokens, in which header: that is worth a second thought.
    fn tokens(&mut self, header: Option<&str>) {
        let routes = self.config.route.iter().enumerate();
        let routes: Vec<_> = routes.filter(|(_, route)| route.access_token).collect();
        for (index, _) in &routes {
            let key = format!("route[{index}].access_token");
            match header {
                Some(header) => self.warn(
                    &key,
                    format!("the application is given each user's access token in `{header}`"),
                    "it can do whatever the scopes allow, as that user: keep them few, or take the line out",
                ),
                None => self.warn(
                    &key,
                    "no header carries the token",
                    "add one to `[identity.headers]`, such as `X-Forwarded-Access-Token = \"access_token\"`",
                ),
            }
        }
        self.tokens_of_sign_ins(&routes);
        if let (Some(header), true) = (header, routes.is_empty()) {
            self.warn(
                &format!("identity.headers.{header}"),
                "no route asks for access tokens, so it is never written",
                "say `access_token = true` in the `[[route]]` of the application that needs it",
            );
        }
    }

    /// What a sign-in's own token opens here, in the hands of an application.
    fn tokens_of_sign_ins(&mut self, routes: &[(usize, &Route)]) {
        for (index, route) in routes {
            let mut gitlabs = self.config.gitlab.iter().filter(|(name, gitlab)| {
                route.admits(name) && gitlab.tokens.accepts(TokenKind::Oauth)
            });
            let Some((name, _)) = gitlabs.next() else { continue };
            self.warn(
                &format!("route[{index}].access_token"),
                format!("with this token the application can call every route that takes `oauth` of {name}, as that user"),
                "leave `oauth` out of `tokens` of the routes that it must not reach, or of `tokens.accept`",
            );
        }
    }

    pub(super) fn assertions(&mut self) -> Option<Assertions> {
        let table = self.config.identity.assertion.as_ref()?;
        let mut keys = Vec::new();
        let mut places = Vec::new();
        for (key, secret) in table.key.named("identity.assertion.key") {
            match secret.read(self.env) {
                Ok(text) => keys.push(text),
                Err(error) => self.missing(&key, chain(&error)),
            }
            places.push(key);
        }
        if keys.len() < places.len() {
            return None;
        }
        let keys: Vec<_> = keys.iter().map(|key| key.as_bytes()).collect();
        match Assertions::new(&keys, table.lifetime) {
            Ok(assertions) => Some(assertions),
            Err(error) => {
                let key =
                    places.get(error.index()).map_or("identity.assertion.key", String::as_str);
                match error {
                    AssertionKeyError::NotP256(_) => self.advise(
                        key,
                        error.to_string(),
                        "make one with `labgate keygen assertion`",
                    ),
                    AssertionKeyError::Twice(_) | AssertionKeyError::None => {
                        self.error(key, error.to_string());
                    },
                }
                None
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::gate::Plan;

    fn told(identity: &str, route: &str) -> (bool, String) {
        let text = format!(
            "server.public_url = \"https://a.example\"\n\
             gitlab.main = {{ client_id = \"x\", base_url = \"https://git.example\" }}\n\
             session.keys = [\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"]\n\
             [[route]]\nupstream = \"http://127.0.0.1:3000\"\nallow = \"signed-in\"\n{route}\n\
             [identity]\n{identity}\n"
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
    fn a_key_that_does_not_sign_is_a_problem_and_one_that_nobody_sees_a_warning() {
        let key = "assertion = { key = { env = \"PEM\" } }";
        assert_eq!(told(key, ""), (true, String::new()));
        for (identity, sound, problem) in [
            (
                "assertion = { key = { env = \"GONE\" } }",
                false,
                "identity.assertion.key: environment variable GONE",
            ),
            (
                "assertion = { key = [{ env = \"PEM\" }, \"x\"] }",
                false,
                "identity.assertion.key[1]: not a P-256",
            ),
            (
                "assertion = { key = [{ env = \"PEM\" }, { env = \"PEM\" }] }",
                false,
                "identity.assertion.key[1]: this key is there twice",
            ),
            (&format!("{key}\nheaders = {{}}"), true, "identity.assertion: no header hands it on"),
            (
                "headers = { X-A = \"{username}:{assertion}\" }",
                false,
                "identity.headers.x-a: no key is given",
            ),
        ] {
            let (plan, told) = told(identity, "");
            assert!(told.starts_with(problem), "{identity}: {told}");
            assert_eq!(plan, sound, "{identity}");
        }
    }

    #[test]
    fn a_token_that_opens_other_routes_is_told() {
        let told = |accept: &str, of: &str| {
            let text = format!(
                "server.public_url = \"https://a.example\"\n\
                 gitlab.main = {{ client_id = \"x\", base_url = \"https://git.example\", tokens = {{ accept = [\"{accept}\"] }} }}\n\
                 gitlab.other = {{ client_id = \"y\", base_url = \"https://git.other.example\" }}\n\
                 session.keys = [\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"]\n\
                 identity.headers = {{ X-Token = \"access_token\" }}\n\
                 [[route]]\nupstream = \"http://127.0.0.1:3000\"\nallow = \"signed-in\"\naccess_token = true\ngitlab = [\"{of}\"]\n"
            );
            let (_, problems) = Plan::draw(&toml::from_str(&text).unwrap(), &|_| None);
            problems.iter().any(|problem| problem.message.contains("takes `oauth` of main"))
        };
        assert!(told("oauth", "main"));
        assert!(!told("personal", "main") && !told("oauth", "other"));
    }

    #[test]
    fn access_tokens_go_only_where_both_sides_say_so_and_are_warned_of() {
        let header = "headers = { X-Token = \"access_token\" }";
        for (identity, route, problem) in [
            (
                header,
                "access_token = true",
                "route[0].access_token: the application is given each user's access token in `x-token`",
            ),
            (header, "", "identity.headers.x-token: no route asks for access tokens"),
            ("", "access_token = true", "route[0].access_token: no header carries the token"),
        ] {
            let (plan, told) = told(identity, route);
            assert!(plan && told.starts_with(problem), "{told}");
            assert!(!told.contains("; "), "{told}");
        }
    }
}

//! Further conditions beside a front proxy's question, in a query as users of oauth2-proxy write them or in Envoy's context: they narrow what the route
//! allows, and never widen it.
//!
//! ```text
//! allowed_groups=acme/web,acme/ops   in one of these groups, and
//! allowed_emails=ada@example.com     with one of these addresses, and
//! allowed_email_domains=example.com  with an address at one of these domains, and
//! host=wiki.example.com              asked for under this name, as the proxy understood it
//! ```
//!
//! A condition that is not known, or names nothing, is refused: to leave it out would let people pass who should not.

use std::{borrow::Cow, collections::BTreeMap};

use url::form_urlencoded;

use super::{
    Gate,
    permit::{NoPermit, Permit},
};
use crate::{
    authorize::{Denial, Policy, UsersFiles},
    config::{Allow, GroupPath, Rule},
    identity::Identity,
    refusal::{FrontTrouble, Refusal},
};

/// The pairs of a query.
pub(super) fn of_query(query: &str) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(query.as_bytes())
}

/// Whether what is asked for at `host` is what `query` says, if it says so: some proxies choose the application by another word of the client than the one
/// that they ask about.
pub(super) fn is_host(query: &str, host: &str) -> bool {
    let named = of_query(query).filter(|(key, _)| key.eq_ignore_ascii_case("host"));
    named.map(|(_, named)| named).all(|named| named.eq_ignore_ascii_case(host))
}

/// Whether `identity`, or nobody, also meets the conditions among `pairs`. Of groups that no rule mentions a cookie may have had no room for some, so who is
/// in one around them counts as in them; `is_ruled` says which are mentioned.
///
/// # Errors
/// When it can't be told what that is.
fn judge<'a>(
    pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
    identity: Option<&Identity>,
    is_ruled: impl Fn(&GroupPath) -> bool,
) -> Result<Result<(), NoPermit>, Refusal> {
    for rules in conditions(pairs)? {
        let heir = identity.and_then(|one| {
            let is_open = |group: &&GroupPath| one.level_in(group).is_none() && !is_ruled(group);
            let open: Vec<_> =
                rules.iter().filter_map(|rule| rule.group.as_ref()).filter(is_open).collect();
            (!open.is_empty()).then(|| one.inheriting(open))
        });
        let policy = Policy::new(&Allow::Rules(rules), &mut UsersFiles::default());
        let policy = policy.map_err(|_| FrontTrouble::Headers(NAMES_NOTHING))?;
        match policy.check(heir.as_ref().or(identity)) {
            Ok(()) => {},
            Err(Denial::SignIn) => return Ok(Err(NoPermit::SignIn)),
            Err(Denial::Forbidden(unmet)) => return Ok(Err(NoPermit::Forbidden(unmet))),
        }
    }
    Ok(Ok(()))
}

impl Gate {
    /// Whether who holds `permit` also meets the conditions among `pairs`.
    ///
    /// # Errors
    /// When it can't be told what that is.
    pub(super) fn narrowed<'a>(
        &self,
        pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
        permit: &Permit<'_>,
    ) -> Result<Result<(), NoPermit>, Refusal> {
        let identity = permit.who().identity();
        let providers = &self.authenticator.providers;
        let provider = identity.and_then(|identity| providers.get(&identity.gitlab));
        judge(pairs, identity, |group| provider.is_some_and(|provider| provider.is_ruled(group)))
    }
}

/// The rules of each condition, of which one must hold.
fn conditions<'a>(
    pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
) -> Result<Vec<Vec<Rule>>, FrontTrouble> {
    let mut conditions: BTreeMap<String, Vec<Rule>> = BTreeMap::new();
    // In any case: what is misspelt is refused, not left out.
    let is_one =
        |key: &str| key.get(..STEM.len()).is_some_and(|stem| stem.eq_ignore_ascii_case(STEM));
    for (key, value) in pairs.filter(|(key, _)| is_one(key)) {
        let rules = conditions.entry(key.to_string()).or_default();
        let values = value.split(',').map(str::trim).filter(|value| !value.is_empty());
        for value in values {
            rules.push(rule(&key, value.to_owned())?);
        }
    }
    Ok(conditions.into_values().collect())
}

fn rule(key: &str, value: String) -> Result<Rule, FrontTrouble> {
    let rule = Rule::default();
    Ok(match key {
        "allowed_groups" => {
            let group = GroupPath::try_from(value);
            let group =
                group.map_err(|_| FrontTrouble::Headers("allowed_groups names no group"))?;
            Rule { group: Some(group), ..rule }
        },
        "allowed_emails" => Rule { email: Some(value), ..rule },
        "allowed_email_domains" => Rule { email_domain: Some(value), ..rule },
        _ => return Err(FrontTrouble::Headers("there is a condition that is not known here")),
    })
}

const NAMES_NOTHING: &str = "a condition names nothing";

/// What the names of all conditions begin with.
const STEM: &str = "allowed";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::AccessLevel, identity::Membership};

    fn verdict(query: &str) -> &'static str {
        let membership = |path: &str| Membership { path: path.into(), level: AccessLevel::GUEST };
        let identity = Identity {
            email: Some("ada@example.com".into()),
            groups: vec![membership("acme/web"), membership("tools")],
            ..Identity::default()
        };
        match judge(of_query(query), Some(&identity), |group| group.is("tools/ruled")) {
            Ok(Ok(())) => "passes",
            Ok(Err(_)) => "fails",
            Err(_) => "refused",
        }
    }

    #[test]
    fn conditions_narrow_and_are_never_left_out() {
        for (query, expected) in [
            ("", "passes"),
            ("rd=%2F", "passes"),
            ("allowed_groups=acme/web", "passes"),
            ("allowed_groups=other,ACME%2FWeb", "passes"),
            ("allowed_groups=other&allowed_groups=tools", "passes"),
            // Members of a subgroup are not members of its parent, those of a group are of what is below.
            ("allowed_groups=acme", "fails"),
            ("allowed_groups=tools/below", "passes"),
            // What a rule mentions GitLab was asked about: it has moved, or is gone.
            ("allowed_groups=tools/ruled", "fails"),
            ("allowed_groups=Tools/Ruled,other", "fails"),
            ("allowed_groups=acme/website", "fails"),
            ("allowed_groups=tools&allowed_email_domains=example.com", "passes"),
            ("allowed_groups=tools&allowed_email_domains=example.org", "fails"),
            ("allowed_groups=other&allowed_emails=ada@example.com", "fails"),
            ("allowed_emails=ada%40example.com", "passes"),
            ("allowed_groups=", "refused"),
            ("allowed_groups=,", "refused"),
            ("allowed_groups=tools&allowed_groups=a b", "refused"),
            ("allowed_roles=x", "refused"),
            ("allowedgroups=tools", "refused"),
            ("Allowed_Groups=tools", "refused"),
        ] {
            assert_eq!(verdict(query), expected, "{query}");
        }
    }

    #[test]
    fn nobody_meets_a_condition() {
        assert!(matches!(
            judge(of_query("allowed_groups=a"), None, |_| false),
            Ok(Err(NoPermit::SignIn))
        ));
        assert!(matches!(judge(of_query(""), None, |_| false), Ok(Ok(()))));
    }
}

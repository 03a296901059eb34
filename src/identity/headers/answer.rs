//! The identity as an answer in forward-auth carries it: always all names, so that front proxies overwrite whatever a client sent, within what they have
//! room for.
//!
//! Most front proxies copy the names that are listed in their configuration, and what the answer lacks stays as the client sent it. nginx keeps 4 or 8 KB
//! for all headers of an answer; a longer one becomes an error there.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{HeaderTable, STRIPPED, same};

/// Names that applications take for an identity, beside those that the table writes: a front proxy that can't strip by prefix lists them.
const KNOWN: [&str; 15] = [
    "remote-email",
    "remote-groups",
    "remote-name",
    "remote-user",
    "x-auth-request-email",
    "x-auth-request-groups",
    "x-auth-request-preferred-username",
    "x-auth-request-user",
    "x-labgate-assertion",
    "x-remote-group",
    "x-remote-user",
    "x-webauth-email",
    "x-webauth-groups",
    "x-webauth-name",
    "x-webauth-user",
];

impl HeaderTable {
    /// Every name that an answer carries, the `X-Auth-Request-*` twin after each `X-Forwarded-*`.
    pub fn answered(&self) -> impl Iterator<Item = HeaderName> {
        let names = self.written().map(|(name, _)| name);
        names.flat_map(|name| std::iter::once(name.clone()).chain(self.twin(name)))
    }

    /// Well-known names that no answer carries and no client may send.
    pub fn strays(&self) -> impl Iterator<Item = &'static str> {
        let answered: Vec<_> = self.answered().collect();
        let names = STRIPPED.into_iter().chain(KNOWN);
        names.filter(move |name| !answered.iter().any(|known| same(known.as_str(), name)))
    }

    /// Sets in `answer` what [`Self::render`] and [`Self::render_passing`] gave, empty values for the rest; true if a list was cut short for want of room. All
    /// but lists is told whole, for a part of it is worth nothing, and takes its room from the lists.
    ///
    /// # Errors
    /// When there is no room for what is no list: the answer would be one about nobody.
    pub fn tell(
        &self,
        rendered: &[(HeaderName, HeaderValue)],
        passing: &[(HeaderName, HeaderValue)],
        answer: &mut HeaderMap,
    ) -> Result<bool, NoRoom> {
        let times = |name: &HeaderName| 1 + usize::from(self.twin(name).is_some());
        let size = |(name, value): &(HeaderName, HeaderValue)| value.len() * times(name);
        let (mut lists, mut wanted, mut whole) = (0, 0, 0);
        for header in rendered {
            if self.is_list(&header.0) {
                lists += times(&header.0);
                wanted += size(header);
            } else {
                whole += size(header);
            }
        }
        whole += passing.iter().map(size).sum::<usize>();
        let room = ROOM.checked_sub(whole).ok_or(NoRoom)?;
        let longest = if wanted <= room { ROOM } else { room / lists.max(1) };
        Ok(self.tell_up_to(longest, rendered, passing, answer))
    }

    /// The same for a proxy that has room for all of it.
    pub fn tell_all(
        &self,
        rendered: &[(HeaderName, HeaderValue)],
        passing: &[(HeaderName, HeaderValue)],
        answer: &mut HeaderMap,
    ) {
        self.tell_up_to(usize::MAX, rendered, passing, answer);
    }

    /// Whether a list was cut.
    fn tell_up_to(
        &self,
        longest: usize,
        rendered: &[(HeaderName, HeaderValue)],
        passing: &[(HeaderName, HeaderValue)],
        answer: &mut HeaderMap,
    ) -> bool {
        let mut was_cut = false;
        for (name, _) in self.written() {
            let value = rendered.iter().find(|(other, _)| other == name).map(|(_, value)| value);
            let value = match value {
                Some(value) if value.len() > longest && self.is_list(name) => {
                    was_cut = true;
                    cut(value, longest)
                },
                Some(value) => value.clone(),
                None => passing
                    .iter()
                    .find(|(other, _)| other == name)
                    .map_or(HeaderValue::from_static(""), |(_, value)| value.clone()),
            };
            if let Some(twin) = self.twin(name) {
                answer.insert(twin, value.clone());
            }
            answer.insert(name.clone(), value);
        }
        was_cut
    }

    /// Whether `name` says groups, of which some may be left out.
    fn is_list(&self, name: &HeaderName) -> bool {
        self.lasting.iter().any(|(other, template)| other == name && template.lists())
    }

    /// What users of oauth2-proxy call `name`, unless the table has that for itself.
    fn twin(&self, name: &HeaderName) -> Option<HeaderName> {
        let twin = TWINS.into_iter().find(|(other, _)| other == name).map(|(_, twin)| twin)?;
        let is_taken = self.written().any(|(other, _)| same(other.as_str(), twin.as_str()));
        (!is_taken).then_some(twin)
    }
}

const TWINS: [(HeaderName, HeaderName); 5] = [
    (
        HeaderName::from_static("x-forwarded-access-token"),
        HeaderName::from_static("x-auth-request-access-token"),
    ),
    (HeaderName::from_static("x-forwarded-email"), HeaderName::from_static("x-auth-request-email")),
    (
        HeaderName::from_static("x-forwarded-groups"),
        HeaderName::from_static("x-auth-request-groups"),
    ),
    (
        HeaderName::from_static("x-forwarded-preferred-username"),
        HeaderName::from_static("x-auth-request-preferred-username"),
    ),
    (HeaderName::from_static("x-forwarded-user"), HeaderName::from_static("x-auth-request-user")),
];

/// An identity has no room in what front proxies take of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "front proxies have no room for this identity: its headers without any groups are longer than {ROOM} bytes; write fewer of them in `[identity.headers]`"
)]
pub struct NoRoom;

/// As much of the list `value` as fits, cut after a whole item.
fn cut(value: &HeaderValue, room: usize) -> HeaderValue {
    let head = value.as_bytes().get(..=room).unwrap_or(value.as_bytes());
    let end = head.iter().rposition(|byte| *byte == b',').unwrap_or_default();
    let kept = head.get(..end).unwrap_or_default();
    HeaderValue::from_bytes(kept).unwrap_or(HeaderValue::from_static(""))
}

/// Bytes of all values of an answer together; their names take some hundred more.
const ROOM: usize = 3200;

#[cfg(test)]
mod tests {
    use super::*;

    fn table(names: &[&str]) -> HeaderTable {
        let own = |name: &&str| ((*name).to_owned(), "username".to_owned());
        HeaderTable::new(&names.iter().map(own).collect()).unwrap()
    }

    #[test]
    fn all_names_are_there_whatever_is_known() {
        let table = table(&["X-Forwarded-User", "X-Forwarded-Email", "X-Mine"]);
        let user = HeaderName::from_static("x-forwarded-user");
        let mut answer = HeaderMap::new();
        let rendered = [(user, HeaderValue::from_static("ada"))];
        assert_eq!(table.tell(&rendered, &[], &mut answer), Ok(false));
        for (name, value) in [
            ("x-forwarded-user", "ada"),
            ("x-auth-request-user", "ada"),
            ("x-forwarded-email", ""),
            ("x-auth-request-email", ""),
            ("x-mine", ""),
        ] {
            assert_eq!(answer[name], value, "{name}");
        }
        assert_eq!(answer.len(), 5);
        let answered: Vec<_> = table.answered().collect();
        assert!(answered.len() == 5 && answered.iter().all(|name| answer.contains_key(name)));
    }

    #[test]
    fn a_twin_never_takes_the_place_of_a_name_of_the_table() {
        let table = table(&["X-Forwarded-User", "X-Auth-Request-User"]);
        let rendered = [
            (HeaderName::from_static("x-forwarded-user"), HeaderValue::from_static("one")),
            (HeaderName::from_static("x-auth-request-user"), HeaderValue::from_static("other")),
        ];
        let mut answer = HeaderMap::new();
        table.tell(&rendered, &[], &mut answer).unwrap();
        assert_eq!(
            (&answer["x-forwarded-user"], &answer["x-auth-request-user"]),
            (&HeaderValue::from_static("one"), &HeaderValue::from_static("other"))
        );
    }

    #[test]
    fn long_lists_end_after_a_whole_item() {
        let groups: Vec<_> = (0..400).map(|number| format!("acme/team-{number}")).collect();
        let long = HeaderValue::from_str(&groups.join(",")).unwrap();
        let says = [("X-Forwarded-Groups", "groups"), ("X-Forwarded-User", "username")];
        let says = says.map(|(name, claim)| (name.to_owned(), claim.to_owned()));
        let table = HeaderTable::new(&says.into()).unwrap();
        let rendered = [
            (HeaderName::from_static("x-forwarded-groups"), long),
            (HeaderName::from_static("x-forwarded-user"), HeaderValue::from_static("ada")),
        ];
        let mut answer = HeaderMap::new();
        assert_eq!(table.tell(&rendered, &[], &mut answer), Ok(true));
        let told = answer["x-forwarded-groups"].to_str().unwrap();
        assert!(told.split(',').eq(groups.iter().take(told.split(',').count())), "{told}");
        assert_eq!(answer["x-auth-request-groups"], told);
        let size: usize =
            answer.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        assert!(size < 3600, "{size}");
    }

    #[test]
    fn all_but_lists_is_told_whole_or_nothing_is() {
        let groups: Vec<_> = (0..100).map(|number| format!("acme/team-{number}")).collect();
        let long = HeaderValue::from_str(&groups.join(",")).unwrap();
        let says = [
            ("X-Forwarded-Groups", "groups"),
            ("X-Forwarded-User", "username"),
            ("X-Labgate-Assertion", "assertion"),
        ];
        let says = says.map(|(name, claim)| (name.to_owned(), claim.to_owned()));
        let table = HeaderTable::new(&says.into()).unwrap();
        let ada = HeaderValue::from_static("ada-who-has-a-longer-name");
        let rendered = [
            (HeaderName::from_static("x-forwarded-groups"), long.clone()),
            (HeaderName::from_static("x-forwarded-user"), ada.clone()),
        ];
        let mut answer = HeaderMap::new();
        for (length, kept) in [(500, 100..=100), (1000, 80..=90), (3100, 1..=3), (3149, 0..=0)] {
            let whole = HeaderValue::from_str(&"a".repeat(length)).unwrap();
            let assertion = [(HeaderName::from_static("x-labgate-assertion"), whole.clone())];
            assert_eq!(table.tell(&rendered, &assertion, &mut answer), Ok(length > 500));
            assert_eq!(answer["x-labgate-assertion"], whole);
            assert_eq!((&answer["x-forwarded-user"], &answer["x-auth-request-user"]), (&ada, &ada));
            let told = answer["x-forwarded-groups"].to_str().unwrap();
            let told = told.split(',').filter(|group| !group.is_empty()).count();
            assert!(kept.contains(&told), "{length}: {told}");
            let all: usize = answer.values().map(HeaderValue::len).sum();
            assert!(all <= ROOM, "{all}");
        }
        // A nameless answer would be taken for one about nobody.
        let whole = HeaderValue::from_str(&"a".repeat(3151)).unwrap();
        let assertion = [(HeaderName::from_static("x-labgate-assertion"), whole)];
        assert_eq!(table.tell(&rendered, &assertion, &mut answer), Err(NoRoom));
        // Without one, or with nobody, the name is there all the same.
        assert_eq!(table.tell(&rendered, &[], &mut answer), Ok(false));
        assert_eq!(answer["x-labgate-assertion"], "");
        assert_eq!(answer["x-forwarded-groups"], long);
    }

    #[test]
    fn strays_are_what_no_answer_overwrites() {
        let strays: Vec<_> = table(&["Remote-User", "X-Forwarded-User"]).strays().collect();
        for name in ["x-forwarded-email", "x-webauth-user", "x-labgate-assertion"] {
            assert!(strays.contains(&name), "{name}");
        }
        for name in ["remote-user", "x-forwarded-user", "x-auth-request-user"] {
            assert!(!strays.contains(&name), "{name}");
        }
    }
}

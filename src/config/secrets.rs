//! Several secrets of one kind, newest first; a single one may stand without a list.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

use super::secret::{MARK, Secret, Shape};

/// Secrets in the order in which they are written.
#[derive(Clone, Debug, Default)]
pub struct Secrets(pub Vec<Secret>);

impl Secrets {
    /// Each with its key path, if `key` is that of all.
    pub fn named(&self, key: &str) -> impl Iterator<Item = (String, &Secret)> {
        let single = self.0.len() == 1;
        self.0.iter().enumerate().map(move |(index, secret)| {
            let path = if single { key.to_owned() } else { format!("{key}[{index}]") };
            (path, secret)
        })
    }
}

impl Serialize for Secrets {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [single] => single.serialize(to),
            several => several.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Secrets {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_newtype_struct(MARK, OneOrMore)
    }
}

struct OneOrMore;

impl<'de> Visitor<'de> for OneOrMore {
    type Value = Secrets;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a secret or a list of them")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<Secrets, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Secrets, E> {
        Shape.visit_str(text).map(|secret| Secrets(vec![secret]))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Secrets, A::Error> {
        Shape.visit_map(map).map(|secret| Secrets(vec![secret]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Secrets, A::Error> {
        let mut secrets = Vec::new();
        while let Some(secret) = list.next_element()? {
            secrets.push(secret);
        }
        match secrets.is_empty() {
            true => Err(A::Error::custom("the list has no secret")),
            false => Ok(Secrets(secrets)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct Table {
        key: Secrets,
    }

    fn written(text: &str) -> Result<String, String> {
        let table: Table = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        Ok(toml::to_string(&table).unwrap().replace('\n', " ").trim().into())
    }

    #[test]
    fn one_or_several_stay_what_they_are() {
        for (text, again) in [
            ("key = { file = \"a\" }", "[key] file = \"a\""),
            ("key = \"hunter2\"", "key = \"***\""),
            ("key = [{ env = \"A\" }, \"x\"]", "key = [{ env = \"A\" }, \"***\"]"),
        ] {
            assert_eq!(written(text).unwrap(), again);
        }
        for text in ["key = []", "key = 1", "key = [{}]", "key = { file = \"a\", env = \"B\" }"] {
            assert!(written(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_tells_which_of_several() {
        let keys = |text: &str| {
            let table: Table = toml::from_str(text).unwrap();
            table.key.named("a.key").map(|(key, _)| key).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(keys("key = \"x\""), "a.key");
        assert_eq!(keys("key = [\"x\", \"y\"]"), "a.key[0] a.key[1]");
    }
}

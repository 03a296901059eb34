//! Reads the tree into the types of the configuration, and goes on after a mistake: each is noted with its key path, the node left out, and
//! the rest read again, so that one run tells all of them.
//!
//! What a variable's text means is decided by the type that reads it: `8h` where text is wanted is that text, `50` where a number is wanted
//! is TOML's fifty. No message repeats a value unless a leaf's own parser does, and a [`Secret`](super::Secret) never does.

use std::cell::RefCell;

use serde::{
    Deserialize,
    de::{self, IntoDeserializer, Unexpected, Visitor},
    forward_to_deserialize_any,
};

use super::{
    Problem,
    access::{Elements, Fields},
    fault::Fault,
    names::{is_delicate, later, list, nearest},
    notes::Notes,
    secret,
    tree::{Node, Place, Value, join},
};

/// Reads `root` as a `T` in as many rounds as it takes, with all its mistakes in the notes; none if not even that helps.
pub(super) fn read<'a, T: Deserialize<'a>>(root: &'a Node) -> (Option<T>, Notes) {
    let notes = RefCell::<Notes>::default();
    loop {
        let known = notes.borrow().extent();
        let reader = Reader { node: root, key: String::new(), notes: &notes };
        match T::deserialize(reader) {
            Ok(value) => return (Some(value), notes.into_inner()),
            // Each round finds at least one more node to leave out, of which there are finitely many.
            Err(_) if notes.borrow().extent() > known => {},
            Err(fault) => {
                let mut notes = notes.into_inner();
                if !fault.noted {
                    notes.problems.push(fault.problem(""));
                }
                return (None, notes);
            },
        }
    }
}

/// One node, to be read as whatever type asks for it.
pub(super) struct Reader<'a, 'n> {
    pub(super) node: &'a Node,
    pub(super) key: String,
    pub(super) notes: &'n RefCell<Notes>,
}

impl<'a> Reader<'a, '_> {
    /// A reader of `node`, found at `key`.
    pub(super) fn child(&self, node: &'a Node, key: String) -> Self {
        Self { node, key, notes: self.notes }
    }

    /// This reader, at what a variable's text means in TOML.
    fn meant(self, expected: &dyn de::Expected) -> Result<Self, Fault> {
        match &self.node.value {
            Value::Raw(_, Ok(meaning)) => Ok(self.child(meaning, self.key.clone())),
            Value::Raw(text, Err(message)) => {
                let fault: Fault = de::Error::invalid_type(Unexpected::Other("text"), expected);
                Err(if text.starts_with(['[', '{']) {
                    de::Error::custom(format!("not a TOML value: {message}"))
                } else {
                    fault
                })
            },
            _ => Ok(self),
        }
    }

    /// The text of a string or a variable.
    fn text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            Value::Raw(text, meaning) => match meaning.as_deref().map(|node| &node.value) {
                Ok(Value::Text(unquoted)) => Some(unquoted),
                _ => Some(text),
            },
            _ => None,
        }
    }

    /// Whether a variable's text is to be taken for a list or a table.
    fn is_structured(&self) -> bool {
        matches!(&self.node.value, Value::Raw(text, _) if text.trim_start().starts_with(['[', '{']))
    }
}

impl<'de> de::Deserializer<'de> for Reader<'de, '_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::Integer(number) => match u64::try_from(*number) {
                Ok(number) => visitor.visit_u64(number),
                Err(_) => visitor.visit_i64(*number),
            },
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::Date => Err(de::Error::invalid_type(Unexpected::Other("a date"), &visitor)),
            Value::List(list) => visitor.visit_seq(Elements::new(list, &self)),
            Value::Table(table) => visitor.visit_map(Fields::new(table, &self)),
            Value::Raw(..) if self.is_structured() => {
                let meant = self.meant(&visitor)?;
                meant.deserialize_any(visitor)
            },
            Value::Raw(..) => self.deserialize_str(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.text() {
            Some(text) => visitor.visit_borrowed_str(text),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let meant = self.meant(&visitor)?;
        meant.deserialize_any(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let meant = self.meant(&visitor)?;
        if let Value::Table(table) = &meant.node.value {
            for (field, node) in table {
                if !fields.contains(&field.as_str()) {
                    meant.unknown(name, fields, field, node);
                }
            }
        }
        meant.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name == secret::MARK {
            self.notes.borrow_mut().secrets.insert(self.key.clone());
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.text() {
            Some(text) => visitor.visit_enum(text.into_deserializer()),
            None => Err(de::Error::custom(format!(
                "expected {}, found {}",
                list(variants, "or"),
                self.node.value.kind()
            ))),
        }
    }

    forward_to_deserialize_any! {
        u8 i8 i16 i32 i64 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

impl Reader<'_, '_> {
    /// Notes the key `field` that the table `name` does not know.
    fn unknown(&self, name: &str, fields: &[&str], field: &str, node: &Node) {
        let key = join(&self.key, field);
        let mut notes = self.notes.borrow_mut();
        if !notes.left_out.insert(key.clone()) {
            return;
        }
        let problem = if later(name, field) {
            Problem::error(&key, format!("`{field}` is not available in this version"))
        } else {
            Problem::error(&key, format!("unknown key `{field}`")).help(advice(fields, field, node))
        };
        // Under a name that nobody knows may stand a secret whose name is misspelt.
        let holds_secrets = name == "Config" || fields.iter().any(|known| is_delicate(known));
        if !later(name, field) && (holds_secrets || nearest(field, fields).is_none()) {
            notes.secrets.insert(key);
        }
        notes.problems.push(problem.at_key(&node.place));
    }
}

/// What was most likely meant by `field`, which stands at `node`, or what is known in its place.
fn advice(fields: &[&str], field: &str, node: &Node) -> String {
    let near = nearest(field, fields);
    let meant = match &node.place {
        Place::Variable(variable) => corrected(variable, field, fields, near),
        Place::File { .. } => near.map(String::from),
    };
    match meant {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known here: {}", list(fields, "and")),
    }
}

/// The name of `variable` with `near` in place of the part that spells `field`, or with the underscore that is missing.
fn corrected(variable: &str, field: &str, fields: &[&str], near: Option<&str>) -> Option<String> {
    let mut parts: Vec<_> = variable.split("__").map(String::from).collect();
    let spelled = |part: &&mut String| {
        let name = part.strip_prefix("LABGATE_").unwrap_or(part);
        name.eq_ignore_ascii_case(field)
    };
    let Some(part) = parts.iter_mut().find(spelled) else {
        return near.map(String::from);
    };
    let prefix = if part.starts_with("LABGATE_") { "LABGATE_" } else { "" };
    let joined =
        |name: &&&str| field.strip_prefix(**name).is_some_and(|rest| rest.starts_with('_'));
    let right = match fields.iter().find(joined) {
        Some(table) => field.replacen(&format!("{table}_"), &format!("{table}__"), 1),
        None => near?.into(),
    };
    *part = format!("{prefix}{}", right.to_ascii_uppercase());
    Some(parts.join("__"))
}

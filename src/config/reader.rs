//! Reads the tree into the types of the configuration, and goes on after a mistake: each is noted with its key path, the node left out, and
//! the rest read again, so that one run tells all of them.
//!
//! What a variable's text means is decided by the type that reads it: `8h` where text is wanted is that text, `50` where a number is wanted
//! is TOML's fifty. No message repeats a value unless a leaf's own parser does, and a [`Secret`](super::Secret) never does.

use std::{cell::RefCell, collections::BTreeSet, fmt};

use serde::{
    Deserialize,
    de::{self, IntoDeserializer, Unexpected, Visitor, value::StrDeserializer},
    forward_to_deserialize_any,
};

use super::{
    Problem,
    names::{later, list, nearest},
    secret,
    tree::{Node, Place, Value, join},
};

/// What was learnt while reading.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) problems: Vec<Problem>,
    /// Keys whose values were not read because they are wrong.
    pub(super) left_out: BTreeSet<String>,
    /// Keys whose values are secrets by their type.
    pub(super) secrets: BTreeSet<String>,
    /// Elements of lists that are read as if they were empty tables, lest those behind them change their index.
    emptied: BTreeSet<String>,
}

/// Reads `root` as a `T` in as many rounds as it takes, with all its mistakes in the notes; none if not even that helps.
pub(super) fn read<'a, T: Deserialize<'a>>(root: &'a Node) -> (Option<T>, Notes) {
    let notes = RefCell::default();
    loop {
        let known = progress(&notes);
        let reader = Reader {
            node: root,
            key: String::new(),
            notes: &notes,
        };
        match T::deserialize(reader) {
            Ok(value) => return (Some(value), notes.into_inner()),
            // Each round finds at least one more node to leave out, of which there are finitely many.
            Err(_) if progress(&notes) > known => {},
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

fn progress(notes: &RefCell<Notes>) -> usize {
    let notes = notes.borrow();
    notes.left_out.len() + notes.emptied.len()
}

/// Why a value can't be read.
#[derive(Debug)]
pub(super) struct Fault {
    message: String,
    help: Option<String>,
    noted: bool,
}

impl Fault {
    fn problem(self, key: &str) -> Problem {
        Problem {
            help: self.help,
            ..Problem::error(key, self.message)
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            message: message.to_string(),
            help: None,
            noted: false,
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format!(
            "expected {}, found {}",
            wanted(expected),
            kind(found)
        ))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        match found {
            Unexpected::Signed(number) => Self::custom(format!("{number} is out of range")),
            Unexpected::Unsigned(number) => Self::custom(format!("{number} is out of range")),
            _ => Self::invalid_type(found, expected),
        }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let fault = Self::custom(format!("unknown value, expected {}", list(expected, "or")));
        match nearest(variant, expected) {
            Some(name) => Self {
                help: Some(format!("did you mean `{name}`?")),
                ..fault
            },
            None => fault,
        }
    }
}

fn wanted(expected: &dyn de::Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "a sequence" => "a list".into(),
        "a map" => "a table".into(),
        "u16" | "u32" | "u64" | "usize" => "a whole number".into(),
        other if other.starts_with("struct ") => "a table".into(),
        other => other.into(),
    }
}

fn kind(found: Unexpected<'_>) -> &str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a whole number",
        Unexpected::Float(_) => "a decimal number",
        Unexpected::Str(_) | Unexpected::Char(_) => "a string",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a table",
        Unexpected::Other(other) => other,
        _ => "something else",
    }
}

struct Reader<'a, 'n> {
    node: &'a Node,
    key: String,
    notes: &'n RefCell<Notes>,
}

impl<'a, 'n> Reader<'a, 'n> {
    fn child(&self, node: &'a Node, key: String) -> Self {
        Self {
            node,
            key,
            notes: self.notes,
        }
    }

    /// This reader, at what a variable's text means in TOML.
    fn meant(self, expected: &dyn de::Expected) -> Result<Self, Fault> {
        match &self.node.value {
            Value::Raw(_, Ok(meaning)) => Ok(self.child(meaning, self.key.clone())),
            Value::Raw(text, Err(message)) => {
                let fault: Fault = de::Error::invalid_type(Unexpected::Other("text"), expected);
                Err(match text.starts_with(['[', '{']) {
                    true => de::Error::custom(format!("not a TOML value: {message}")),
                    false => fault,
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
            Value::Date => Err(de::Error::invalid_type(
                Unexpected::Other("a date"),
                &visitor,
            )),
            Value::List(list) => visitor.visit_seq(Elements {
                rest: list.iter().enumerate(),
                list: &self,
            }),
            Value::Table(table) => visitor.visit_map(Fields {
                rest: table.iter(),
                current: None,
                table: &self,
            }),
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
        let problem = match later(name, field) {
            true => Problem::error(key, format!("`{field}` is not available in this version")),
            false => Problem::error(key, format!("unknown key `{field}`"))
                .help(self.advice(fields, field, node)),
        };
        notes.problems.push(problem.at_key(&node.place));
    }

    fn advice(&self, fields: &[&str], field: &str, node: &Node) -> String {
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
    let prefix = if part.starts_with("LABGATE_") {
        "LABGATE_"
    } else {
        ""
    };
    let joined = |name: &&&str| {
        field
            .strip_prefix(**name)
            .is_some_and(|rest| rest.starts_with('_'))
    };
    let right = match fields.iter().find(joined) {
        Some(table) => field.replacen(&format!("{table}_"), &format!("{table}__"), 1),
        None => near?.into(),
    };
    *part = format!("{prefix}{}", right.to_ascii_uppercase());
    Some(parts.join("__"))
}

struct Fields<'a, 'n, 'r> {
    rest: std::collections::btree_map::Iter<'a, String, Node>,
    current: Option<(&'a String, &'a Node)>,
    table: &'r Reader<'a, 'n>,
}

impl<'a> de::MapAccess<'a> for Fields<'a, '_, '_> {
    type Error = Fault;

    fn next_key_seed<K: de::DeserializeSeed<'a>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let left_out = |name: &str| {
            let notes = self.table.notes.borrow();
            notes.left_out.contains(&join(&self.table.key, name))
        };
        self.current = self.rest.find(|(name, _)| !left_out(name));
        match self.current {
            Some((name, _)) => seed
                .deserialize(StrDeserializer::<Fault>::new(name))
                .map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: de::DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((name, node)) = self.current.take() else {
            return Err(de::Error::custom("a value is asked for before its key"));
        };
        let key = join(&self.table.key, name);
        let value = seed.deserialize(self.table.child(node, key.clone()));
        value.map_err(|fault| {
            let mut notes = self.table.notes.borrow_mut();
            if !fault.noted && notes.left_out.insert(key.clone()) {
                notes.problems.push(fault.problem(&key));
            }
            noted()
        })
    }
}

struct Elements<'a, 'n, 'r> {
    rest: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
    list: &'r Reader<'a, 'n>,
}

impl<'a> de::SeqAccess<'a> for Elements<'a, '_, '_> {
    type Error = Fault;

    fn next_element_seed<T: de::DeserializeSeed<'a>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        for (index, node) in self.rest.by_ref() {
            let key = format!("{}[{index}]", self.list.key);
            let (emptied, left_out) = {
                let notes = self.list.notes.borrow();
                let left_out = notes.left_out.contains(&key);
                (notes.emptied.contains(&key), left_out)
            };
            if left_out {
                continue;
            }
            let node = if emptied { &EMPTY } else { node };
            let value = seed.deserialize(self.list.child(node, key.clone()));
            return value.map(Some).map_err(|fault| self.blame(fault, key));
        }
        Ok(None)
    }
}

impl Elements<'_, '_, '_> {
    fn blame(&self, fault: Fault, key: String) -> Fault {
        if fault.noted {
            return fault;
        }
        let mut notes = self.list.notes.borrow_mut();
        if notes.emptied.insert(key.clone()) {
            notes.problems.push(fault.problem(&key));
        } else {
            notes.left_out.insert(key);
        }
        noted()
    }
}

static EMPTY: Node = Node {
    place: Place::File {
        key: 0..0,
        value: 0..0,
    },
    value: Value::Table(std::collections::BTreeMap::new()),
};

fn noted() -> Fault {
    Fault {
        message: String::new(),
        help: None,
        noted: true,
    }
}

impl Notes {
    /// Whether a problem with `key` only follows from a value that was left out.
    pub(super) fn explains(&self, key: &str) -> bool {
        let within = |inner: &str, outer: &str| {
            inner
                .strip_prefix(outer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        // An element that was skipped makes whatever is said of its list doubtful.
        let doubtful = |gap: &str| {
            gap.ends_with(']')
                && gap
                    .rsplit_once('[')
                    .is_some_and(|(list, _)| within(key, list))
        };
        let near = |gap: &String| within(key, gap) || within(gap, key) || doubtful(gap);
        self.left_out.iter().chain(&self.emptied).any(near)
    }
}

//! The configuration as a tree of nodes, each of which knows whether it stands in the file, and where, or in an environment variable.
//!
//! It is toml's own tree, owned, with one more kind of leaf: the text of a variable, whose meaning the type decides that reads it.

use std::{collections::BTreeMap, fmt, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use zeroize::Zeroizing;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// Where a key and its value stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the file, as ranges of bytes; an element of a list has no key, and its value's range in place of it.
    File { key: Range<usize>, value: Range<usize> },
    /// In the environment variable of this name.
    Variable(String),
}

/// A TOML value, or the text of an environment variable.
#[derive(Clone)]
pub(super) enum Value {
    Text(Zeroizing<String>),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Date,
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
    /// Text as it stands in a variable, and what it means if it is read as TOML, or why it can't be.
    Raw(Zeroizing<String>, Result<Box<Node>, String>),
}

impl Node {
    /// The root of the tree of a file.
    pub(super) fn root(table: &Spanned<DeTable<'_>>) -> Self {
        let place = |range| Place::File { key: 0..0, value: range };
        Self { place: place(0..0), value: file_table(table.get_ref()) }
    }

    /// The value `text` of the environment variable `name`.
    pub(super) fn variable(name: &str, text: &str) -> Self {
        let place = Place::Variable(name.into());
        let meaning = match DeValue::parse(text) {
            Ok(parsed) => Ok(Box::new(Self {
                value: value(parsed.get_ref(), &|_, _| place.clone()),
                place: place.clone(),
            })),
            Err(error) => Err(error.message().into()),
        };
        let value = Value::Raw(Zeroizing::new(text.into()), meaning);
        Self { place, value }
    }

    /// Tells `visit` the key path and the node of this node, found at `key`, and all below it.
    pub(super) fn walk<'a>(&'a self, key: &str, visit: &mut dyn FnMut(&str, &'a Self)) {
        visit(key, self);
        match &self.value {
            Value::Table(table) => {
                for (name, node) in table {
                    node.walk(&join(key, name), visit);
                }
            },
            Value::List(list) => {
                for (index, node) in list.iter().enumerate() {
                    node.walk(&format!("{key}[{index}]"), visit);
                }
            },
            Value::Raw(_, Ok(meaning)) => meaning.walk(key, visit),
            Value::Raw(_, Err(_))
            | Value::Text(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Date => {},
        }
    }
}

impl Value {
    /// What it is, in a word.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a decimal number",
            Self::Boolean(_) => "a boolean",
            Self::Date => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Raw(..) => "plain text",
        }
    }
}

impl fmt::Debug for Value {
    /// Says the kind only: any value may be a secret.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.kind())
    }
}

/// The key path of `name` in the table at `key`.
pub(super) fn join(key: &str, name: &str) -> String {
    match key {
        "" => name.into(),
        _ => format!("{key}.{name}"),
    }
}

type Placing<'a> = &'a dyn Fn(Range<usize>, Range<usize>) -> Place;

fn file_table(table: &DeTable<'_>) -> Value {
    tabled(table, &|key, value| Place::File { key, value })
}

fn tabled(table: &DeTable<'_>, place: Placing<'_>) -> Value {
    let entry = |(name, node): (&Spanned<_>, &Spanned<_>)| {
        let name: &Spanned<std::borrow::Cow<'_, str>> = name;
        let node: &Spanned<DeValue<'_>> = node;
        let child =
            Node { place: place(name.span(), node.span()), value: value(node.get_ref(), place) };
        (name.get_ref().to_string(), child)
    };
    Value::Table(table.iter().map(entry).collect())
}

fn value(from: &DeValue<'_>, place: Placing<'_>) -> Value {
    match from {
        DeValue::String(text) => Value::Text(Zeroizing::new(text.to_string())),
        DeValue::Integer(digits) => {
            // What doesn't fit 64 bits is out of range for every key.
            let number = i64::from_str_radix(digits.as_str(), digits.radix());
            Value::Integer(number.unwrap_or(i64::MIN))
        },
        DeValue::Float(digits) => Value::Float(digits.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(list) => {
            let element = |node: &Spanned<DeValue<'_>>| Node {
                place: place(node.span(), node.span()),
                value: value(node.get_ref(), place),
            };
            Value::List(list.iter().map(element).collect())
        },
        DeValue::Table(table) => tabled(table, place),
    }
}

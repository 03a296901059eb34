//! Why a value can't be read, in words that repeat no text of the configuration: it may be a secret in the wrong place.

use std::fmt;

use serde::de::{self, Unexpected};

use super::{
    Problem,
    names::{list, nearest},
};

/// Why a value can't be read.
#[derive(Debug)]
pub(super) struct Fault {
    message: String,
    help: Option<String>,
    pub(super) noted: bool,
}

impl Fault {
    /// One that the notes have already.
    pub(super) fn noted() -> Self {
        Self { message: String::new(), help: None, noted: true }
    }

    /// As a problem with `key`.
    pub(super) fn problem(self, key: &str) -> Problem {
        Problem { help: self.help, ..Problem::error(key, self.message) }
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
        Self { message: message.to_string(), help: None, noted: false }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format!("expected {}, found {}", wanted(expected), kind(found)))
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
            Some(name) => Self { help: Some(format!("did you mean `{name}`?")), ..fault },
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

//! A Rust file as the rules of `tidy` see it: tokens without comments and literals, test code set apart, paths written out in full.
//!
//! This is a scanner, no parser: it knows enough of the language that a rule never trips over a word in a string or a comment.

use std::{iter::Peekable, str::Chars};

/// One file: where it is, what it says, and its tokens outside test code.
pub(crate) struct Source {
    /// Path from the root of the repository, with `/`.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
    /// Tokens of the shipped code; none in a `tests.rs`.
    pub(crate) code: Vec<Token>,
    /// Tokens of all code, `#[cfg(test)]` items included.
    pub(crate) all: Vec<Token>,
    /// Number of lines without those of `#[cfg(test)]` items.
    pub(crate) length: usize,
}

/// A word, `::` or a single sign, and its line (from 1). Literals are left out but for an empty `"` sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// Where it stands.
    pub(crate) line: usize,
    /// What it says.
    pub(crate) text: String,
}

/// A path of the code, from the root of the crate: `["gitlab", "Provider"]`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Import {
    /// Where it stands.
    pub(crate) line: usize,
    /// Its segments; the first is the room.
    pub(crate) path: Vec<String>,
}

impl Source {
    /// Reads `text` as the file at `path`.
    pub(crate) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let all = tokens(&text);
        let (mut code, test_lines) = without_tests(&all);
        if path.starts_with("src/") && (path.ends_with("/tests.rs") || path.contains("/tests/")) {
            code.clear();
        }
        let length = text.lines().count().saturating_sub(test_lines);
        Self { path, text, code, all, length }
    }

    /// The room of a file below `src/`; none for the roots of the crates and for everything else.
    pub(crate) fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let first = inside.split('/').next()?;
        match first.strip_suffix(".rs") {
            Some("lib" | "main") => None,
            Some(file) => Some(file),
            None => Some(first),
        }
    }

    /// Where the file's module hangs: `src/gitlab/api.rs` is `["gitlab", "api"]`.
    pub(crate) fn module(&self) -> Vec<String> {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let stem = inside.strip_suffix(".rs").unwrap_or(inside);
        let mut path: Vec<String> = stem.split('/').map(str::to_owned).collect();
        if path.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
            path.pop();
        }
        path
    }

    /// Every path of the shipped code that begins with `crate` or `super`, groups spelt out.
    pub(crate) fn imports(&self) -> Vec<Import> {
        let module = self.module();
        let (mut found, mut at) = (Vec::new(), 0);
        while let Some(token) = self.code.get(at) {
            let starts = matches!(token.text.as_str(), "crate" | "super");
            if starts && is(&self.code, at + 1, "::") {
                let mut paths = Vec::new();
                at = path_tree(&self.code, at, &[], &mut paths);
                found.extend(
                    paths.into_iter().filter_map(|(line, path)| absolute(&module, line, &path)),
                );
            } else {
                at += 1;
            }
        }
        found
    }
}

/// Whether the tokens from `at` on read like `words`, one token a word, `*` standing for any.
pub(crate) fn reads(tokens: &[Token], at: usize, words: &str) -> bool {
    words
        .split(' ')
        .enumerate()
        .all(|(i, word)| tokens.get(at + i).is_some_and(|t| word == "*" || t.text == word))
}

fn is(tokens: &[Token], at: usize, text: &str) -> bool {
    tokens.get(at).is_some_and(|t| t.text == text)
}

/// Writes out `a::{b, c::d}` from `at` on as `a::b` and `a::c::d`; returns the index behind it.
fn path_tree(
    tokens: &[Token],
    mut at: usize,
    prefix: &[String],
    out: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let mut path = prefix.to_vec();
    let line = tokens.get(at).map_or(0, |t| t.line);
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "{" => {
                at += 1;
                while let Some(next) = tokens.get(at) {
                    match next.text.as_str() {
                        "}" => return at + 1,
                        "," => at += 1,
                        _ => at = path_tree(tokens, at, &path, out).max(at + 1),
                    }
                }
                return at;
            },
            word if word == "*" || word.starts_with(is_word) => {
                path.push(word.to_owned());
                at += 1;
                if !is(tokens, at, "::") {
                    break;
                }
                at += 1;
            },
            _ => break,
        }
    }
    if is(tokens, at, "as") {
        at += 2;
    }
    out.push((line, path));
    at
}

/// Resolves `crate::…` and `super::…` against the module that says it.
fn absolute(module: &[String], line: usize, path: &[String]) -> Option<Import> {
    let ups = path.iter().take_while(|segment| *segment == "super").count();
    let base = if ups == 0 { &[] } else { module.get(..module.len().saturating_sub(ups))? };
    let rest = path.get(ups.max(1)..)?;
    let path: Vec<String> = base.iter().chain(rest).filter(|s| *s != "self").cloned().collect();
    (!path.is_empty()).then_some(Import { line, path })
}

/// The tokens without `#[cfg(test)]` items, and how many lines those take.
fn without_tests(tokens: &[Token]) -> (Vec<Token>, usize) {
    let (mut kept, mut lines, mut at) = (Vec::new(), 0, 0);
    while let Some(token) = tokens.get(at) {
        if reads(tokens, at, "# [ cfg ( test ) ]") {
            let end = item_end(tokens, at + 7);
            let last = tokens.get(end).map_or(token.line, |t| t.line);
            lines += last + 1 - token.line;
            at = end + 1;
        } else {
            kept.push(token.clone());
            at += 1;
        }
    }
    (kept, lines)
}

/// The index of the `;` or `}` that ends the item which begins at `at`.
fn item_end(tokens: &[Token], at: usize) -> usize {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate().skip(at) {
        match token.text.as_str() {
            "{" | "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return i;
                }
            },
            ";" if depth == 0 => return i,
            _ => {},
        }
    }
    tokens.len().saturating_sub(1)
}

fn tokens(text: &str) -> Vec<Token> {
    let mut reader = Reader { chars: text.chars().peekable(), line: 1 };
    let mut tokens = Vec::new();
    while let Some(token) = reader.token() {
        if !token.text.is_empty() {
            tokens.push(token);
        }
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    /// The next token; one with an empty text for blanks and comments.
    fn token(&mut self) -> Option<Token> {
        let line = self.line;
        let c = self.next()?;
        let text = match c {
            '/' if self.peek() == Some('/') => self.line_comment(),
            '/' if self.peek() == Some('*') => self.block_comment(),
            '"' => self.string(),
            '\'' => self.quote(),
            ':' if self.peek() == Some(':') => {
                self.next();
                "::".into()
            },
            c if is_word(c) => self.word(c),
            c if c.is_whitespace() => String::new(),
            c => c.into(),
        };
        Some(Token { line, text })
    }

    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        if c == '\n' {
            self.line += 1;
        }
        Some(c)
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().copied()
    }

    fn line_comment(&mut self) -> String {
        while self.peek().is_some_and(|c| c != '\n') {
            self.next();
        }
        String::new()
    }

    fn block_comment(&mut self) -> String {
        let (mut depth, mut last) = (1, ' ');
        self.next();
        while let Some(c) = self.next() {
            match (last, c) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {
                    last = c;
                    continue;
                },
            }
            if depth == 0 {
                break;
            }
            last = ' ';
        }
        String::new()
    }

    fn string(&mut self) -> String {
        while let Some(c) = self.next() {
            match c {
                '\\' => drop(self.next()),
                '"' => break,
                _ => {},
            }
        }
        "\"".into()
    }

    /// Behind a `'`: a character such as `'"'` or `'\n'`, or a lifetime.
    fn quote(&mut self) -> String {
        match self.peek() {
            Some('\\') => {
                self.next();
                self.next();
                while self.next().is_some_and(|c| c != '\'') {}
            },
            Some(_) => {
                let mut ahead = self.chars.clone();
                ahead.next();
                if ahead.next() == Some('\'') {
                    self.next();
                    self.next();
                }
            },
            None => {},
        }
        "'".into()
    }

    /// A word, or a raw string when the word is its prefix.
    fn word(&mut self, first: char) -> String {
        let mut word = String::from(first);
        while let Some(c) = self.peek().filter(|c| is_word(*c)) {
            word.push(c);
            self.next();
        }
        match (word.as_str(), self.peek()) {
            ("b" | "c", Some('"')) => {
                self.next();
                self.string()
            },
            ("b", Some('\'')) => {
                self.next();
                self.quote()
            },
            ("r" | "br" | "cr", Some('"' | '#')) => self.raw(word),
            _ => word,
        }
    }

    /// `r"…"`, `r#"…"#`, or the raw identifier `r#word`.
    fn raw(&mut self, prefix: String) -> String {
        let hashes = self.chars.clone().take_while(|c| *c == '#').count();
        if self.chars.clone().nth(hashes) != Some('"') {
            return prefix;
        }
        for _ in 0..=hashes {
            self.next();
        }
        let mut closing = 0;
        while let Some(c) = self.next() {
            closing = match c {
                '"' => 1,
                '#' if closing > 0 => closing + 1,
                _ => 0,
            };
            if closing == hashes + 1 {
                break;
            }
        }
        "\"".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        tokens(text).into_iter().map(|t| t.text).collect()
    }

    fn imports(path: &str, text: &str) -> Vec<String> {
        Source::new(path, text).imports().into_iter().map(|i| i.path.join("::")).collect()
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        for (text, expected) in [
            ("a // b\nc", vec!["a", "c"]),
            ("a /* b /* c */ d */ e", vec!["a", "e"]),
            (r#"f("x \" y", b"z")"#, vec!["f", "(", "\"", ",", "\"", ")"]),
            (r##"r#"a " b"# + r"c" d"##, vec!["\"", "+", "\"", "d"]),
            ("'x' '\\'' '\"' b'\\n' &'a str", vec!["'", "'", "'", "'", "&", "'", "a", "str"]),
            ("r#type::x", vec!["r", "#", "type", "::", "x"]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn lines_are_counted_through_literals_and_comments() {
        let lines: Vec<usize> = tokens("a\n/* \n */ b \"\n\n\" c").iter().map(|t| t.line).collect();
        assert_eq!(lines, [1, 3, 3, 5]);
    }

    #[test]
    fn groups_are_spelt_out() {
        let text = "use crate::{a::{B, c::D as E}, f::*, g};\nfn x() { crate::h::i::<T>() }";
        assert_eq!(imports("src/room.rs", text), ["a::B", "a::c::D", "f::*", "g", "h::i"]);
    }

    #[test]
    fn super_is_followed_up_to_the_rooms() {
        let text = "use super::{super::session::Session, api::User}; use super::super::gitlab;";
        assert_eq!(
            imports("src/gate/build.rs", text),
            ["session::Session", "gate::api::User", "gitlab"]
        );
        assert_eq!(imports("src/gate/mod.rs", "use super::route::T;"), ["route::T"]);
        assert_eq!(imports("src/route.rs", "use super::gate::T;"), ["gate::T"]);
    }

    #[test]
    fn tests_are_set_apart() {
        let text = "fn a() {}\n#[cfg(test)]\n#[expect(x)]\nmod tests {\n  use crate::gate;\n  fn b() {}\n}\nfn c() {}\n";
        let source = Source::new("src/route.rs", text);
        assert_eq!(source.length, 2);
        assert!(source.imports().is_empty());
        assert!(source.code.iter().any(|t| t.text == "c"));
        assert!(!source.code.iter().any(|t| t.text == "b"));
        assert_eq!(Source::new("src/route.rs", "#[cfg(test)]\nmod tests;\nfn d() {}\n").length, 1);
    }

    #[test]
    fn rooms_and_modules_follow_from_the_path() {
        for (path, room, module) in [
            ("src/lib.rs", None, ""),
            ("src/main.rs", None, ""),
            ("src/route.rs", Some("route"), "route"),
            ("src/gate/mod.rs", Some("gate"), "gate"),
            ("src/gate/build.rs", Some("gate"), "gate::build"),
            ("tests/it/main.rs", None, "tests::it"),
        ] {
            let source = Source::new(path, "");
            assert_eq!(
                (source.room(), source.module().join("::").as_str()),
                (room, module),
                "{path}"
            );
        }
    }
}

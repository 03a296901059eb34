//! The source line of a problem with a marker below it, or as much of it as gives no secret away.
//!
//! ```text
//!    12 | lifetime = "2 days"
//!       |            ^^^^^^^^
//! ```

use std::ops::Range;

use super::{
    document::Document,
    names::{is_delicate, is_plain},
};

/// A line of the file, ready to be printed.
pub(super) struct Excerpt {
    /// From 1.
    pub(super) line: usize,
    /// In characters, from 1.
    pub(super) column: usize,
    /// Both lines, each with its end.
    pub(super) text: String,
}

/// The first line that `range` of the document's text touches.
pub(super) fn excerpt(document: &Document, range: Range<usize>) -> Excerpt {
    let text = document.text();
    let start = floor(text, range.start);
    let before = text.get(..start).unwrap_or_default();
    let from = before.rfind('\n').map_or(0, |at| at + 1);
    let to = text
        .get(from..)
        .and_then(|rest| rest.find('\n'))
        .map_or(text.len(), |length| from + length);
    let source = text.get(from..to).unwrap_or_default().trim_end_matches('\r');
    let head = text.get(from..start).unwrap_or_default();
    let marked = text.get(start..floor(text, range.end).min(to).max(start));
    let line = before.matches('\n').count() + 1;
    let column = head.chars().count() + 1;
    let width = marked.map_or(1, |marked| marked.trim_end().chars().count().max(1));
    let text = if may_show(document, from..to) {
        marked_line(line, source, column, width)
    } else {
        let shown = without_value(source);
        let last = shown.chars().count();
        marked_line(line, &shown, column.min(last), width.min(last + 1 - column.min(last)))
    };
    Excerpt { line, column, text }
}

fn marked_line(line: usize, source: &str, column: usize, width: usize) -> String {
    // Control characters could play with the terminal; tabs keep their width in both lines.
    let plain = |letter: char| {
        if letter.is_control() && letter != '\t' { ' ' } else { letter }
    };
    let source: String = source.chars().map(plain).collect();
    let blank = |letter: char| if letter == '\t' { '\t' } else { ' ' };
    let indent: String = source.chars().take(column.saturating_sub(1)).map(blank).collect();
    format!("{line:5} | {source}\n      | {indent}{}\n", "^".repeat(width.max(1)))
}

/// Whether the line at these bytes holds no secret: neither a value that is one, nor a comment or a broken line that may be.
fn may_show(document: &Document, range: Range<usize>) -> bool {
    let text = document.text();
    let line = text.get(range.clone()).unwrap_or_default();
    let address = line.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
    let comment = line.split_once('#').is_some_and(|(_, rest)| is_delicate(rest));
    let broken = !document.is_indexed() && !is_harmless(line);
    !(address || comment || broken || document.is_secret(&range))
}

/// Whether a line of a file that can't be parsed is surely free of secrets, whatever was mistyped in it.
fn is_harmless(line: &str) -> bool {
    let key = line.split_once('=').map(|(key, _)| key.trim());
    let last = key.map(|key| key.rsplit_once('.').map_or(key, |(_, last)| last));
    is_header(line) || (last.is_some_and(is_plain) && !is_delicate(line))
}

fn is_header(line: &str) -> bool {
    let line = line.trim();
    let name = line.trim_matches(['[', ']']);
    line.starts_with('[')
        && line.ends_with(']')
        && name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte)
        })
}

/// The line up to its equals sign if a key of ours stands before it, and an ellipsis for the rest.
fn without_value(line: &str) -> String {
    let key = line
        .split_once('=')
        .map(|(key, _)| key)
        .filter(|key| key.trim().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
    key.map_or_else(|| "…".into(), |key| format!("{key}= …"))
}

fn floor(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

//! Collects the problems of an imported file, each with its line, column and text.

use super::Place;
use rackstrap_site::{Diagnostic, excerpt, harmless, one_line};
use std::ops::Range;

/// At most this many problems are kept; the rest is counted. A person does not correct more at once.
pub const PROBLEMS: usize = 1000;
/// At most this many characters of the file's text are in a message.
const QUOTED: usize = 60;

/// The problems and warnings of one file, by bytes of its text.
pub(super) struct Report<'t> {
    text: &'t str,
    file: String,
    /// The byte at which each line begins.
    lines: Vec<usize>,
    problems: Vec<(usize, Diagnostic)>,
    omitted: usize,
    warnings: Vec<(usize, Diagnostic)>,
    omitted_warnings: usize,
}

/// The problems and warnings, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub problems: Vec<Diagnostic>,
    pub omitted: usize,
    pub warnings: Vec<Diagnostic>,
}

impl<'t> Report<'t> {
    pub fn new(text: &'t str, file: &str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        Report {
            text,
            file: one_line(file),
            lines: std::iter::once(0).chain(starts.map(|(i, _)| i + 1)).collect(),
            problems: Vec::new(),
            omitted: 0,
            warnings: Vec::new(),
            omitted_warnings: 0,
        }
    }

    /// The text of the file.
    pub fn text(&self) -> &'t str {
        self.text
    }

    /// Each line without its end, and the byte at which it begins.
    pub fn lines(&self) -> Vec<(usize, &'t str)> {
        let text = self.text;
        let line = |(i, &begin): (usize, &usize)| {
            let end = self.lines.get(i + 1).map_or(text.len(), |next| next - 1);
            (begin, text[begin..end].trim_end_matches('\r'))
        };
        self.lines.iter().enumerate().map(line).collect()
    }

    /// The line of that byte, from 1.
    pub fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|&begin| begin <= at)
    }

    /// The line and the column of that byte, both from 1.
    pub fn line_and_column(&self, at: usize) -> Place {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let line = self.line(at);
        let before = &self.text[self.lines[line - 1]..at];
        (line, before.chars().count() + 1)
    }

    /// Reports a problem, which prevents the import of the whole file.
    pub fn error(&mut self, at: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        if self.problems.len() == PROBLEMS {
            self.omitted += 1;
            return;
        }
        let diagnostic = self.place(&at, message.into(), help.into());
        self.problems.push((at.start, diagnostic));
    }

    /// Reports a problem without a place.
    pub fn error_whole(&mut self, message: impl Into<String>, help: impl Into<String>) {
        let diagnostic = self.whole(message.into(), help.into());
        self.problems.push((0, diagnostic));
    }

    /// Reports a warning, which does not prevent the import.
    pub fn warn(&mut self, at: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        if self.warnings.len() == PROBLEMS {
            self.omitted_warnings += 1;
            return;
        }
        let diagnostic = self.place(&at, message.into(), help.into());
        self.warnings.push((at.start, diagnostic));
    }

    /// Reports a warning without a place.
    pub fn warn_whole(&mut self, message: impl Into<String>, help: impl Into<String>) {
        let diagnostic = self.whole(message.into(), help.into());
        self.warnings.push((self.text.len(), diagnostic));
    }

    /// Whether there are no problems.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// All problems and warnings, sorted by place.
    pub fn finish(mut self) -> Said {
        if self.omitted_warnings > 0 {
            let message = format!("{} more warnings", self.omitted_warnings);
            self.warn_whole(message, "correct the ones above, then try again");
        }
        let sorted = |mut all: Vec<(usize, Diagnostic)>| {
            all.sort_by_key(|(at, _)| *at);
            all.into_iter().map(|(_, diagnostic)| diagnostic).collect()
        };
        Said {
            problems: sorted(self.problems),
            omitted: self.omitted,
            warnings: sorted(self.warnings),
        }
    }

    fn whole(&self, message: String, help: String) -> Diagnostic {
        Diagnostic {
            file: self.file.clone(),
            line: 0,
            column: 0,
            message: one_line(&message),
            help: one_line(&help),
            excerpt: None,
        }
    }

    fn place(&self, at: &Range<usize>, message: String, help: String) -> Diagnostic {
        let (line, column) = self.line_and_column(at.start);
        let column = column - 1;
        let begin = self.lines[line - 1];
        let start = begin
            + self.text[begin..]
                .chars()
                .take(column)
                .map(char::len_utf8)
                .sum::<usize>();
        let content = self.text[begin..].split('\n').next().unwrap_or_default();
        let content = content.trim_end_matches('\r');
        let end = at.end.clamp(start, begin + content.len().max(start - begin));
        let length = self.text.get(start..end).map_or(1, |s| s.chars().count()).max(1);
        Diagnostic {
            line,
            column: column + 1,
            excerpt: Some(excerpt(content, column, length)),
            ..self.whole(message, help)
        }
    }
}

/// `text`, shortened, without characters that a terminal would interpret.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(QUOTED).map(harmless).collect();
    if text.chars().nth(QUOTED).is_some() {
        shown.push('…');
    }
    shown
}

/// The words of `line`, which begins at byte `offset`, each with its bytes.
pub(super) fn words(line: &str, offset: usize) -> impl Iterator<Item = (Range<usize>, &str)> {
    split(line, offset, char::is_whitespace).filter(|(_, word)| !word.is_empty())
}

/// The parts of `line`, which begins at byte `offset`, between separators; each trimmed, with its bytes.
pub(super) fn split(
    line: &str,
    offset: usize,
    separator: impl Fn(char) -> bool,
) -> impl Iterator<Item = (Range<usize>, &str)> {
    line.split(separator).map(move |part| {
        let word = part.trim();
        // Both are slices of `line`, so the distance of their beginnings is a number of bytes.
        let begin = offset + (word.as_ptr() as usize - line.as_ptr() as usize);
        (begin..begin + word.len(), word)
    })
}

/// The line without its comment: a `#` at its beginning or after a blank.
pub(super) fn without_comment(line: &str) -> &str {
    let mut before = ' ';
    for (i, c) in line.char_indices() {
        if c == '#' && before.is_whitespace() {
            return &line[..i];
        }
        before = c;
    }
    line
}

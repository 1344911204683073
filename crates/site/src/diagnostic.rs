//! Problems of a site file: the place, the finding and the correction.

use rackstrap_base::text::{self, is_harmful};
use serde::Serialize;
use std::{fmt, io, ops::Range, path::PathBuf};

/// At most this many problems are kept; the rest is counted. A person does not correct more at once.
const MOST: usize = 50;
/// At most this many characters of a line are shown.
const WIDTH: usize = 120;
/// At most this many characters of a message.
const LONGEST: usize = 600;

/// One problem, or one warning, at one place of the site file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file, as the user named it.
    pub file: String,
    /// Line, from 1; 0 if the problem concerns the whole file.
    pub line: usize,
    /// Column, from 1, in characters; 0 if the problem concerns the whole file.
    pub column: usize,
    /// The problem, with the value in the file.
    pub message: String,
    /// What to write instead, with an example.
    pub help: String,
    /// The line, and the part of it that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<Excerpt>,
}

/// A line of the site file that is safe to print, with the part that is wrong marked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Excerpt {
    /// The line, shortened, with control characters replaced.
    pub text: String,
    /// First marked character, from 0.
    pub start: usize,
    /// Number of marked characters, at least 1.
    pub length: usize,
}

/// A warning: the file is valid, but a value is probably not intended.
pub type Warning = Diagnostic;

/// Why a site file is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "cannot read the site file {path}: {source}{}",
        match source.kind() { io::ErrorKind::NotFound => "; give its path with --config FILE", _ => "" },
        path = path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The file was read, and has problems.
    #[error("{}", Problems(problems, *omitted))]
    Invalid {
        /// All problems, in the order of the file; at least one.
        problems: Vec<Diagnostic>,
        /// Number of further problems that are not shown.
        omitted: usize,
        /// The warnings that a file without problems would cause.
        warnings: Vec<Warning>,
    },
}

impl Diagnostic {
    /// The diagnostic without the excerpt, on one line.
    pub fn brief(&self) -> String {
        let Diagnostic {
            file,
            line,
            column,
            message,
            help,
            ..
        } = self;
        let place = match line {
            0 => file.clone(),
            _ => format!("{file}:{line}:{column}"),
        };
        match help.as_str() {
            "" => format!("{place}: {message}"),
            help => format!("{place}: {message}; {help}"),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Diagnostic { file, line, column, .. } = self;
        if *line == 0 {
            writeln!(f, "{file}: {}", self.message)?;
        } else {
            writeln!(f, "{file}:{line}:{column}: {}", self.message)?;
        }
        let gutter = line.to_string().len();
        if let Some(Excerpt { text, start, length }) = &self.excerpt {
            writeln!(f, "{:gutter$} |", "")?;
            writeln!(f, "{line} | {text}")?;
            writeln!(f, "{:gutter$} | {:start$}{}", "", "", "^".repeat(*length))?;
        }
        write!(f, "{:gutter$} = {}", "", self.help)
    }
}

struct Problems<'a>(&'a [Diagnostic], usize);

impl fmt::Display for Problems<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.0 {
            write!(f, "{problem}\n\n")?;
        }
        let count = self.0.len() + self.1;
        let file = self.0.first().map_or("site file", |p| p.file.as_str());
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{file}: {count} problem{plural}")?;
        if self.1 > 0 {
            write!(f, ", {} not shown", self.1)?;
        }
        f.write_str("; nothing was changed")
    }
}

/// Collects problems and warnings while a file is checked.
pub(super) struct Report<'t> {
    text: &'t str,
    file: String,
    /// The byte at which each line begins.
    lines: Vec<usize>,
    problems: Vec<(usize, Diagnostic)>,
    warnings: Vec<(usize, Diagnostic)>,
    omitted: usize,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str, file: String) -> Self {
        let starts = text
            .bytes()
            .enumerate()
            .filter(|(_, b)| *b == b'\n')
            .map(|(i, _)| i + 1);
        Report {
            text,
            file,
            lines: std::iter::once(0).chain(starts).collect(),
            problems: Vec::new(),
            warnings: Vec::new(),
            omitted: 0,
        }
    }

    /// The text between two bytes of the file.
    pub(super) fn source(&self, at: &Range<usize>) -> &'t str {
        self.text.get(at.clone()).unwrap_or_default()
    }

    /// The number of the line in which a place begins, from 1.
    pub(super) fn line(&self, at: &Range<usize>) -> usize {
        self.lines.partition_point(|&begin| begin <= at.start)
    }

    /// `FILE:LINE:COLUMN` of a place, as in messages.
    pub(super) fn shown_place(&self, at: &Range<usize>) -> String {
        let Diagnostic { file, line, column, .. } = self.place(at, String::new(), String::new());
        format!("{file}:{line}:{column}")
    }

    /// Reports a problem, which makes the file invalid.
    pub(super) fn error(&mut self, at: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        if self.problems.len() == MOST {
            self.omitted += 1;
            return;
        }
        let diagnostic = self.place(&at, message.into(), help.into());
        self.problems.push((at.start, diagnostic));
    }

    /// Reports that something is missing in the whole file.
    pub(super) fn missing(&mut self, message: impl Into<String>, help: impl Into<String>) {
        let diagnostic = Diagnostic {
            file: self.file.clone(),
            line: 0,
            column: 0,
            message: one_line(&message.into()),
            help: one_line(&help.into()),
            excerpt: None,
        };
        self.problems.push((0, diagnostic));
    }

    /// Reports a warning.
    pub(super) fn warn(&mut self, at: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        if self.warnings.len() < MOST {
            let diagnostic = self.place(&at, message.into(), help.into());
            self.warnings.push((at.start, diagnostic));
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// The warnings, if there were no problems.
    pub(super) fn finish(self) -> Result<Vec<Warning>, ConfigError> {
        let sorted = |mut all: Vec<(usize, Diagnostic)>| {
            all.sort_by_key(|(at, _)| *at);
            all.into_iter().map(|(_, d)| d).collect::<Vec<_>>()
        };
        let warnings = sorted(self.warnings);
        if self.problems.is_empty() {
            return Ok(warnings);
        }
        Err(ConfigError::Invalid {
            problems: sorted(self.problems),
            omitted: self.omitted,
            warnings,
        })
    }

    fn place(&self, at: &Range<usize>, message: String, help: String) -> Diagnostic {
        let mut start = at.start.min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let line = self.lines.partition_point(|&begin| begin <= start) - 1;
        let begin = self.lines[line];
        let rest = &self.text[begin..];
        let content = rest.split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let column = self.text[begin..start].chars().count();
        let end = at.end.clamp(start, begin + content.len().max(start - begin));
        let length = self.text.get(start..end).map_or(1, |s| s.chars().count()).max(1);
        Diagnostic {
            file: self.file.clone(),
            line: line + 1,
            column: column + 1,
            message: one_line(&message),
            help: one_line(&help),
            excerpt: Some(excerpt(content, column, length)),
        }
    }
}

/// The character, or a replacement: control characters change the state of a terminal, and some other characters hide or reverse the
/// text ([`is_harmful`]).
pub fn harmless(c: char) -> char {
    match c {
        '\t' => ' ',
        c if is_harmful(c) => '\u{fffd}',
        c => c,
    }
}

/// The message on one line, even if it contains text of the file with line breaks.
pub fn one_line(text: &str) -> String {
    let mut line: String = text.chars().take(LONGEST).map(harmless).collect();
    if text.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}

/// The line, cut to a window around the marked part.
pub fn excerpt(content: &str, column: usize, length: usize) -> Excerpt {
    let skipped = if column < WIDTH * 2 / 3 { 0 } else { column - WIDTH / 3 };
    let mut text: String = content.chars().skip(skipped).take(WIDTH).map(harmless).collect();
    let shown = text.chars().count();
    if content.chars().nth(skipped + WIDTH).is_some() {
        text.push('…');
    }
    let start = column - skipped;
    Excerpt {
        text,
        start,
        length: length.min(shown.saturating_sub(start)).max(1),
    }
}

/// `text` in quotes, shortened, without characters that a terminal would interpret.
pub(super) fn quote(text: &str) -> String {
    format!("'{}'", shown(text))
}

/// `text`, shortened, without characters that a terminal would interpret.
pub(super) fn shown(text: &str) -> String {
    text::quoted(text, 60)
}

//! One term: plain text, brackets and wildcards.

use super::{
    MAX_BRACKETS, MAX_DIGITS, MAX_NAME,
    error::{At, Fault, shown},
};

/// A name with brackets (`r[01-04]n[01-32]`) and wildcards (`r01*`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pattern {
    segments: Vec<Segment>,
    wild: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// With its wildcards: no name has a `*` or `?`.
    Text(String),
    Bracket(Vec<Numbers>),
}

/// `from-to/step`; the numbers have at least `width` digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbers {
    from: u64,
    to: u64,
    step: u64,
    width: usize,
}

impl Numbers {
    fn count(&self) -> u64 {
        // At least 1; MAX_DIGITS keeps it far from overflow.
        (self.to - self.from) / self.step + 1
    }

    fn iter(&self) -> impl Iterator<Item = String> {
        let width = self.width;
        let step = usize::try_from(self.step).unwrap_or(usize::MAX);
        (self.from..=self.to).step_by(step).map(move |n| format!("{n:0width$}"))
    }

    fn longest(&self) -> usize {
        self.width.max(self.to.to_string().len())
    }
}

impl Pattern {
    /// Reads a name, or with `extra` of a group's characters a group's name. Places in errors are relative to `text`.
    pub fn parse(text: &str, extra: &[char]) -> Result<Self, At> {
        let mut pattern = Pattern::default();
        let mut plain = String::new();
        let mut at = 0;
        while let Some(character) = text[at..].chars().next() {
            match character {
                '[' => {
                    let length = bracket_length(text, at)?;
                    pattern.push_text(&mut plain);
                    let numbers =
                        bracket(&text[at + 1..at + length - 1]).map_err(|(inside, f)| (at + 1 + inside, f))?;
                    pattern.segments.push(Segment::Bracket(numbers));
                    if pattern.brackets().count() > MAX_BRACKETS {
                        let found = format!("more than {MAX_BRACKETS} brackets in one name");
                        return Err((
                            at,
                            Fault::new(found, "write the names in several parts, with commas between"),
                        ));
                    }
                    at += length;
                    continue;
                }
                '*' | '?' => pattern.wild = true,
                _ if character.is_ascii_alphanumeric() || "-_.".contains(character) || extra.contains(&character) => {}
                _ => return Err((at, stray(character))),
            }
            if at == 0 && "-.".contains(character) {
                return Err((0, stray_start(character)));
            }
            plain.push(character);
            at += character.len_utf8();
        }
        pattern.push_text(&mut plain);
        let longest = pattern.longest();
        if longest > MAX_NAME {
            let found = format!("a name of {longest} characters");
            return Err((0, Fault::new(found, format!("names have at most {MAX_NAME}"))));
        }
        Ok(pattern)
    }

    fn push_text(&mut self, plain: &mut String) {
        if !plain.is_empty() {
            self.segments.push(Segment::Text(std::mem::take(plain)));
        }
    }

    fn brackets(&self) -> impl Iterator<Item = &Vec<Numbers>> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Bracket(numbers) => Some(numbers),
            Segment::Text(_) => None,
        })
    }

    fn longest(&self) -> usize {
        let lengths = self.segments.iter().map(|segment| match segment {
            Segment::Text(text) => text.len(),
            Segment::Bracket(numbers) => numbers.iter().map(Numbers::longest).max().unwrap_or(0),
        });
        lengths.sum()
    }

    /// True with wildcards: what it expands to are [`matches`] for names, not names.
    pub fn is_wild(&self) -> bool {
        self.wild
    }

    /// How many names [`Self::expand`] would make, as many as fit 64 bits.
    pub fn count(&self) -> u64 {
        let sizes = self.brackets().map(|numbers| {
            let counts = numbers.iter().map(Numbers::count);
            counts.fold(0, u64::saturating_add)
        });
        sizes.fold(1, u64::saturating_mul)
    }

    /// The names: those of the last bracket change fastest. Look at [`Self::count`] first.
    pub fn expand(&self) -> Vec<String> {
        let mut names = vec![String::new()];
        for segment in &self.segments {
            match segment {
                Segment::Text(text) => names.iter_mut().for_each(|name| name.push_str(text)),
                Segment::Bracket(numbers) => {
                    let ends: Vec<String> = numbers.iter().flat_map(Numbers::iter).collect();
                    let joined = names
                        .iter()
                        .flat_map(|name| ends.iter().map(move |end| format!("{name}{end}")));
                    names = joined.collect();
                }
            }
        }
        names
    }
}

/// From `[` to its `]`, both included.
fn bracket_length(text: &str, at: usize) -> Result<usize, At> {
    let inside = &text[at + 1..];
    match inside.find(['[', ']']) {
        Some(end) if inside[end..].starts_with(']') => Ok(end + 2),
        Some(end) => Err((
            at + 1 + end,
            Fault::new(
                "a bracket inside a bracket",
                "close the first with ']'; lists go into one bracket: [1-3,7]",
            ),
        )),
        None => {
            let likely = inside.trim_end_matches([',', '-', '/']);
            let numbers = !likely.is_empty() && likely.bytes().all(|b| b.is_ascii_digit() || b",-/".contains(&b));
            let likely = if numbers { shown(likely) } else { "01-32".to_owned() };
            let advice = format!("write {}[{likely}]", shown(&text[..at]));
            Err((at, Fault::new("this '[' is never closed", advice)))
        }
    }
}

/// What stands between `[` and `]`.
fn bracket(text: &str) -> Result<Vec<Numbers>, At> {
    let mut all = Vec::new();
    let mut at = 0;
    for item in text.split(',') {
        all.push(numbers(item).map_err(|(inside, fault)| (at + inside, fault))?);
        at += item.len() + 1;
    }
    Ok(all)
}

/// `7`, `1-3`, `10-20/2`.
fn numbers(item: &str) -> Result<Numbers, At> {
    if item.is_empty() {
        let fault = Fault::new(
            "a number is missing",
            "write numbers, ranges and steps: [1-3,7,10-20/2]",
        );
        return Err((0, fault));
    }
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (item, None),
    };
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let low = number(from)?;
    let high = number(to).map_err(|(inside, fault)| (from.len() + 1 + inside, fault))?;
    let step = match step {
        None => 1,
        Some("") => return Err((range.len() + 1, no_step("no step"))),
        Some(step) => number(step).map_err(|(inside, fault)| (range.len() + 1 + inside, fault))?,
    };
    if step == 0 {
        return Err((range.len() + 1, no_step("a step of 0")));
    }
    if low > high {
        return Err((
            0,
            Fault::new(format!("the range {range} counts down"), format!("write [{to}-{from}]")),
        ));
    }
    Ok(Numbers {
        from: low,
        to: high,
        step,
        width: width(range, from, to, high)?,
    })
}

fn no_step(found: &str) -> Fault {
    Fault::new(found, "write how far apart the numbers are: [1-9/2] is 1, 3, 5, 7, 9")
}

fn number(text: &str) -> Result<u64, At> {
    if text.is_empty() {
        return Err((
            0,
            Fault::new("a number is missing", "write both ends of a range: [01-32]"),
        ));
    }
    if let Some((at, other)) = text.char_indices().find(|(_, c)| !c.is_ascii_digit()) {
        let found = format!("'{}' where a number should be", other.escape_default());
        let advice = match other {
            ' ' => "write the numbers without blanks: [1-3,7]",
            '-' => "a range has two ends, and a list has commas: [1-3,5-7]",
            _ => "brackets have numbers only, such as [1-3,7,10-20/2]; names go outside, with commas between",
        };
        return Err((at, Fault::new(found, advice)));
    }
    let long = || {
        let found = format!("a number of {} digits", text.len());
        (0, Fault::new(found, format!("numbers have at most {MAX_DIGITS}")))
    };
    if text.len() > MAX_DIGITS {
        return Err(long());
    }
    text.parse().map_err(|_| long())
}

/// How many digits the numbers of a range have at least. A zero in front says so; both ends must say the same.
fn width(range: &str, from: &str, to: &str, high: u64) -> Result<usize, At> {
    let padded = |text: &str| text.len() > 1 && text.starts_with('0');
    let fits = match (padded(from), padded(to)) {
        (true, true) => from.len() == to.len(),
        // Slurm's [08-100] is 08, 09, 10 .. 100.
        (true, false) => from.len() <= to.len(),
        (false, padded) => !padded || from.len() == to.len(),
    };
    if fits {
        return Ok(if padded(from) { from.len() } else { 1 });
    }
    let width = from.len().max(to.len());
    let low = from.trim_start_matches('0');
    let low = if low.is_empty() { "0" } else { low };
    let found = format!("the ends of {range} have different numbers of zeros");
    let advice = format!("write [{low:0>width$}-{high:0width$}] or [{low}-{high}], as the names are written");
    Err((0, Fault::new(found, advice)))
}

fn stray(character: char) -> Fault {
    let found = format!("'{}' cannot be here", character.escape_default());
    let advice = match character {
        ']' => "there is no '[' before it",
        '{' | '}' | '(' | ')' => "hostlists have square brackets, r[01-04]n[01-32], and are read from left to right",
        '@' => "a group stands alone, with a comma before it",
        ':' => "only a @group has a colon, such as @profile:compute",
        '/' => "a step stands inside brackets, n[1-9/2]",
        '|' | '+' | ';' => "write a comma between hostlists",
        '~' => "exclude with '!'",
        _ => "names have letters, digits, '-', '_' and '.'",
    };
    Fault::new(found, advice)
}

fn stray_start(character: char) -> Fault {
    Fault::new(
        format!("a name that begins with '{character}'"),
        "names begin with a letter or a digit; exclude with '!', and write ranges in brackets: r[01-04]",
    )
}

/// Whether `name` looks like `glob`, in which `*` is any text and `?` any one character.
pub(super) fn matches(glob: &str, name: &str) -> bool {
    let (glob, name) = (glob.as_bytes(), name.as_bytes());
    let (mut g, mut n) = (0, 0);
    // After the last `*`, and how much of the name it has.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g + 1, n));
                g += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[n] => {
                g += 1;
                n += 1;
            }
            _ => match star {
                Some((after, had)) => {
                    star = Some((after, had + 1));
                    (g, n) = (after, had + 1);
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|byte| *byte == b'*')
}

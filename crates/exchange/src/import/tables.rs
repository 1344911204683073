//! Tables of comma-separated rows (RFC 4180) with headers, one after the other in one file; a quoted field may have several lines.

use super::report::Report;
use std::ops::Range;

/// Most fields of one row that are read.
const FIELDS: usize = 256;

/// A row: its place, and its fields.
pub(super) struct Row {
    pub at: Range<usize>,
    pub fields: Vec<String>,
}

impl Row {
    /// The field of a column; none if it is empty or missing.
    pub fn get(&self, header: &[String], column: &str) -> Option<&str> {
        let at = header.iter().position(|name| name == column)?;
        self.fields
            .get(at)
            .map(|text| text.trim())
            .filter(|text| !text.is_empty())
    }
}

/// All rows of the file. Rows that are no text of fields are reported.
pub(super) fn rows(report: &mut Report<'_>) -> Vec<Row> {
    let text = report.text();
    let mut builder = csv::ReaderBuilder::new();
    let mut reader = builder.has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut record = csv::StringRecord::new();
    let mut all = Vec::new();
    loop {
        match reader.read_record(&mut record) {
            Ok(false) => return all,
            Ok(true) => {
                // The position may be that of empty lines before the row.
                let begin = record
                    .position()
                    .map_or(0, |position| position.byte() as usize)
                    .min(text.len());
                let skipped = text.get(begin..).map_or(0, |rest| rest.len() - rest.trim_start().len());
                let begin = (begin + skipped).min(text.len());
                let at = begin
                    ..begin
                        + text
                            .get(begin..)
                            .and_then(|rest| rest.lines().next())
                            .map_or(0, str::len);
                if record.len() > FIELDS {
                    let message = format!("{} fields in a row; at most {FIELDS} are read", record.len());
                    report.error(at, message, "is this the right file?");
                    return all;
                }
                if record.iter().any(|field| !field.trim().is_empty()) {
                    let fields = record.iter().map(str::to_owned).collect();
                    all.push(Row { at, fields });
                }
            }
            Err(error) => {
                report.error_whole(format!("this is not CSV: {error}"), "make the file again");
                return all;
            }
        }
    }
}

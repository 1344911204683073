//! Finds the intended meaning of a value of the wrong type.
//!
//! Users copy the text of a help. So it repeats the value in the file, or names the choice; a fixed value could be the
//! opposite of what was meant.

use toml::de::DeValue;

/// Words for no and yes, in lower case.
const NO: [&str; 7] = ["no", "false", "off", "0", "n", "never", "none"];
const YES: [&str; 5] = ["yes", "true", "on", "1", "y"];

/// The answer of `read` to a text: success, or (message, help).
type Verdict = Result<(), (String, String)>;

/// The boolean that `value` means; none if it means neither.
fn truth(value: &DeValue<'_>) -> Option<bool> {
    let word = match value {
        DeValue::String(text) => text.trim().to_lowercase(),
        DeValue::Integer(number) => number.as_str().to_owned(),
        _ => return value.as_bool(),
    };
    let word = word.as_str();
    YES.contains(&word)
        .then_some(true)
        .or(NO.contains(&word).then_some(false))
}

/// Help for a `key` that is true or false.
pub(super) fn boolean(value: &DeValue<'_>, key: &str) -> String {
    match truth(value) {
        Some(meant) => format!("write {key} = {meant}"),
        None => "write true or false, without quotes".to_owned(),
    }
}

/// Help for a `key` that is a whole number. `fits` returns whether a number is in its range, and `otherwise` names the range.
pub(super) fn integer(value: &DeValue<'_>, key: &str, fits: impl Fn(u64) -> bool, otherwise: String) -> String {
    let number = match value {
        DeValue::String(text) => text.trim().parse().ok(),
        DeValue::Float(number) => (number.as_str())
            .split_once('.')
            .filter(|(_, fraction)| fraction.bytes().all(|b| b == b'0'))
            .and_then(|(whole, _)| whole.parse().ok()),
        _ => None,
    };
    // For keys that accept 0, this value turns the function off.
    let number = number.or((truth(value) == Some(false)).then_some(0));
    match number.filter(|number| fits(*number)) {
        Some(number) => format!("write {key} = {number}"),
        None => otherwise,
    }
}

/// Help for a `key` that is a string. `source` is its value in the file, `read` the key's own check.
pub(super) fn text(
    value: &DeValue<'_>,
    source: &str,
    key: &str,
    example: &str,
    read: impl Fn(&str) -> Verdict,
) -> String {
    let example = format!("write text in double quotes, such as {key} = {example}");
    match value {
        DeValue::Boolean(false) if read("").is_ok() => format!("write {key} = \"\" for none"),
        DeValue::Boolean(_) => example,
        DeValue::Array(all) => {
            let only = all.iter().next().filter(|_| all.len() == 1);
            let text = only.and_then(|only| quoted(only.get_ref().as_str()?, &read));
            text.map_or(example, |text| format!("write {key} = {text}"))
        }
        DeValue::Table(_) | DeValue::String(_) => example,
        // The problem that the key's own check finds concerns the value in the file.
        _ => match (quoted(source, &read), read(source)) {
            (Some(text), _) => format!("write {key} = {text}"),
            (None, Err((_, help))) => help,
            (None, Ok(())) => example,
        },
    }
}

/// Help for a `key` that is a list of strings. `read` checks each of them.
pub(super) fn list(value: &DeValue<'_>, key: &str, example: &str, read: impl Fn(&str) -> Verdict) -> String {
    let items = match value {
        DeValue::Boolean(false) => Some(Vec::new()),
        DeValue::String(text) => {
            let words = text.split_whitespace().map(|word| word.trim_end_matches(','));
            let parts = text.split(',').map(str::trim);
            // An item may contain blanks, as an SSH key does, and items may be separated by blanks or commas.
            let all = |items: Vec<&str>| {
                items
                    .into_iter()
                    .map(|item| quoted(item, &read))
                    .collect::<Option<Vec<_>>>()
            };
            all(words.collect())
                .or_else(|| all(vec![text.trim()]))
                .or_else(|| all(parts.collect()))
        }
        _ => None,
    };
    match items {
        Some(items) => format!("write {key} = [{}]", items.join(", ")),
        None => format!("write a list of strings, such as {key} = {example}"),
    }
}

/// Help for an item of the list `key` that is not a string and is `source` in the file.
pub(super) fn item(source: &str, key: &str, example: &str, read: impl Fn(&str) -> Verdict) -> String {
    match quoted(source, &read) {
        Some(text) => format!("write {text}"),
        None => format!("write each in double quotes, such as {key} = {example}"),
    }
}

/// `text` as a TOML string, if `read` accepts it and it needs no escapes.
fn quoted(text: &str, read: &impl Fn(&str) -> Verdict) -> Option<String> {
    let plain = !text.is_empty() && text.chars().all(|c| !c.is_control() && c != '"' && c != '\\');
    (plain && read(text).is_ok()).then(|| format!("\"{text}\""))
}

#[cfg(test)]
mod tests {
    use crate::{ConfigError, parse};
    use std::path::Path;

    /// The help of the only problem of a site file with `line` below `section`.
    fn help(section: &str, line: &str) -> String {
        let text = format!(
            "[cluster]\nnode-name = \"n{{n:02}}\"\nnode-address = \"10.5.1.{{n}}\"\nreserved = [\"10.5.1.250\"]\n\
             [[subnet]]\nnetwork = \"10.5.1.0/24\"\ninterface = \"eth1\"\nserver = \"10.5.1.250\"\n{section}\n{line}\n"
        );
        match parse(&text, Path::new("/site.toml")) {
            Err(ConfigError::Invalid { problems, .. }) => {
                let about: Vec<_> = problems.iter().filter(|problem| problem.line == 10).collect();
                assert_eq!(about.len(), 1, "{line}: {problems:?}");
                about[0].help.clone()
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_intended_boolean_is_suggested_or_else_both_values() {
        for (section, key) in [
            ("[server]", "answer-router-solicitations"),
            ("[server]", "look-for-dhcp-servers"),
            ("[profile.default]", "check-login"),
            ("[[mount]]", "required"),
            ("[users]", "shadow"),
        ] {
            for (value, meant) in [
                ("\"no\"", "false"),
                ("\"False\"", "false"),
                ("\" off \"", "false"),
                ("\"0\"", "false"),
                ("0", "false"),
                ("\"yes\"", "true"),
                ("\"TRUE\"", "true"),
                ("\"on\"", "true"),
                ("\"1\"", "true"),
                ("1", "true"),
            ] {
                assert_eq!(
                    help(section, &format!("{key} = {value}")),
                    format!("write {key} = {meant}")
                );
            }
            for value in ["\"maybe\"", "\"\"", "2", "[]", "1.0"] {
                let help = help(section, &format!("{key} = {value}"));
                assert_eq!(help, "write true or false, without quotes", "{value}");
            }
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_repeated_and_not_replaced() {
        for (section, line, remedy) in [
            ("[server]", "http-port = \"8080\"", "write http-port = 8080"),
            ("[server]", "http-port = 8080.0", "write http-port = 8080"),
            (
                "[server]",
                "http-port = \"eighty\"",
                "write a number from 1 to 65535, such as http-port = 80",
            ),
            (
                "[server]",
                "http-port = false",
                "write a number from 1 to 65535, such as http-port = 80",
            ),
            ("[backup]", "keep = false", "write keep = 0"),
            ("[backup]", "keep = \"none\"", "write keep = 0"),
            (
                "[backup]",
                "keep = true",
                "write a number from 0 to 1000, such as keep = 7",
            ),
            ("[limits]", "heartbeat = 60", "write heartbeat = \"60s\""),
            ("[limits]", "heartbeat = \"90\"", "write heartbeat = \"90s\""),
            (
                "[limits]",
                "heartbeat = 3",
                "write a time from 5s to 1h, such as heartbeat = \"30s\"",
            ),
            ("[profile.default]", "console = false", "write console = \"\" for none"),
            ("[profile.default]", "layout = false", "write layout = \"\" for none"),
            ("[profile.default]", "image = [\"rocky\"]", "write image = \"rocky\""),
            ("[profile.default]", "checks = false", "write checks = []"),
            (
                "[profile.default]",
                "checks = \"unit a.service\"",
                "write checks = [\"unit a.service\"]",
            ),
            (
                "[profile.default]",
                "templates = \"site, gpu\"",
                "write templates = [\"site\", \"gpu\"]",
            ),
            ("[profile.default]", "templates = \"\"", "write templates = []"),
            ("[profile.default]", "templates = [7]", "write \"7\""),
            (
                "[hooks]",
                "drain = \"/etc/drain --now a,b\"",
                "write drain = [\"/etc/drain\", \"--now\", \"a,b\"]",
            ),
            (
                "[server]",
                "templates-dir = true",
                "write text in double quotes, such as templates-dir = \"templates\"",
            ),
        ] {
            assert_eq!(help(section, line), remedy, "{line}");
        }
    }
}

//! Settings among the arguments of `node set`, `node unset` and `node add`: `image=debian@2`, `kernel-args+=quiet`, `vars.pdu=pdu2`.

use anyhow::{Context, Result, bail};
use rackstrap_base::words::closest;
use rackstrap_site::{meant_setting, own_keys, value::Value, variable};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, stdin},
};

/// Longest value of a variable that is read from a file, in bytes.
const MOST: u64 = 64 << 10;

/// Divides the arguments of `node set` into nodes and settings: a name of a node has no `=`.
///
/// # Errors
/// A setting is named twice.
pub fn split_set(arguments: Vec<String>) -> Result<(Vec<String>, BTreeMap<String, Value>)> {
    let (mut nodes, mut settings) = (Vec::new(), BTreeMap::new());
    for argument in arguments {
        let Some((key, text)) = argument.split_once('=') else {
            nodes.push(argument);
            continue;
        };
        if key.is_empty() {
            bail!("'{argument}' has no key before its =\nhelp: write KEY=VALUE, such as image=debian@2");
        }
        let name = key.trim_end_matches(['+', '-']);
        if settings
            .keys()
            .any(|known: &String| known.trim_end_matches(['+', '-']) == name)
        {
            bail!("{name} is changed twice\nhelp: write it once, or run the command twice");
        }
        let text = match variable(name) {
            Some(_) => of_file(text)?,
            None => text.to_owned(),
        };
        settings.insert(key.to_owned(), meant_setting(key, &text));
    }
    Ok((nodes, settings))
}

/// The text of a variable: `@FILE` is the text of a file, `@-` of standard input, without the newline at its end; `@@` begins a
/// text with `@`. A secret that is on no command line is in no list of processes.
fn of_file(text: &str) -> Result<String> {
    let Some(name) = text.strip_prefix('@') else {
        return Ok(text.to_owned());
    };
    if name.starts_with('@') {
        return Ok(name.to_owned());
    }
    let mut read = String::new();
    let done = match name {
        "-" => stdin().take(MOST + 1).read_to_string(&mut read),
        path => File::open(path).and_then(|file| file.take(MOST + 1).read_to_string(&mut read)),
    };
    done.with_context(|| format!("reading the value of a variable from {name}"))?;
    if read.len() as u64 > MOST {
        bail!("{name} is longer than {MOST} bytes, too long for a variable");
    }
    Ok(read.strip_suffix('\n').unwrap_or(&read).to_owned())
}

/// Divides the arguments of `node unset` into nodes and keys of settings: no node has the name of a key.
///
/// # Errors
/// An argument has a value, or is almost a key.
pub fn split_unset(arguments: Vec<String>) -> Result<(Vec<String>, Vec<String>)> {
    let (mut nodes, mut keys) = (Vec::new(), Vec::new());
    for argument in arguments {
        if let Some((key, _)) = argument.split_once('=') {
            let key = key.trim_end_matches(['+', '-']);
            bail!("'{argument}' has a value, and `unset` takes the key only\nhelp: write {key}");
        }
        let known = own_keys;
        if known().any(|key| key == argument) || variable(&argument).is_some() {
            keys.push(argument);
        } else if let Some(near) =
            closest(&argument, known()).filter(|_| !argument.contains(|c: char| c.is_ascii_digit()))
        {
            bail!("'{argument}' is neither a node nor a setting\nhelp: did you mean {near}?");
        } else {
            nodes.push(argument);
        }
    }
    Ok((nodes, keys))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn all(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn arguments_with_a_value_are_settings() {
        let arguments = all(&[
            "r01n03",
            "image=debian@2",
            "console=ttyS1,115200",
            "kernel-args+=hugepages=64 dyndbg=\"file x +p\"",
            "checks+=unit sshd.service",
            "templates=[\"site\", \"gpu\"]",
            "authorized-keys=",
            "check-login=false",
            "vars.pdu=pdu2",
            "vars.nics=[\"ib0\"]",
            "vars.port=7",
            "vars.at=@@x",
            "vars-secret.pin=0042",
            "r02n[01-04]",
        ]);
        let (nodes, settings) = split_set(arguments).unwrap();
        assert_eq!(nodes, ["r01n03", "r02n[01-04]"]);
        assert_eq!(
            json!(settings),
            json!({
                "image": "debian@2",
                "console": "ttyS1,115200",
                "kernel-args+": "hugepages=64 dyndbg=\"file x +p\"",
                "checks+": ["unit sshd.service"],
                "templates": ["site", "gpu"],
                "authorized-keys": [],
                "check-login": false,
                "vars.pdu": "pdu2",
                "vars.nics": ["ib0"],
                "vars.port": 7,
                "vars.at": "@x",
                "vars-secret.pin": "0042",
            })
        );
        for (words, says) in [
            (["image=a", "image=b"], "image is changed twice"),
            (["kernel-args+=a", "kernel-args=b"], "kernel-args is changed twice"),
            (["r01n01", "=b"], "has no key"),
        ] {
            let error = split_set(all(&words)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn keys_are_told_from_nodes() {
        let (nodes, keys) = split_unset(all(&["r01n03", "console", "@gpu", "kernel-args"])).unwrap();
        assert_eq!(
            (nodes, keys),
            (all(&["r01n03", "@gpu"]), all(&["console", "kernel-args"]))
        );
        let (_, keys) = split_unset(all(&["r01n03", "vars.pdu", "vars-secret.pin"])).unwrap();
        assert_eq!(keys, ["vars.pdu", "vars-secret.pin"]);
        for (word, says) in [
            ("consle", "did you mean console?"),
            ("image=debian", "takes the key only\nhelp: write image"),
        ] {
            let error = split_unset(all(&["r01n03", word])).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}

//! Recipes: the content of a root tree (`images/*.toml`), and the arguments for mmdebstrap and dnf.

mod debian;
mod dnf;

pub use debian::Debian;
pub use dnf::Dnf;

use serde::Deserialize;

/// The content of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// Debian or a derivative, by mmdebstrap.
    Debian(Debian),
    /// Fedora or a derivative, by dnf.
    Dnf(Dnf),
}

/// The field that names the kind of recipe.
#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

/// Why a text is not a recipe.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// It is not TOML, or has other fields.
    #[error("{}", .0.to_string().trim_end())]
    Toml(#[from] toml::de::Error),
    /// A value that cannot be passed to the program.
    #[error("{field}: '{value}' is not {wanted}")]
    Value {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// The allowed values.
        wanted: &'static str,
    },
    /// A repository with missing or conflicting fields.
    #[error("repo.{name}: {what}")]
    Repo {
        /// Its name.
        name: String,
        /// The missing or conflicting fields.
        what: &'static str,
    },
}

impl Recipe {
    /// Parses a recipe. Every value is checked: none may look like an option of the program to which it is passed.
    pub fn parse(text: &str) -> Result<Self, RecipeError> {
        let Kind { kind } = toml::from_str(text)?;
        match kind.as_deref() {
            None | Some("mmdebstrap") => Debian::parse(text).map(Recipe::Debian),
            Some("dnf") => Dnf::parse(text).map(Recipe::Dnf),
            Some(other) => Err(RecipeError::Value {
                field: "kind",
                value: other.to_owned(),
                wanted: "mmdebstrap or dnf",
            }),
        }
    }

    /// The program that makes the tree.
    pub fn program(&self) -> &'static str {
        match self {
            Recipe::Debian(_) => "mmdebstrap",
            Recipe::Dnf(_) => "dnf",
        }
    }
}

fn check(field: &'static str, value: &str, right: bool, wanted: &'static str) -> Result<(), RecipeError> {
    match right {
        true => Ok(()),
        false => Err(RecipeError::Value {
            field,
            value: value.to_owned(),
            wanted,
        }),
    }
}

/// Letters and digits, plus, minus, dot, and what is in `more`, beginning with a letter or digit.
fn word(value: &str, more: &str) -> bool {
    value.starts_with(|c: char| c.is_ascii_alphanumeric())
        && value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c) || more.contains(c))
}

/// Checks commands for a shell in the tree.
fn check_run(run: &[String]) -> Result<(), RecipeError> {
    run.iter().try_for_each(|command| {
        let right = !command.trim().is_empty() && !command.contains('\0');
        check("run", command, right, "a shell command")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_decides() {
        let debian = "suite = 'sid'\npackages = []\n";
        assert_eq!(Recipe::parse(debian).unwrap().program(), "mmdebstrap");
        let debian = Recipe::parse(&format!("kind = 'mmdebstrap'\n{debian}")).unwrap();
        assert_eq!(debian.program(), "mmdebstrap");
        let error = Recipe::parse("kind = 'apk'\n").unwrap_err().to_string();
        assert_eq!(error, "kind: 'apk' is not mmdebstrap or dnf");
        let error = Recipe::parse("kind = 'dnf'\nsuite = 'sid'\n").unwrap_err().to_string();
        assert!(error.contains("suite") && error.contains("line 2"), "{error}");
    }
}

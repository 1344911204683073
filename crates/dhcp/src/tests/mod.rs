//! Scripts of packets in, exact packets out. Golden files: src/tests/golden.

mod boot;
mod hostile;
mod options;
mod pool;
mod proxy;
mod relays;
mod states;

/// Compares with src/tests/golden/NAME.snap (`INSTA_UPDATE=always` writes it anew).
fn golden(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/golden"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

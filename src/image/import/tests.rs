//! Imports of whole trees.

use super::*;
use crate::image::progress::Quiet;

#[test]
#[ignore = "a trial on the real tree"]
fn trial() {
    let state = std::env::var("TRIAL_STATE").unwrap();
    let request = ImportRequest {
        images_dir: PathBuf::from(state).join("images"),
        name: "debian".into(),
        source: std::env::var("TRIAL_FROM").unwrap().into(),
        agent: std::env::var("TRIAL_AGENT").unwrap().into(),
        message: String::new(),
        kernel: None,
        modules: vec![],
        now: Timestamp::now(),
    };
    struct P(std::time::Instant);
    impl Progress for P {
        fn begin(&mut self, step: Step, bytes: Option<u64>) {
            eprintln!("{:?} {step:?} {bytes:?}", self.0.elapsed());
        }
        fn advance(&mut self, _: u64, _: u64) {}
        fn note(&mut self, text: &str) {
            eprintln!("note {text}");
        }
    }
    let _ = Quiet;
    let r = import(&request, &mut P(std::time::Instant::now()));
    match r {
        Ok(i) => eprintln!("made {i}"),
        Err(e) => eprintln!("{e}"),
    }
}

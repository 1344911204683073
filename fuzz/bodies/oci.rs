//! Documents of a container image, with NUL between them: indexes, manifests, configurations. The first is where the search
//! begins, each further one is taken for whatever is asked for next.

use rackstrap_image::survey_documents;

/// One run; true if they led to an image.
pub fn run(input: &[u8]) -> bool {
    let documents: Vec<&[u8]> = input.split(|byte| *byte == 0).collect();
    let mut found = false;
    for platform in ["linux/amd64", "linux/arm/v7"] {
        match survey_documents(&documents, platform) {
            Ok(layers) => {
                assert!(layers <= 1000);
                found = true;
            }
            Err(error) => {
                let shown = error.to_string();
                assert!(!shown.is_empty() && !shown.chars().any(char::is_control), "{shown:?}");
                // What strangers wrote is cut.
                assert!(shown.len() < 40_000, "{}", shown.len());
            }
        }
    }
    found
}

//! The bugs of `frazil_core::sabotage` are in no binary that is shipped.

use frazil_core::sabotage;

#[test]
fn what_is_shipped_cannot_be_sabotaged() {
    let sabotaged = env!("CARGO_BIN_EXE_frazil");
    #[expect(
        clippy::disallowed_methods,
        reason = "a test looks at a file that cargo has built"
    )]
    let binary = std::fs::read(sabotaged).expect("the binary");
    let marker = sabotage::MARKER.as_bytes();
    let found = binary.windows(marker.len()).any(|text| text == marker);
    assert_eq!(found, sabotage::AVAILABLE, "the marker tells");
    assert!(!found, "built with the feature `sabotage`");
}

#[test]
fn no_manifest_turns_sabotage_on() {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        for (feature, enables) in package["features"].as_object().expect("features") {
            if name == "frazil-core" && feature == "sabotage" {
                assert_eq!(enables.as_array().map(Vec::len), Some(0));
            } else {
                assert!(
                    !enables.to_string().contains("sabotage"),
                    "{name}: {feature}"
                );
            }
        }
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let features = dependency["features"].to_string();
            assert!(!features.contains("sabotage"), "{name} uses {dependency}");
        }
    }
}

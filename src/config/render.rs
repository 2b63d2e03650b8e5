//! A configuration as text.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json};

use super::keys::HIDDEN;
use super::{Config, KEYS};

/// The configuration as a TOML file with every key, what it means, takes, and has by default.
/// Read back, it gives the same configuration, except for hidden secrets.
pub fn to_toml(config: &Config) -> String {
    let mut out = String::from(
        "# Frazil's settings. Each can also be given as an environment variable (log.level:\n\
         # FRAZIL_LOG_LEVEL) and as a flag of 'frazil serve' (--log-level), which win over the file.\n",
    );
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            let _ = write!(out, "\n# ---- {section} ----\n");
        }
        let default = match key.default {
            "" => String::new(),
            text => format!(" Default: {text}."),
        };
        let _ = write!(
            out,
            "\n# {}\n# Takes {}.{default}\n",
            key.meaning, key.expected
        );
        let _ = match (key.text)(config) {
            // Read back, it would be the secret.
            Some(text) if text == HIDDEN => writeln!(out, "# {} = {}", key.name, quoted(HIDDEN)),
            Some(text) => writeln!(out, "{} = {}", key.name, literal(&text)),
            None => writeln!(out, "# {} =", key.name),
        };
    }
    out.push_str(
        "\n# Options of the object store's client by its own names, such as aws_endpoint, aws_region\n\
         # or allow_http. The environment variables that such clients know (AWS_REGION, …) work too.\n\
         [store.options]\n",
    );
    for (name, value) in config.store_options.shown() {
        let comment = if value == HIDDEN { "# " } else { "" };
        let _ = writeln!(out, "{comment}{} = {}", quoted(name), quoted(value));
    }
    out
}

/// The configuration as one JSON object: keys to values, sizes in bytes, times in the key's unit,
/// `null` for what is unset.
pub fn to_json(config: &Config) -> Json {
    let mut object: Map<String, Json> = KEYS
        .iter()
        .map(|key| (key.name.to_owned(), (key.json)(config)))
        .collect();
    let options = config.store_options.shown();
    object.insert("store.options".to_owned(), serde_json::json!(options));
    Json::Object(object)
}

/// Numbers and booleans stand bare, everything else is quoted.
fn literal(text: &str) -> String {
    let number = text.parse::<i64>().is_ok_and(|n| n.to_string() == text);
    if number || matches!(text, "true" | "false") {
        text.to_owned()
    } else {
        quoted(text)
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

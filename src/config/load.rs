//! From the sources of settings to a checked [`Config`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::{Config, Error, KEYS, Problem, validate};

/// The file that is read when none is named, if it exists.
pub const DEFAULT_FILE: &str = "frazil.toml";

/// The environment variable that names the file, which is no setting itself.
const FILE_VARIABLE: &str = "FRAZIL_CONFIG";

/// The table of the object store's own options.
const OPTIONS: &str = "store.options";

/// More than any configuration needs; a larger file was named by mistake.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nowhere.
    Default,
    /// In this file.
    File(PathBuf),
    /// In this environment variable.
    Environment(String),
    /// In `--set`.
    Set,
    /// In this flag.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::File(path) => write!(f, "in {}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Set => f.write_str("--set"),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// What the user has given besides the file's contents.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file to read; `None`: [`DEFAULT_FILE`], if it exists.
    pub file: Option<PathBuf>,
    /// The process's environment; what does not begin with `FRAZIL_` is ignored.
    pub environment: Vec<(String, String)>,
    /// `--set key=value`, in order.
    pub set: Vec<(String, String)>,
    /// Flags, by key.
    pub flags: Vec<(String, String)>,
}

/// A checked configuration, and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Where each setting that is not at its default was written, by key.
    pub from: BTreeMap<String, Source>,
}

/// Puts the sources together and checks the result.
///
/// # Errors
/// All that is wrong, at once.
pub fn load(sources: &Sources) -> Result<Loaded, Error> {
    let mut loader = Loader::default();
    let file = loader.read_file(sources.file.as_deref());
    for (name, value) in &sources.environment {
        if name != FILE_VARIABLE
            && let Some(rest) = name.strip_prefix("FRAZIL_")
        {
            if is_kubernetes(rest) {
                continue;
            }
            let rest = rest.to_lowercase();
            let key = rest.strip_prefix("store_options_").map_or_else(
                || rest.replace('_', "."),
                |option| format!("{OPTIONS}.{option}"),
            );
            loader.set(&key, value, &Source::Environment(name.clone()));
        }
    }
    for (key, value) in &sources.set {
        loader.set(key, value, &Source::Set);
    }
    for (key, value) in &sources.flags {
        loader.set(key, value, &Source::Flag(key.replace('.', "-")));
    }
    loader.finish(file)
}

/// Whether Kubernetes has put the variable there: next to a service that is called `frazil`, every
/// container finds `FRAZIL_SERVICE_HOST`, `FRAZIL_PORT_9092_TCP_ADDR` and the like.
fn is_kubernetes(rest: &str) -> bool {
    rest == "PORT"
        || ["PORT_", "SERVICE_HOST", "SERVICE_PORT"]
            .iter()
            .any(|p| rest.starts_with(p))
}

#[derive(Default)]
struct Loader {
    config: Config,
    from: BTreeMap<String, Source>,
    problems: Vec<Problem>,
}

impl Loader {
    fn read_file(&mut self, named: Option<&Path>) -> Option<PathBuf> {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match crate::env::read_text(path, FILE_BYTES_MAX) {
            Ok(text) => text,
            Err(e) if named.is_none() && e.kind() == std::io::ErrorKind::NotFound => return None,
            Err(e) => {
                self.file_problem(path, &e);
                return None;
            }
        };
        match text.parse::<toml::Table>() {
            Ok(table) => {
                let mut values = Vec::new();
                flatten("", &table, &mut values);
                self.set_all(path, values);
            }
            Err(e) => self.file_problem(path, &e.to_string().trim_end()),
        }
        Some(path.to_owned())
    }

    fn file_problem(&mut self, path: &Path, reason: &dyn fmt::Display) {
        self.problems.push(Problem::File {
            path: path.display().to_string(),
            reason: reason.to_string(),
        });
    }

    /// Sets what one file says. There, `"a.b" = 1` and `a.b = 2` are different keys to TOML but
    /// one setting, and none of the two can be the right one.
    fn set_all(&mut self, path: &Path, values: Vec<(String, Option<String>)>) {
        let from = Source::File(path.to_owned());
        let mut seen = BTreeMap::new();
        for (key, value) in values {
            if seen.insert(key.clone(), ()).is_some() {
                self.file_problem(path, &format_args!("{key} is set twice"));
            }
            match value {
                Some(value) => self.set(&key, &value, &from),
                None => self.problems.push(Problem::Value {
                    expected: expected(&key).to_owned(),
                    key,
                    value: "a value of another type".to_owned(),
                    from: from.clone(),
                }),
            }
        }
    }

    fn set(&mut self, key: &str, value: &str, from: &Source) {
        if let Some(option) = key.strip_prefix(OPTIONS).and_then(|k| k.strip_prefix('.')) {
            let options = &mut self.config.store_options.0;
            options.insert(option.to_owned(), value.to_owned());
        } else if let Some(known) = KEYS.iter().find(|known| known.name == key) {
            if !(known.set)(&mut self.config, value) {
                self.problems.push(Problem::Value {
                    key: key.to_owned(),
                    value: value.to_owned(),
                    from: from.clone(),
                    expected: known.expected.to_owned(),
                });
            }
        } else {
            self.problems.push(Problem::Unknown {
                key: key.to_owned(),
                from: from.clone(),
                nearest: nearest(key).map(str::to_owned),
            });
            return;
        }
        self.from.insert(key.to_owned(), from.clone());
    }

    fn finish(mut self, file: Option<PathBuf>) -> Result<Loaded, Error> {
        // Rules over several keys say little while one of them has not been understood.
        if self.problems.is_empty() {
            self.problems = validate::check(&self.config, &self.from);
        }
        if !self.problems.is_empty() {
            return Err(Error(self.problems));
        }
        Ok(Loaded {
            config: self.config,
            file,
            from: self.from,
        })
    }
}

/// Every value of a TOML document under its dotted key, as text; `None`: of a type no key takes.
fn flatten(prefix: &str, table: &toml::Table, into: &mut Vec<(String, Option<String>)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        if let toml::Value::Table(inner) = value {
            flatten(&key, inner, into);
        } else {
            into.push((key, scalar(value)));
        }
    }
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(yes) => Some(yes.to_string()),
        toml::Value::Array(items) => {
            let items: Option<Vec<String>> = items
                .iter()
                .map(|item| if item.is_array() { None } else { scalar(item) })
                .collect();
            items.map(|items| items.join(","))
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

fn expected(key: &str) -> &'static str {
    KEYS.iter()
        .find(|known| known.name == key)
        .map_or("text, a whole number, true or false", |known| {
            known.expected
        })
}

/// The key that `key` was probably meant to be.
fn nearest(key: &str) -> Option<&'static str> {
    KEYS.iter()
        .map(|known| known.name)
        .chain([OPTIONS])
        .map(|name| (strsim::jaro_winkler(key, name), name))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

//! `frazil config`, and the settings of a node as flags.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::output;
use crate::config::{self, KEYS, Loaded, Sources};

/// The flag of each key, in the order of [`KEYS`], for as long as the parser wants it.
static FLAGS: LazyLock<Vec<String>> =
    LazyLock::new(|| KEYS.iter().map(config::Key::flag).collect());

/// `frazil config`.
#[derive(Debug, Args)]
pub struct Show {
    /// Print one JSON object instead of TOML
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: ConfigArgs,
}

impl Show {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let loaded = self.settings.load()?;
        if self.json {
            return output::json(&config::to_json(&loaded.config));
        }
        output::text(&config::to_toml(&loaded.config))
    }
}

/// Where a node's settings come from on the command line: `--config`, `--set`, and a flag for
/// every key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigArgs {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// `--set`, in order.
    pub set: Vec<(String, String)>,
    /// The flags that were given, by key.
    pub flags: Vec<(String, String)>,
}

impl ConfigArgs {
    /// Puts them together with the file and the process's environment.
    ///
    /// # Errors
    /// All that is wrong with the settings.
    pub fn load(&self) -> Result<Loaded, config::Error> {
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        config::load(&Sources {
            file: self.file.clone(),
            environment: std::env::vars_os().filter_map(text).collect(),
            set: self.set.clone(),
            flags: self.flags.clone(),
        })
    }
}

impl Args for ConfigArgs {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .env("FRAZIL_CONFIG")
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!(
                "The file to read settings from; without it, ./{} if it exists",
                config::DEFAULT_FILE
            ));
        let set = Arg::new("set")
            .long("set")
            .value_name("KEY=VALUE")
            .action(ArgAction::Append)
            .value_parser(super::pair)
            .help("Set any key; may be repeated. Also for the store's: store.options.NAME=VALUE");
        let flags = KEYS.iter().zip(FLAGS.iter()).map(|(key, flag)| {
            let default = match key.default {
                "" => String::new(),
                text => format!(" [default: {text}]"),
            };
            Arg::new(key.name)
                .long(flag.as_str())
                .value_name("VALUE")
                .help_heading(key.section)
                .allow_hyphen_values(true)
                .help(format!("{}{default}", key.meaning))
        });
        command.arg(file).arg(set).args(flags)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ConfigArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one::<PathBuf>("config").cloned();
        let set = matches.get_many::<(String, String)>("set");
        self.set = set.into_iter().flatten().cloned().collect();
        let given = |key: &config::Key| {
            let value = matches.get_one::<String>(key.name)?;
            Some((key.name.to_owned(), value.clone()))
        };
        self.flags = KEYS.iter().filter_map(given).collect();
        Ok(())
    }
}

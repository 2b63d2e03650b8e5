//! `frazil serve`.

use anyhow::Context as _;
use clap::Args;

use super::ConfigArgs;
use crate::env::Env;
use crate::{host, node, telemetry};

/// `frazil serve`.
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    settings: ConfigArgs,
}

impl Serve {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let loaded = self.settings.load()?;
        let filter = telemetry::filter(&loaded.config.log_level)
            .map_err(|reason| anyhow::anyhow!("log.level: {reason}"))?;
        telemetry::start(loaded.config.log_format, filter)?;
        if let Some(file) = &loaded.file {
            tracing::info!(file = %file.display(), "settings read");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("frazil")
            .build()
            .context("cannot start the runtime")?;
        let ended = runtime.block_on(async {
            let stop = host::shutdown_on_signal().context("cannot listen for signals")?;
            node::run(loaded.config, Env::system(), stop).await
        });
        // What still runs was left on purpose when the deadline passed.
        runtime.shutdown_background();
        ended
    }
}

//! The store under a fleet: an S3 server in this process, as slow as a real one.

use std::net::SocketAddr;

use anyhow::Result;
use frazil_store::{Control, Counters, Faults, Options};
use tokio::runtime::Handle;

const BUCKET: &str = "reliability";

/// A running store.
pub(crate) struct Store {
    server: frazil_store::Store,
    runtime: Handle,
}

impl Store {
    pub(crate) fn start(runtime: &Handle) -> Result<Self> {
        let options = Options {
            faults: Self::usual(),
            ..Options::default()
        };
        let server = runtime.block_on(frazil_store::Store::start(options))?;
        Ok(Self {
            server,
            runtime: runtime.clone(),
        })
    }

    /// Nothing goes wrong, and everything takes as long as it usually does.
    pub(crate) fn usual() -> Faults {
        Faults::default().s3_latency()
    }

    /// What goes wrong.
    pub(crate) fn faults(&self) -> &Control {
        self.server.faults()
    }

    /// What it was asked so far.
    pub(crate) fn counters(&self) -> Counters {
        self.server.counters()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub(crate) fn url(&self) -> String {
        format!("s3://{BUCKET}/fleet")
    }

    /// Whether there is an object of this name.
    pub(crate) fn has(&self, key: &str) -> bool {
        let keys = self.runtime.block_on(self.server.keys(BUCKET));
        keys.iter().any(|known| known == key)
    }

    /// How many segments there are.
    pub(crate) fn segments(&self) -> usize {
        let keys = self.runtime.block_on(self.server.keys(BUCKET));
        keys.iter().filter(|key| key.ends_with(".seg")).count()
    }

    /// What a process needs to know that reaches it at `address`.
    pub(crate) fn environment(&self, address: SocketAddr) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT", format!("http://{address}")),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "reliability".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "reliability".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

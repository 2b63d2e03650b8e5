//! A store that speaks S3's protocol on loopback and misbehaves when told to: for tests and the
//! bench.
//!
//! It serves what `object_store`'s S3 client uses: PUT (with `If-None-Match: *` and `If-Match`), GET
//! (with ranges and conditions), HEAD, DELETE, deletion of many, ListObjectsV2, copies, multipart
//! uploads; path style, signatures not checked. Conditional writes have exactly one winner. What
//! goes wrong is told by [`Faults`], to a [`Store`] or over HTTP (`/_frazil/…`), at any time.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use frazil_store::{Fault, Faults, Operation, Options, Rule, Store};
//!
//! let store = Store::start(Options::default()).await?;
//! // frazil serve --set store.url=s3://bucket/prefix --set store.options.… of `settings()`
//! store.faults().set(Faults::default().s3_latency());
//! store.faults().add(Rule::new(&[Operation::Put], Fault::status(503)).probability(0.2));
//! store.faults().add(Rule::new(&[Operation::Put], Fault::Hold { applied: true }).named("put"));
//! let held = store.faults().wait_held("put").await;
//! store.faults().release("put");
//! assert!(store.counters().of(Operation::Put) > 0);
//! # Ok(())
//! # }
//! ```
//!
//! Faults:
//!
//! | on a real store | here |
//! |---|---|
//! | latency, throttled line | [`Faults::latency`], [`Faults::bandwidth`], [`Fault::Delay`] |
//! | 500, 503 SlowDown, 429, 403, … | [`Fault::Status`] |
//! | a PUT that is done, and says it was not | [`Fault::Status`], [`Fault::Reset`], [`Fault::Hang`] with `applied` |
//! | a PUT that is done later | [`Fault::Late`] |
//! | 409 or 412 for one's own write | [`Fault::Status`] with `applied` |
//! | 409 with nothing there | [`Fault::Status`] |
//! | 404 for what is there | [`Fault::Status`] with `for_ms` |
//! | truncated, wrong bytes | [`Fault::Truncate`], [`Fault::Flip`] |
//! | nothing works | [`Outage`] |
//! | the moment before or after a request | [`Fault::Hold`] |

mod control;
mod counters;
mod faults;
mod latency;
mod objects;
mod s3;
mod server;

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use crate::counters::Counters;
pub use crate::faults::{Control, Fault, Faults, Held, Operation, Outage, Rule};
pub use crate::latency::Latency;

use crate::objects::Objects;
use crate::server::Shared;

/// How a store is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 is any free one.
    pub listen: SocketAddr,
    /// Where objects are kept; in memory, if nowhere.
    pub directory: Option<PathBuf>,
    /// The only buckets there are; none: any name is a bucket.
    pub buckets: BTreeSet<String>,
    /// The largest body of a request, in bytes.
    pub body_max: usize,
    /// What goes wrong from the start.
    pub faults: Faults,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            directory: None,
            buckets: BTreeSet::new(),
            body_max: 1 << 30,
            faults: Faults::default(),
        }
    }
}

/// A running store. Dropping it ends it: connections are reset, what is held is never done.
#[derive(Debug)]
pub struct Store {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Store {
    /// Starts a store on this runtime.
    ///
    /// # Errors
    /// The address cannot be bound, or the directory cannot be read.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            objects: Objects::open(options.directory, options.buckets).await?,
            faults: Control::new(options.faults),
            counting: counters::Counting::default(),
            body_max: options.body_max,
            stop: CancellationToken::new(),
        });
        tokio::spawn(server::serve(listener, Arc::clone(&shared)));
        Ok(Self { address, shared })
    }

    /// `http://127.0.0.1:PORT`, the endpoint for S3 clients and of the control.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `store.options` needs beside `store.url = s3://BUCKET/PREFIX`, each a name and a value.
    pub fn settings(&self) -> [(&'static str, String); 4] {
        [
            ("aws_endpoint", self.url()),
            ("aws_region", "us-east-1".to_owned()),
            ("aws_allow_http", "true".to_owned()),
            ("aws_skip_signature", "true".to_owned()),
        ]
    }

    /// What goes wrong; can be changed at any time.
    pub fn faults(&self) -> &Control {
        &self.shared.faults
    }

    /// What it was asked since the start.
    pub fn counters(&self) -> Counters {
        self.shared.counting.get()
    }

    /// Begins counting anew.
    pub fn reset_counters(&self) {
        self.shared.counting.reset();
    }

    /// All keys of a bucket, whatever goes wrong.
    pub async fn keys(&self, bucket: &str) -> Vec<String> {
        self.shared.objects.keys(bucket).await
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

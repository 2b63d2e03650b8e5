//! A store as a process of its own: `cargo run -p frazil-store -- --listen 127.0.0.1:9000`. Prints
//! its endpoint, and serves until it is ended; see the library for what it can do.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use frazil_store::{Faults, Options, Store};

#[derive(Parser)]
#[command(about = "An S3-compatible store that misbehaves when told to")]
struct Arguments {
    /// Where it listens; port 0 is any free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Keep objects in this directory instead of in memory
    #[arg(long)]
    directory: Option<PathBuf>,
    /// A bucket; without any, every name is one
    #[arg(long)]
    bucket: Vec<String>,
    /// What goes wrong, as JSON
    #[arg(long, value_parser = faults)]
    faults: Option<Faults>,
    /// Be as slow as Amazon S3 usually is
    #[arg(long)]
    s3_latency: bool,
}

fn faults(text: &str) -> Result<Faults, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let mut faults = arguments.faults.unwrap_or_default();
    if arguments.s3_latency {
        faults = faults.s3_latency();
    }
    let store = Store::start(Options {
        listen: arguments.listen,
        directory: arguments.directory,
        buckets: arguments.bucket.into_iter().collect(),
        faults,
        ..Options::default()
    });
    let store = store.await?;
    writeln!(io::stdout(), "{}", store.url())?;
    io::stdout().flush()?;
    tokio::signal::ctrl_c().await
}

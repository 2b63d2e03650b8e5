//! A client of Iceberg REST catalogs, as far as the commands need one: Frazil's, or any other.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use object_store::ObjectStoreExt as _;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::catalog::NAMESPACE;
use crate::catalog::percent::encode;

/// The longest answer, manifest or list of manifests that is read.
const BYTES_MAX: usize = 256 << 20;

/// How to reach a catalog.
#[derive(Clone, Debug, Args)]
pub(super) struct CatalogArgs {
    /// The HTTP port of any node, or the URL of any Iceberg REST catalog
    #[arg(
        short,
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    catalog: String,
    /// The namespace of the tables
    #[arg(long, value_name = "NAME", default_value = NAMESPACE)]
    namespace: String,
    /// How long to wait for an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    timeout: u32,
}

impl CatalogArgs {
    /// Runs a command's requests.
    pub(super) fn run<T>(
        &self,
        ask: impl AsyncFnOnce(&Rest) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        runtime.block_on(async { ask(&self.connect().await?).await })
    }

    async fn connect(&self) -> anyhow::Result<Rest> {
        let base = self.catalog.trim_end_matches('/');
        let base = match base.contains("://") {
            true => base.to_owned(),
            false => format!("http://{base}"),
        };
        let url: reqwest::Url = base.parse().with_context(|| format!("--catalog {base}"))?;
        // A node's address alone means its catalog.
        let base = match url.path() {
            "" | "/" => format!("{base}/iceberg"),
            _ => base,
        };
        let timeout = Duration::from_secs(self.timeout.into());
        let client = reqwest::Client::builder().timeout(timeout).build()?;
        let mut rest = Rest {
            client,
            base,
            prefix: String::new(),
            namespace: self.namespace.clone(),
            store: BTreeMap::new(),
            timeout,
        };
        let config: Config = rest.get("config").await?;
        rest.store = config.defaults;
        rest.store.extend(config.overrides);
        if let Some(prefix) = rest.store.get("prefix") {
            rest.prefix = format!("{}/", prefix.trim_matches('/'));
        }
        Ok(rest)
    }
}

/// A catalog that has answered.
pub(super) struct Rest {
    client: reqwest::Client,
    base: String,
    prefix: String,
    pub(super) namespace: String,
    /// What the catalog says of the object store.
    store: BTreeMap<String, String>,
    timeout: Duration,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    defaults: BTreeMap<String, String>,
    overrides: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Tables {
    identifiers: Vec<Identifier>,
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct Identifier {
    name: String,
}

/// A table as the catalog answers it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Loaded {
    pub(super) metadata_location: Option<String>,
    /// The table's metadata.
    pub(super) metadata: Value,
    #[serde(default)]
    config: BTreeMap<String, String>,
}

impl Rest {
    /// The names of all tables.
    pub(super) async fn tables(&self) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        let mut token = String::new();
        loop {
            let below = format!("{}?pageToken={}", self.below("tables"), encode(&token));
            let page: Tables = self.get(&below).await?;
            names.extend(page.identifiers.into_iter().map(|table| table.name));
            match page.next_page_token {
                Some(next) if next != token => token = next,
                _ => return Ok(names),
            }
        }
    }

    /// One table, with no more snapshots than the newest if the catalog can do that.
    pub(super) async fn newest(&self, name: &str) -> anyhow::Result<Loaded> {
        let below = self.below(&format!("tables/{}?snapshots=refs", encode(name)));
        self.get(&below).await
    }

    /// One table.
    pub(super) async fn table(&self, name: &str) -> anyhow::Result<Loaded> {
        let below = self.below(&format!("tables/{}", encode(name)));
        self.get(&below).await
    }

    fn below(&self, what: &str) -> String {
        let Self {
            prefix, namespace, ..
        } = self;
        format!("{prefix}namespaces/{}/{what}", encode(namespace))
    }

    async fn get<T: for<'de> Deserialize<'de>>(&self, below: &str) -> anyhow::Result<T> {
        let url = format!("{}/v1/{below}", self.base);
        let unreachable = |e: reqwest::Error| anyhow!("cannot reach {}: {}", self.base, cause(&e));
        let asked = self
            .client
            .get(&url)
            .header("X-Iceberg-Access-Delegation", "vended-credentials");
        let response = asked.send().await.map_err(unreachable)?;
        let status = response.status();
        let body = read(response).await?;
        if !status.is_success() {
            bail!("{}", refusal(status, &body));
        }
        serde_json::from_slice(&body)
            .map_err(|e| anyhow!("{} is no Iceberg REST catalog: {e}", self.base))
    }

    /// An object of a table, by its location.
    pub(super) async fn object(&self, table: &Loaded, location: &str) -> anyhow::Result<Bytes> {
        let read = async {
            let (store, path) = self.store(table, location)?;
            let found = store.get(&path).await?;
            if found.meta.size > BYTES_MAX as u64 {
                bail!("it is too long");
            }
            Ok(found.bytes().await?)
        };
        let read = tokio::time::timeout(self.timeout, read).await;
        let read = read.unwrap_or_else(|_| Err(anyhow!("the object store does not answer")));
        read.with_context(|| format!("cannot read {location}"))
    }

    /// The store that a location is in, as environment and catalog say.
    fn store(
        &self,
        table: &Loaded,
        location: &str,
    ) -> anyhow::Result<(Box<dyn ObjectStore>, Path)> {
        let (scheme, rest) = location.split_once("://").context("it is no URL")?;
        let (bucket, key) = rest.split_once('/').context("it names no object")?;
        let path = Path::parse(key)?;
        let bucket = bucket.split('@').next().unwrap_or(bucket);
        let url = format!("{scheme}://{bucket}");
        Ok(match scheme {
            "file" => (Box::new(object_store::local::LocalFileSystem::new()), path),
            "s3" | "s3a" => {
                let mut builder = AmazonS3Builder::from_env().with_url(url);
                let property = |name| table.config.get(name).or(self.store.get(name));
                for (name, key) in [
                    ("s3.region", AmazonS3ConfigKey::Region),
                    ("s3.endpoint", AmazonS3ConfigKey::Endpoint),
                    ("s3.access-key-id", AmazonS3ConfigKey::AccessKeyId),
                    ("s3.secret-access-key", AmazonS3ConfigKey::SecretAccessKey),
                    ("s3.session-token", AmazonS3ConfigKey::Token),
                ] {
                    if let Some(value) = property(name) {
                        builder = builder.with_config(key, value);
                    }
                }
                let by_host = property("s3.path-style-access").is_some_and(|yes| yes == "false");
                let options = ClientOptions::new().with_allow_http(true);
                let builder = builder
                    .with_client_options(options)
                    .with_virtual_hosted_style_request(by_host);
                (Box::new(builder.build()?), path)
            }
            "gs" => {
                let builder = GoogleCloudStorageBuilder::from_env().with_url(url);
                (Box::new(builder.build()?), path)
            }
            "abfs" | "abfss" | "az" => {
                let builder = MicrosoftAzureBuilder::from_env().with_url(location);
                (Box::new(builder.build()?), path)
            }
            _ => bail!("there is no way to read {scheme}: from here"),
        })
    }
}

/// Reads an answer as far as any answer should go.
async fn read(mut response: Response) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > BYTES_MAX {
            bail!("the catalog's answer is too long");
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What the catalog says in the specification's words, or what is known without them.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let body: Option<Value> = serde_json::from_slice(body).ok();
    let message = body.as_ref().and_then(|b| b["error"]["message"].as_str());
    match message {
        Some(message) => message.split_whitespace().collect::<Vec<_>>().join(" "),
        None => format!("the catalog answers {status}"),
    }
}

/// The innermost cause, which is what helps.
fn cause(e: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = e;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

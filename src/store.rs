//! The object store, opened by its URL.
//!
//! | `store.url` | store | credentials and options |
//! |---|---|---|
//! | `file:/DIRECTORY` | a directory, every object synced with its directory before it counts | |
//! | `memory:` | this process's memory | |
//! | `s3://BUCKET/PREFIX` | Amazon S3, or what speaks its protocol (`aws_endpoint`) | `AWS_*`, `store.options` |
//! | `gs://BUCKET/PREFIX` | Google Cloud Storage | `GOOGLE_*`, `store.options` |
//! | `az://CONTAINER/PREFIX` | Azure Blob Storage | `AZURE_*`, `store.options` |
//!
//! Whoever gets the store sees the prefix as its root. The client's own retries are off: retrying
//! belongs to the callers, who know which requests may be repeated and for how long.

use std::fmt;
use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use frazil_core::env::{Disk, Ids};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, RetryConfig,
};

use crate::config::{Config, StoreOptions};
use crate::directory::Directory;

/// How long the store may take to answer one request of the probe.
const PROBE_DEADLINE: Duration = Duration::from_secs(20);

/// An opened store.
#[derive(Clone, Debug)]
pub struct Store {
    /// The client; keys are relative to the URL's prefix.
    pub client: Arc<dyn ObjectStore>,
    /// Which kind of store it is.
    pub kind: Kind,
    url: String,
    /// Where it is, if it is a directory.
    directory: Option<PathBuf>,
    /// Its URL as readers of tables understand it, without a slash at the end.
    readers_url: String,
    /// Endpoint and region, if it is one of S3's kind and they are set.
    s3: (Option<String>, Option<String>),
}

/// Kinds of stores, as far as the program behaves differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory of this machine.
    Directory,
    /// This process's memory.
    Memory,
    /// A service that charges by the request.
    Cloud,
}

/// The store cannot be used. One line, which names the setting and its value.
#[derive(Debug, thiserror::Error)]
#[error("store.url = {url}: {reason}")]
pub struct Error {
    url: String,
    reason: String,
}

impl Error {
    fn new(url: &str, reason: impl fmt::Display) -> Self {
        Self {
            url: url.to_owned(),
            // Services answer with pages of text; the error remains one line.
            reason: reason
                .to_string()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
        }
    }
}

/// Opens the store that `config` names. Only a `file:` store's directory is touched: it is created.
///
/// # Errors
/// The URL or an option is not understood, or the directory cannot be created.
pub fn open(config: &Config, disk: &dyn Disk) -> Result<Store, Error> {
    let url = config.store_url();
    let fail = |reason: &dyn fmt::Display| Error::new(&url, reason);
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err(fail(
            &"expected a URL such as file:/DIRECTORY or s3://BUCKET/PREFIX",
        ));
    };
    let options = &config.store_options;
    let kind = match scheme {
        "file" => Kind::Directory,
        "memory" => Kind::Memory,
        _ => Kind::Cloud,
    };
    if kind != Kind::Cloud && !options.0.is_empty() {
        return Err(fail(&"this kind of store takes no store.options"));
    }
    let client: Arc<dyn ObjectStore> = match scheme {
        "file" => Arc::new(directory(rest, disk).map_err(|e| fail(&e))?),
        "memory" if rest.trim_matches('/').is_empty() => Arc::new(InMemory::new()),
        "memory" => return Err(fail(&"a store in memory has no name; expected memory:")),
        "s3" | "s3a" | "gs" | "az" | "azure" | "abfs" | "abfss" => {
            let prefix = bucket_prefix(rest).map_err(|e| fail(&e))?;
            let bucket = cloud(scheme, &url, options).map_err(|e| fail(&e))?;
            if prefix.as_ref().is_empty() {
                bucket
            } else {
                Arc::new(PrefixStore::new(bucket, prefix))
            }
        }
        other => {
            return Err(fail(&format_args!(
                "there is no store {other:?}; expected file:, memory:, s3:, gs: or az:"
            )));
        }
    };
    let directory = (kind == Kind::Directory).then(|| directory_path(rest).into());
    Ok(Store {
        client,
        kind,
        readers_url: readers_url(scheme, rest, options).map_err(|e| fail(&e))?,
        s3: match scheme {
            "s3" | "s3a" => s3_place(options),
            _ => (None, None),
        },
        url,
        directory,
    })
}

/// The URL that table engines know the store by: absolute, and in the scheme that all of them
/// read.
fn readers_url(scheme: &str, rest: &str, options: &StoreOptions) -> io::Result<String> {
    let place = rest
        .strip_prefix("//")
        .unwrap_or(rest)
        .trim_end_matches('/');
    Ok(match scheme {
        "file" => {
            let path = std::path::absolute(directory_path(rest))?;
            format!(
                "file://{}",
                path.display().to_string().trim_end_matches('/')
            )
        }
        "memory" => "memory://".to_owned(),
        "s3" | "s3a" => format!("s3://{place}"),
        "az" | "azure" | "abfs" | "abfss" => {
            let (container, prefix) = place.split_once('/').unwrap_or((place, ""));
            let account = azure_account(options);
            let host = match account {
                Some(account) if !container.contains('@') => {
                    format!("{container}@{account}.dfs.core.windows.net")
                }
                _ => container.to_owned(),
            };
            format!("abfss://{host}/{prefix}")
                .trim_end_matches('/')
                .to_owned()
        }
        other => format!("{other}://{place}"),
    })
}

fn azure_account(options: &StoreOptions) -> Option<String> {
    let mut builder = MicrosoftAzureBuilder::from_env();
    for (name, value) in &options.0 {
        builder = builder.with_config(option::<AzureConfigKey>(name).ok()?, value);
    }
    builder.get_config_value(&AzureConfigKey::AccountName)
}

/// Endpoint and region, as the client finds them.
fn s3_place(options: &StoreOptions) -> (Option<String>, Option<String>) {
    let mut builder = AmazonS3Builder::from_env();
    for (name, value) in &options.0 {
        if let Ok(key) = option::<AmazonS3ConfigKey>(name) {
            builder = builder.with_config(key, value);
        }
    }
    let get = |key| builder.get_config_value(&key);
    let endpoint = get(AmazonS3ConfigKey::S3Endpoint).or(get(AmazonS3ConfigKey::Endpoint));
    (endpoint, get(AmazonS3ConfigKey::Region))
}

/// `rest` is what follows `file:`: a path, or `//` and an absolute one.
fn directory_path(rest: &str) -> &FsPath {
    FsPath::new(rest.strip_prefix("//").unwrap_or(rest))
}

fn directory(rest: &str, disk: &dyn Disk) -> Result<Directory, String> {
    let path = directory_path(rest);
    if rest.starts_with("//") && !path.has_root() {
        return Err("file:// is followed by an absolute path".to_owned());
    }
    if path.as_os_str().is_empty() {
        return Err("expected file:/DIRECTORY".to_owned());
    }
    disk.create_dir_all(path)
        .map_err(|e| format!("cannot create the directory: {e}"))?;
    let store = LocalFileSystem::new_with_prefix(path).map_err(|e| e.to_string())?;
    Ok(Directory::new(store.with_fsync(true)))
}

/// The prefix in `//bucket/prefix`.
fn bucket_prefix(rest: &str) -> Result<Path, String> {
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err("the URL names no bucket".to_owned());
    }
    Path::from_url_path(prefix).map_err(|e| e.to_string())
}

fn cloud(scheme: &str, url: &str, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, String> {
    let retry = RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    };
    // Each builder is a type of its own with the same methods.
    macro_rules! build {
        ($builder:ty, $key:ty) => {{
            let mut builder = <$builder>::from_env().with_url(url).with_retry(retry);
            for (name, value) in &options.0 {
                builder = builder.with_config(option::<$key>(name)?, value);
            }
            Ok(Arc::new(builder.build().map_err(|e| e.to_string())?))
        }};
    }
    match scheme {
        "s3" | "s3a" => build!(AmazonS3Builder, AmazonS3ConfigKey),
        "gs" => build!(GoogleCloudStorageBuilder, GoogleConfigKey),
        _ => build!(MicrosoftAzureBuilder, AzureConfigKey),
    }
}

fn option<K: FromStr>(name: &str) -> Result<K, String> {
    let lower = name.to_ascii_lowercase();
    lower
        .parse()
        .map_err(|_| format!("the store has no option {name:?} (store.options)"))
}

impl Store {
    /// The URL it was opened by.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where the objects of the cluster with this prefix are, for readers of its tables: a URL
    /// without a slash at the end. Tables keep it in their metadata: it is part of what they are.
    pub fn location(&self, prefix: &Path) -> String {
        format!("{}/{prefix}", self.readers_url)
    }

    /// Endpoint and region of a store of S3's kind, as far as settings or environment say.
    pub fn s3_place(&self) -> (Option<String>, Option<String>) {
        self.s3.clone()
    }

    /// Whether it is a directory of the file system that `path` is on.
    pub fn shares_disk_with(&self, path: &std::path::Path) -> bool {
        let directory = self.directory.as_deref();
        directory.is_some_and(|directory| crate::env::same_file_system(directory, path))
    }

    /// Makes the directories of the cluster with this prefix durable, if the store is a directory;
    /// see [`frazil_cache::local_store`]. Blocks for a few milliseconds.
    ///
    /// # Errors
    /// The disk's.
    pub fn prepare(&self, disk: &dyn Disk, prefix: &Path) -> io::Result<()> {
        match &self.directory {
            Some(directory) => frazil_cache::local_store::prepare(disk, directory, prefix),
            None => Ok(()),
        }
    }

    /// Makes sure that the store can be reached, written, read and deleted from, and that it
    /// refuses to create what exists, on which writing segments relies. Leaves nothing behind
    /// unless deleting is what fails.
    ///
    /// # Errors
    /// What went wrong, in one line.
    ///
    /// # Cancel safety
    /// When dropped, one small object named `frazil-probe-…` may stay.
    pub async fn probe(&self, ids: &dyn Ids) -> Result<(), Error> {
        let key = Path::from(format!("frazil-probe-{}", ids.uuid().simple()));
        let written = self.step("write to", self.create(&key)).await;
        let checked = match written {
            Ok(()) => self.check(&key).await,
            Err(e) => return Err(e),
        };
        let deleted = self.step("delete from", self.client.delete(&key)).await;
        checked.and(deleted)
    }

    async fn create(&self, key: &Path) -> object_store::Result<()> {
        let options = PutOptions::from(PutMode::Create);
        let put = self
            .client
            .put_opts(key, PutPayload::from_static(b"frazil"), options);
        put.await.map(|_| ())
    }

    async fn check(&self, key: &Path) -> Result<(), Error> {
        let bytes = self
            .step("read from", self.client.get_range(key, 0..6))
            .await?;
        if bytes.as_ref() != b"frazil" {
            return Err(Error::new(
                &self.url,
                "the store returns other bytes than were written",
            ));
        }
        match tokio::time::timeout(PROBE_DEADLINE, self.create(key)).await {
            Ok(Err(object_store::Error::AlreadyExists { .. })) => Ok(()),
            Ok(Ok(())) => Err(Error::new(
                &self.url,
                "the store ignores conditions on writes (If-None-Match), which Frazil needs",
            )),
            Ok(Err(e)) => Err(self.failed("write conditionally to", &e)),
            Err(_) => Err(self.late("write conditionally to")),
        }
    }

    async fn step<T>(
        &self,
        what: &str,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(PROBE_DEADLINE, request).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) => Err(self.failed(what, &e)),
            Err(_) => Err(self.late(what)),
        }
    }

    fn failed(&self, what: &str, e: &object_store::Error) -> Error {
        Error::new(
            &self.url,
            format_args!("cannot {what} the object store: {}", explain(e)),
        )
    }

    fn late(&self, what: &str) -> Error {
        let seconds = PROBE_DEADLINE.as_secs();
        Error::new(
            &self.url,
            format_args!("cannot {what} the object store: no answer within {seconds} s"),
        )
    }
}

/// An error of the store in few words: the code and message of the service if it sent them, else
/// the error with its innermost cause, which its own text often leaves out.
fn explain(e: &object_store::Error) -> String {
    let text = e.to_string();
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once('<')?.0)
    };
    if let (Some(code), Some(message)) = (element("Code"), element("Message")) {
        return format!("{code}: {message}");
    }
    let mut cause: &dyn std::error::Error = e;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let cause = cause.to_string();
    if text.contains(&cause) {
        text
    } else {
        format!("{text}: {cause}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{SystemDisk, SystemIds};

    fn config(url: &str) -> Config {
        Config {
            store_url: Some(url.to_owned()),
            ..Config::default()
        }
    }

    fn refusal(config: &Config) -> String {
        open(config, &SystemDisk).expect_err("refused").to_string()
    }

    #[test]
    fn readers_are_told_an_absolute_place_in_a_scheme_they_know() {
        let prefix = Path::from("cluster");
        let location = |config: &Config| open(config, &SystemDisk).unwrap().location(&prefix);
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().display();
        for url in [format!("file:{here}"), format!("file://{here}/")] {
            assert_eq!(location(&config(&url)), format!("file://{here}/cluster"));
        }
        assert_eq!(location(&config("memory:")), "memory:///cluster");
        for (url, expected) in [
            ("s3://bucket/a/b/", "s3://bucket/a/b/cluster"),
            ("s3a://bucket", "s3://bucket/cluster"),
        ] {
            let mut config = config(url);
            let options = &mut config.store_options.0;
            options.insert("aws_region".into(), "mars-1".into());
            options.insert("aws_endpoint".into(), "http://127.0.0.1:1".into());
            assert_eq!(location(&config), expected);
            let place = open(&config, &SystemDisk).unwrap().s3_place();
            assert_eq!(place.1.as_deref(), Some("mars-1"));
            assert_eq!(place.0.as_deref(), Some("http://127.0.0.1:1"));
        }
        let mut azure = config("az://container/a");
        let options = &mut azure.store_options.0;
        options.insert("azure_storage_account_name".into(), "acc".into());
        assert_eq!(
            location(&azure),
            "abfss://container@acc.dfs.core.windows.net/a/cluster"
        );
    }

    #[tokio::test]
    async fn a_directory_is_created_and_the_probe_leaves_it_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        for url in [
            format!("file:{}", path.display()),
            format!("file://{}", path.display()),
        ] {
            let store = open(&config(&url), &SystemDisk).unwrap();
            assert_eq!(store.kind, Kind::Directory);
            store.probe(&SystemIds).await.unwrap();
            assert_eq!(SystemDisk.list(&path).unwrap(), Vec::<String>::new());
        }
    }

    #[tokio::test]
    async fn memory_passes_the_probe() {
        let store = open(&config("memory:"), &SystemDisk).unwrap();
        store.probe(&SystemIds).await.unwrap();
        assert_eq!(store.kind, Kind::Memory);
    }

    #[tokio::test]
    async fn a_store_that_went_away_is_one_clear_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone");
        let url = format!("file:{}", path.display());
        let store = open(&config(&url), &SystemDisk).unwrap();
        std::fs::remove_dir(&path).unwrap();
        SystemDisk.create(&path).unwrap();
        let e = store.probe(&SystemIds).await.unwrap_err().to_string();
        assert!(e.starts_with(&format!(
            "store.url = {url}: cannot write to the object store: "
        )));
        assert!(!e.contains('\n'), "{e}");
    }

    #[tokio::test]
    async fn a_cloud_store_that_cannot_be_reached_is_one_clear_line() {
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let mut c = config("s3://bucket");
        for (name, value) in [
            ("aws_endpoint", "http://127.0.0.1:1"),
            ("aws_allow_http", "true"),
            ("aws_access_key_id", "a"),
            ("aws_secret_access_key", "b"),
        ] {
            c.store_options.0.insert(name.to_owned(), value.to_owned());
        }
        let store = open(&c, &SystemDisk).unwrap();
        let e = store.probe(&SystemIds).await.unwrap_err().to_string();
        assert!(
            e.starts_with("store.url = s3://bucket: cannot write to the object store: "),
            "{e}"
        );
        assert!(e.contains("refused") && !e.contains('\n'), "{e}");
    }

    #[test]
    fn services_are_quoted_with_code_and_message_only() {
        let xml = "404: <?xml?> <Error><Code>NoSuchBucket</Code><Message>It is not \
                   there</Message><RequestId>1</RequestId></Error>";
        let e = object_store::Error::Generic {
            store: "S3",
            source: xml.into(),
        };
        assert_eq!(explain(&e), "NoSuchBucket: It is not there");
    }

    #[test]
    fn cloud_stores_are_opened_without_being_reached() {
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let mut c = config("s3://bucket/some/prefix");
        for (name, value) in [
            ("aws_endpoint", "http://127.0.0.1:1"),
            ("allow_http", "true"),
            ("AWS_REGION", "here"),
            ("aws_access_key_id", "a"),
            ("aws_secret_access_key", "b"),
        ] {
            c.store_options.0.insert(name.to_owned(), value.to_owned());
        }
        let store = open(&c, &SystemDisk).unwrap();
        assert_eq!(store.kind, Kind::Cloud);
        c.store_options
            .0
            .insert("aws_regoin".to_owned(), "x".to_owned());
        assert_eq!(
            refusal(&c),
            "store.url = s3://bucket/some/prefix: the store has no option \"aws_regoin\" \
             (store.options)"
        );
    }

    #[test]
    fn urls_that_are_not_understood_say_so() {
        for (url, expected) in [
            (
                "data",
                "expected a URL such as file:/DIRECTORY or s3://BUCKET/PREFIX",
            ),
            (
                "ftp://x",
                "there is no store \"ftp\"; expected file:, memory:, s3:, gs: or az:",
            ),
            ("file:", "expected file:/DIRECTORY"),
            ("file://relative", "file:// is followed by an absolute path"),
            (
                "memory:x",
                "a store in memory has no name; expected memory:",
            ),
            ("s3:///prefix", "the URL names no bucket"),
        ] {
            assert_eq!(
                refusal(&config(url)),
                format!("store.url = {url}: {expected}")
            );
        }
        let mut c = config("memory:");
        c.store_options.0.insert("a".into(), "b".into());
        assert!(refusal(&c).ends_with("this kind of store takes no store.options"));
    }
}

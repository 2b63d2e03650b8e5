//! What readers are told about the store.

use std::collections::BTreeMap;
use std::fmt;

/// Endpoint, region and, if the operator wants it, credentials for readers. They are never the
/// broker's own, which can delete.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Readers {
    /// The store's endpoint, if it is not the cloud's own.
    pub endpoint: Option<String>,
    /// The store's region.
    pub region: Option<String>,
    /// Whether the bucket stands in the path of requests to that endpoint.
    pub path_style: bool,
    /// Key id and secret (`catalog.credentials = static`).
    pub credentials: Option<(String, String)>,
}

impl Readers {
    /// Properties that a client's own settings go before.
    pub(super) fn defaults(&self) -> BTreeMap<&'static str, String> {
        let mut properties = BTreeMap::new();
        if let Some(region) = &self.region {
            // PyIceberg reads the one, Iceberg's Java library the other.
            properties.insert("s3.region", region.clone());
            properties.insert("client.region", region.clone());
        }
        if let Some(endpoint) = &self.endpoint {
            properties.insert("s3.endpoint", endpoint.clone());
            properties.insert("s3.path-style-access", self.path_style.to_string());
        }
        properties
    }

    /// Properties of a table, for a client that has asked for credentials.
    pub(super) fn delegated(&self) -> Option<BTreeMap<&'static str, String>> {
        let (id, secret) = self.credentials.as_ref()?;
        let mut properties = self.defaults();
        properties.insert("s3.access-key-id", id.clone());
        properties.insert("s3.secret-access-key", secret.clone());
        Some(properties)
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("path_style", &self.path_style)
            .field("credentials", &self.credentials.is_some())
            .finish()
    }
}

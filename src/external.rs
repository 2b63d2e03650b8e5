//! Another catalog, over REST: where tables of topics with `frazil.table.mode = copy` are published.
//!
//! Source: Apache Iceberg, REST catalog specification; RFC 6749, section 4.4, for tokens.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use frazil_compactor::publish::{External, ExternalError};
use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::catalog::percent::encode;

/// The longest answer that is read.
const BYTES_MAX: usize = 256 << 20;
/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Where the other catalog is.
#[derive(Clone, Debug)]
pub struct RestConfig {
    /// Its URL, in front of `/v1/…`.
    pub uri: String,
    /// Which warehouse to ask for.
    pub warehouse: Option<String>,
    /// The namespace of the tables, from the outermost part.
    pub namespace: Vec<String>,
    /// How to be let in.
    pub access: Access,
}

/// How to be let in.
#[derive(Clone)]
pub enum Access {
    /// Everybody is.
    Open,
    /// With a token.
    Token(String),
    /// With tokens that are got for a client's id and secret (OAuth 2, client credentials).
    Credential {
        /// The client's id.
        id: String,
        /// Its secret.
        secret: String,
        /// Where tokens are got; by default from the catalog, at `/v1/oauth/tokens`.
        server: Option<String>,
        /// What for.
        scope: String,
    },
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "Open",
            Self::Token(_) => "Token",
            Self::Credential { .. } => "Credential",
        })
    }
}

/// A REST catalog.
pub struct Rest {
    config: RestConfig,
    client: Result<reqwest::Client, String>,
    session: Mutex<Option<Session>>,
}

/// What was learned by asking, and holds for a while.
#[derive(Clone)]
struct Session {
    /// Ends with a slash.
    base: String,
    namespace: String,
    token: Option<String>,
    until: Option<Instant>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CatalogConfig {
    defaults: BTreeMap<String, String>,
    overrides: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Token {
    access_token: String,
    expires_in: Option<u64>,
}

impl Rest {
    /// A catalog that has not been asked anything yet.
    pub fn new(config: RestConfig) -> Self {
        let client = reqwest::Client::builder().timeout(DEADLINE).build();
        Self {
            client: client.map_err(|e| e.to_string()),
            config,
            session: Mutex::default(),
        }
    }

    /// Where tables are, with a token if one is needed.
    async fn session(&self) -> Result<Session, ExternalError> {
        let mut kept = self.session.lock().await;
        let valid = |session: &&Session| session.until.is_none_or(|until| Instant::now() < until);
        if let Some(session) = kept.as_ref().filter(valid) {
            return Ok(session.clone());
        }
        let uri = self.config.uri.trim_end_matches('/');
        let (token, until) = match &self.config.access {
            Access::Open => (None, None),
            Access::Token(token) => (Some(token.clone()), None),
            Access::Credential {
                id,
                secret,
                server,
                scope,
            } => {
                let default = || format!("{uri}/v1/oauth/tokens");
                let server = server.clone().unwrap_or_else(default);
                let form = form(&[
                    ("grant_type", "client_credentials"),
                    ("client_id", id),
                    ("client_secret", secret),
                    ("scope", scope),
                ]);
                let asked = self
                    .client()?
                    .post(server)
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form);
                let token: Token = parse(&send(asked).await?)?;
                // Renewed before it ends.
                let life = Duration::from_secs(token.expires_in.unwrap_or(3600)) * 3 / 4;
                (Some(token.access_token), Some(Instant::now() + life))
            }
        };
        let mut session = Session {
            base: format!("{uri}/v1/"),
            namespace: String::new(),
            token,
            until,
        };
        let warehouse = self.config.warehouse.as_ref();
        let query = warehouse.map_or(String::new(), |name| format!("?warehouse={}", encode(name)));
        let asked = self.request(&session, Method::GET, &format!("config{query}"))?;
        let config: CatalogConfig = parse(&send(asked).await?)?;
        let property = |name| config.overrides.get(name).or(config.defaults.get(name));
        if let Some(prefix) = property("prefix") {
            session.base = format!("{}{}/", session.base, prefix.trim_matches('/'));
        }
        let separator = property("namespace-separator").map_or("%1F", String::as_str);
        let parts: Vec<String> = self.config.namespace.iter().map(|p| encode(p)).collect();
        session.namespace = parts.join(separator);
        Ok(kept.insert(session).clone())
    }

    fn client(&self) -> Result<&reqwest::Client, ExternalError> {
        let client = self.client.as_ref();
        client.map_err(|reason| ExternalError::Unknown(reason.clone()))
    }

    fn request(
        &self,
        session: &Session,
        method: Method,
        below: &str,
    ) -> Result<RequestBuilder, ExternalError> {
        let url = format!("{}{below}", session.base);
        let request = self.client()?.request(method, url);
        Ok(match &session.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    }

    /// Sends a request; what was learned before is forgotten if it fails.
    async fn ask(
        &self,
        method: Method,
        below: impl Fn(&Session) -> String,
        body: Option<&Value>,
    ) -> Result<Vec<u8>, ExternalError> {
        let session = self.session().await?;
        let mut asked = self.request(&session, method, &below(&session))?;
        if let Some(body) = body {
            asked = asked
                .header(header::CONTENT_TYPE, "application/json")
                .body(body.to_string());
        }
        let answered = send(asked).await;
        if let Err(error) = &answered
            && !matches!(error, ExternalError::Refused { status: 404, .. })
        {
            *self.session.lock().await = None;
        }
        answered
    }
}

#[async_trait]
impl External for Rest {
    async fn load(&self, table: &str) -> Result<Option<Value>, ExternalError> {
        let below = |session: &Session| table_path(session, table);
        match self.ask(Method::GET, below, None).await {
            Ok(body) => metadata(&body).map(Some),
            Err(ExternalError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn create_namespace(&self) -> Result<(), ExternalError> {
        let body = json!({"namespace": self.config.namespace, "properties": {}});
        let below = |_: &Session| "namespaces".to_owned();
        match self.ask(Method::POST, below, Some(&body)).await {
            Ok(_) | Err(ExternalError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn commit(&self, table: &str, body: &Value) -> Result<Value, ExternalError> {
        let mut body = body.clone();
        body["identifier"] = json!({"namespace": self.config.namespace, "name": table});
        let below = |session: &Session| table_path(session, table);
        metadata(&self.ask(Method::POST, below, Some(&body)).await?)
    }
}

fn table_path(session: &Session, table: &str) -> String {
    format!("namespaces/{}/tables/{}", session.namespace, encode(table))
}

fn metadata(body: &[u8]) -> Result<Value, ExternalError> {
    let mut answer: Value = parse(body)?;
    match answer["metadata"].take() {
        Value::Null => Err(ExternalError::Unknown(
            "its answer holds no metadata".to_owned(),
        )),
        metadata => Ok(metadata),
    }
}

fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, ExternalError> {
    let unknown = |e| ExternalError::Unknown(format!("its answer is not understood: {e}"));
    serde_json::from_slice(body).map_err(unknown)
}

/// Sends a request, and says what its failure means.
async fn send(request: RequestBuilder) -> Result<Vec<u8>, ExternalError> {
    let failed = |e: reqwest::Error| {
        let mut cause: &dyn std::error::Error = &e;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        ExternalError::Unknown(cause.to_string())
    };
    let mut response = request.send().await.map_err(failed)?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > BYTES_MAX {
            return Err(ExternalError::Unknown("its answer is too long".to_owned()));
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() {
        return Ok(body);
    }
    let answer: Option<Value> = serde_json::from_slice(&body).ok();
    let answer = answer.unwrap_or_default();
    let message = answer["error"]["message"]
        .as_str()
        .or(answer["error_description"].as_str())
        .unwrap_or_default();
    let message: String = message.chars().take(500).collect();
    Err(match status {
        StatusCode::CONFLICT => ExternalError::Conflict(message),
        _ if status.is_client_error() => ExternalError::Refused {
            status: status.as_u16(),
            message,
        },
        _ => ExternalError::Unknown(format!("{status} {message}")),
    })
}

fn form(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .collect();
    pairs.join("&")
}

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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex as SyncMutex};

    use axum::Router;
    use axum::body::to_bytes;
    use axum::extract::{Request, State};
    use axum::http;
    use axum::response::IntoResponse as _;

    use super::*;

    /// A catalog that notes what it is asked and answers by rote.
    #[derive(Default)]
    struct Rote {
        asked: Vec<String>,
        /// The next answers to what concerns tables and namespaces.
        answers: Vec<(u16, Value)>,
        tokens: u32,
    }

    type Shared = Arc<SyncMutex<Rote>>;

    async fn answer(State(rote): State<Shared>, request: Request) -> axum::response::Response {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        let token = head.headers.get("authorization");
        let token = token.map_or("-", |token| token.to_str().unwrap());
        let mut rote = rote.lock().unwrap();
        rote.asked
            .push(format!("{} {} {token} {body}", head.method, head.uri));
        let (status, answer) = if head.uri.path().ends_with("/tokens") {
            rote.tokens += 1;
            let token = format!("token-{}", rote.tokens);
            (200, json!({"access_token": token, "expires_in": 3600}))
        } else if head.uri.path().ends_with("/config") {
            (
                200,
                json!({"defaults": {"prefix": "x"}, "overrides": {"prefix": "w/1"}}),
            )
        } else {
            rote.answers.pop().unwrap()
        };
        let status = http::StatusCode::from_u16(status).unwrap();
        (status, answer.to_string()).into_response()
    }

    async fn start(access: Access) -> (Shared, Rest) {
        // Another test of this process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let rote = Shared::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/rest/", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(rote.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let rest = Rest::new(RestConfig {
            uri,
            warehouse: Some("a b".to_owned()),
            namespace: vec!["kafka".to_owned(), "tables".to_owned()],
            access,
        });
        (rote, rest)
    }

    fn asked(rote: &Shared) -> Vec<String> {
        std::mem::take(&mut rote.lock().unwrap().asked)
    }

    fn answers(rote: &Shared, answers: &[(u16, Value)]) {
        rote.lock().unwrap().answers = answers.iter().rev().cloned().collect();
    }

    #[tokio::test]
    async fn requests_are_as_the_specification_says() {
        let (rote, rest) = start(Access::Token("t".to_owned())).await;
        let table = json!({"metadata": {"table-uuid": "u"}});
        answers(
            &rote,
            &[
                (404, json!({})),
                (200, json!({})),
                (200, table.clone()),
                (409, json!({})),
            ],
        );
        assert_eq!(rest.load("or.ders").await, Ok(None));
        rest.create_namespace().await.unwrap();
        let committed = rest.commit("or.ders", &json!({"updates": []})).await;
        assert_eq!(committed, Ok(table["metadata"].clone()));
        // It exists.
        rest.create_namespace().await.unwrap();
        let below = "/rest/v1/w/1/namespaces";
        let identifier = r#"{"name":"or.ders","namespace":["kafka","tables"]}"#;
        let namespace = r#"{"namespace":["kafka","tables"],"properties":{}}"#;
        assert_eq!(
            asked(&rote),
            [
                "GET /rest/v1/config?warehouse=a%20b Bearer t ".to_owned(),
                format!("GET {below}/kafka%1Ftables/tables/or.ders Bearer t "),
                format!("POST {below} Bearer t {namespace}"),
                format!(
                    "POST {below}/kafka%1Ftables/tables/or.ders Bearer t \
                     {{\"identifier\":{identifier},\"updates\":[]}}"
                ),
                format!("POST {below} Bearer t {namespace}"),
            ]
        );
    }

    #[tokio::test]
    async fn a_token_is_got_once_and_again_when_it_is_refused() {
        let (rote, rest) = start(Access::Credential {
            id: "me".to_owned(),
            secret: "s&t".to_owned(),
            server: None,
            scope: "catalog".to_owned(),
        })
        .await;
        let table = json!({"metadata": {}});
        let refused = json!({"error": {"message": "expired", "type": "X", "code": 401}});
        answers(
            &rote,
            &[
                (200, table.clone()),
                (200, table.clone()),
                (401, refused),
                (200, table),
            ],
        );
        for _ in 0..2 {
            rest.load("t").await.unwrap();
        }
        let error = rest.load("t").await.unwrap_err();
        assert_eq!(
            error,
            ExternalError::Refused {
                status: 401,
                message: "expired".to_owned()
            }
        );
        rest.load("t").await.unwrap();
        let asked = asked(&rote);
        let tokens: Vec<&String> = asked.iter().filter(|a| a.contains("/tokens")).collect();
        assert_eq!(tokens.len(), 2);
        assert!(tokens[0].ends_with(
            "POST /rest/v1/oauth/tokens - grant_type=client_credentials&client_id=me&\
             client_secret=s%26t&scope=catalog"
        ));
        assert!(asked.last().unwrap().contains("Bearer token-2"));
    }

    #[tokio::test]
    async fn failures_are_told_apart() {
        let (rote, rest) = start(Access::Open).await;
        let words = |message: &str| json!({"error": {"message": message}});
        let commit = || async { rest.commit("t", &json!({})).await.unwrap_err() };
        answers(
            &rote,
            &[
                (409, words("later")),
                (400, words("never")),
                (503, json!(7)),
                (200, json!({})),
            ],
        );
        assert_eq!(commit().await, ExternalError::Conflict("later".to_owned()));
        assert!(matches!(
            commit().await,
            ExternalError::Refused { status: 400, .. }
        ));
        assert!(matches!(commit().await, ExternalError::Unknown(_)));
        assert!(matches!(commit().await, ExternalError::Unknown(_)));
        let nobody = Rest::new(RestConfig {
            uri: "http://127.0.0.1:1".to_owned(),
            warehouse: None,
            namespace: vec!["n".to_owned()],
            access: Access::Token("hidden".to_owned()),
        });
        let error = nobody.load("t").await.unwrap_err();
        assert!(matches!(error, ExternalError::Unknown(_)));
        assert!(!format!("{error} {error:?} {:?}", nobody.config).contains("hidden"));
    }
}

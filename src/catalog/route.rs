//! What a request is about, from its path and query.

use std::collections::BTreeMap;
use std::fmt;

use super::NAMESPACE;
use super::error::Refusal;
use super::percent;

/// Separates the parts of a namespace.
const SEPARATOR: char = '\u{1f}';

/// A namespace as a client names it: any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Namespace(Vec<String>);

impl Namespace {
    pub(super) fn parse(text: &str) -> Self {
        Self(text.split(SEPARATOR).map(str::to_owned).collect())
    }

    /// Whether it is the one that exists.
    pub(super) fn is_ours(&self) -> bool {
        self.0 == [NAMESPACE]
    }

    /// Itself, if it exists.
    pub(super) fn existing(&self) -> Result<(), Refusal> {
        match self.is_ours() {
            true => Ok(()),
            false => Err(Refusal::no_namespace(self)),
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// What the specification has a path for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Config,
    Token,
    Namespaces,
    Namespace(Namespace),
    Tables(Namespace),
    Table(Namespace, String),
    Metrics(Namespace, String),
    Views(Namespace),
    View(Namespace, String),
    /// Something that exists only for changing the catalog.
    Change,
}

impl Resource {
    /// What a path below `/iceberg` means. The catalog tells clients no prefix; one that was told
    /// `frazil` by its user is understood too.
    ///
    /// # Errors
    /// It means nothing, or is no percent-encoded UTF-8.
    pub(super) fn parse(path: &str) -> Result<Self, Refusal> {
        let decoded = path.strip_prefix('/').unwrap_or(path).split('/');
        let decoded: Option<Vec<String>> = decoded.map(percent::decode).collect();
        let decoded =
            decoded.ok_or_else(|| Refusal::bad_request("the path is not percent-encoded UTF-8"))?;
        let segments: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let Some(("v1", rest)) = segments.split_first().map(|(first, rest)| (*first, rest)) else {
            return Err(Refusal::no_resource());
        };
        let rest = match rest {
            [NAMESPACE, below @ ..] if !below.is_empty() => below,
            all => all,
        };
        let namespace = Namespace::parse;
        Ok(match *rest {
            ["config"] => Self::Config,
            ["oauth", "tokens"] => Self::Token,
            ["namespaces"] => Self::Namespaces,
            ["namespaces", name] => Self::Namespace(namespace(name)),
            ["namespaces", name, "tables"] => Self::Tables(namespace(name)),
            ["namespaces", name, "tables", table] => Self::Table(namespace(name), table.to_owned()),
            ["namespaces", name, "tables", table, "metrics"] => {
                Self::Metrics(namespace(name), table.to_owned())
            }
            ["namespaces", name, "views"] => Self::Views(namespace(name)),
            ["namespaces", name, "views", view] => Self::View(namespace(name), view.to_owned()),
            ["namespaces", _, "properties" | "register" | "register-view"]
            | ["tables" | "views", "rename"]
            | ["transactions", "commit"] => Self::Change,
            _ => return Err(Refusal::no_resource()),
        })
    }
}

/// The parameters of a query; of several with one name, the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// # Errors
    /// It is not percent-encoded UTF-8.
    pub(super) fn parse(query: &str) -> Result<Self, Refusal> {
        let mut parameters = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) =
                (percent::decode_query(name), percent::decode_query(value))
            else {
                let message = "the query is not percent-encoded UTF-8";
                return Err(Refusal::bad_request(message));
            };
            parameters.entry(name).or_insert(value);
        }
        Ok(Self(parameters))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Namespace {
        Namespace::parse("frazil")
    }

    #[test]
    fn paths_mean_what_the_specification_says() {
        for (path, expected) in [
            ("/v1/config", Resource::Config),
            ("/v1/oauth/tokens", Resource::Token),
            ("/v1/namespaces", Resource::Namespaces),
            ("/v1/frazil/namespaces", Resource::Namespaces),
            ("/v1/namespaces/frazil", Resource::Namespace(ours())),
            ("/v1/namespaces/frazil/tables", Resource::Tables(ours())),
            (
                "/v1/namespaces/a%1Fb/tables/c%2Fd%20",
                Resource::Table(
                    Namespace(vec!["a".to_owned(), "b".to_owned()]),
                    "c/d ".to_owned(),
                ),
            ),
            (
                "/v1/namespaces/frazil/tables/tables/metrics",
                Resource::Metrics(ours(), "tables".to_owned()),
            ),
            ("/v1/namespaces/frazil/views", Resource::Views(ours())),
            ("/v1/namespaces/frazil/register", Resource::Change),
            ("/v1/tables/rename", Resource::Change),
            ("/v1/frazil/transactions/commit", Resource::Change),
        ] {
            assert_eq!(Resource::parse(path).unwrap(), expected, "{path}");
        }
        for path in [
            "",
            "/",
            "/v1",
            "/v1/",
            "/v1/frazil",
            "/v2/config",
            "/v1/config/",
            "//v1/config",
            "/v1/frazil/frazil/namespaces",
            "/v1/other/namespaces",
            "/v1/namespaces/frazil/tables/a/b",
            "/v1/namespaces/%FF",
            "/v1/namespaces/%",
        ] {
            assert!(Resource::parse(path).is_err(), "{path}");
        }
        // An encoded slash separates nothing, and dots lead nowhere.
        let inside = Resource::parse("/v1/namespaces/frazil/tables/..%2F..%2Fsecret").unwrap();
        assert_eq!(inside, Resource::Table(ours(), "../../secret".to_owned()));
    }

    #[test]
    fn queries_are_forms() {
        let query = Query::parse("a=1&b&a=2&&c=%1F+x&=y").unwrap();
        assert_eq!(query.get("a"), Some("1"));
        assert_eq!(query.get("b"), Some(""));
        assert_eq!(query.get("c"), Some("\u{1f} x"));
        assert_eq!(query.get("d"), None);
        assert!(Query::parse("a=%").is_err());
    }
}

//! What an error of a store means.
//!
//! | from the store | means |
//! |---|---|
//! | 412, 304, 409 | [`Failure::Conflict`]: look what is there |
//! | 404, without the bucket being missing | [`Failure::NotFound`] |
//! | nobody listens, name not resolved, 429, local disk full | [`Failure::DidNotHappen`] |
//! | 401, 403, bucket missing, wrong region, other 4xx, a read-only disk | [`Failure::Permanent`] |
//! | 5xx, resets, timeouts, anything that is not known | [`Failure::MayHaveHappened`] |
//!
//! A 5xx does not say that nothing was done: front ends answer for back ends that they have lost. 409
//! means two things: Amazon S3 answers it to a conditional write that meets another one under way,
//! of which perhaps none succeeds, others answer it for an object that is there.
//!
//! `object_store` keeps status and code of an answer in texts only, so they are read from there; what
//! is not recognised is [`Failure::MayHaveHappened`], which is never wrong.

use std::error::Error as StdError;
use std::io;

use object_store::Error;

/// What is known after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It was not done. Trying again may help.
    DidNotHappen,
    /// It may have been done, or may be done later. Trying again may help.
    MayHaveHappened,
    /// The object is not there.
    NotFound,
    /// A condition did not hold: the object is there, or somebody else was writing it. Trying the
    /// same again helps only if it turns out not to be there.
    Conflict,
    /// It will be refused until somebody changes something: credentials, bucket, settings.
    Permanent {
        /// What to do about it.
        advice: &'static str,
    },
}

const CREDENTIALS: &str = "check the credentials and what they allow: reading, writing, listing and \
                           deleting below store.url";
const BUCKET: &str = "the bucket does not exist: create it, or correct store.url";
const REGION: &str = "check region and endpoint (store.options)";
const DISK: &str = "check the directory of the store and its permissions";
const REFUSED: &str = "check store.url and store.options; the store does not accept such requests";

impl Failure {
    /// What this error means.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::AlreadyExists { .. }
            | Error::Precondition { .. }
            | Error::NotModified { .. } => Self::Conflict,
            Error::NotFound { source, .. } => match bucket_is_missing(&source.to_string()) {
                true => Self::Permanent { advice: BUCKET },
                false => Self::NotFound,
            },
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Self::Permanent {
                advice: CREDENTIALS,
            },
            Error::NotSupported { .. }
            | Error::NotImplemented { .. }
            | Error::InvalidPath { .. }
            | Error::UnknownConfigurationKey { .. } => Self::Permanent { advice: REFUSED },
            other => Self::of_chain(other),
        }
    }

    fn of_chain(error: &Error) -> Self {
        let text = error.to_string();
        if let Some(status) = status(&text) {
            return of_status(status, &text);
        }
        if text.contains("redirect without LOCATION") {
            return Self::Permanent { advice: REGION };
        }
        let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(this) = cause {
            if let Some(error) = this.downcast_ref::<io::Error>() {
                match error.kind() {
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::StorageFull => {
                        return Self::DidNotHappen;
                    }
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                        return Self::Permanent { advice: DISK };
                    }
                    _ => {}
                }
            }
            if this.to_string().starts_with("failed to lookup address") {
                return Self::DidNotHappen;
            }
            cause = this.source();
        }
        Self::MayHaveHappened
    }
}

/// The status in the text of an error for an answer that was not a success.
fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("non-2xx status code: ")?;
    rest.get(..3)?.parse().ok()
}

fn of_status(status: u16, text: &str) -> Failure {
    match status {
        429 => Failure::DidNotHappen,
        // The connection was too slow, or bytes were lost on it; Amazon S3 answers 400 to that.
        408 => Failure::MayHaveHappened,
        400 if ["RequestTimeout", "IncompleteBody", "BadDigest"]
            .iter()
            .any(|code| text.contains(code)) =>
        {
            Failure::MayHaveHappened
        }
        400 if text.contains("Token") || text.contains("Key") => Failure::Permanent {
            advice: CREDENTIALS,
        },
        400 if text.contains("Region") || text.contains("Malformed") => {
            Failure::Permanent { advice: REGION }
        }
        // The object is shorter than was thought; whoever asked judges that.
        416 => Failure::MayHaveHappened,
        300..=399 => Failure::Permanent { advice: REGION },
        400..=499 => Failure::Permanent { advice: REFUSED },
        _ => Failure::MayHaveHappened,
    }
}

/// Stores answer 404 for a bucket too, which tells nothing of the object.
fn bucket_is_missing(text: &str) -> bool {
    ["NoSuchBucket", "ContainerNotFound", "bucket does not exist"]
        .iter()
        .any(|code| text.contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        let source = source.into();
        Error::Generic {
            store: "S3",
            source,
        }
    }

    fn answered(status: &str, code: &str) -> Error {
        generic(format!(
            "Error performing PUT http://a/b in 3ms - Server returned non-2xx status code: \
             {status}: <Error><Code>{code}</Code></Error>"
        ))
    }

    #[test]
    fn errors_mean_what_the_table_says() {
        let path = || "a".to_owned();
        let permanent = |advice| Failure::Permanent { advice };
        let io = |kind| generic(io::Error::from(kind));
        for (error, expected) in [
            (
                Error::AlreadyExists {
                    path: path(),
                    source: "409".into(),
                },
                Failure::Conflict,
            ),
            (
                Error::NotFound {
                    path: path(),
                    source: "<Code>NoSuchKey</Code>".into(),
                },
                Failure::NotFound,
            ),
            (
                Error::NotFound {
                    path: path(),
                    source: "<Code>NoSuchBucket</Code>".into(),
                },
                permanent(BUCKET),
            ),
            (
                Error::PermissionDenied {
                    path: path(),
                    source: "403".into(),
                },
                permanent(CREDENTIALS),
            ),
            (
                answered("503 Service Unavailable", "SlowDown"),
                Failure::MayHaveHappened,
            ),
            (
                answered("500 Internal Server Error", "InternalError"),
                Failure::MayHaveHappened,
            ),
            (
                answered("429 Too Many Requests", "Slow"),
                Failure::DidNotHappen,
            ),
            (
                answered("400 Bad Request", "ExpiredToken"),
                permanent(CREDENTIALS),
            ),
            (
                answered("400 Bad Request", "RequestTimeout"),
                Failure::MayHaveHappened,
            ),
            (
                answered("405 Method Not Allowed", "MethodNotAllowed"),
                permanent(REFUSED),
            ),
            (io(io::ErrorKind::ConnectionRefused), Failure::DidNotHappen),
            (io(io::ErrorKind::ConnectionReset), Failure::MayHaveHappened),
            (io(io::ErrorKind::StorageFull), Failure::DidNotHappen),
            (io(io::ErrorKind::ReadOnlyFilesystem), permanent(DISK)),
            (generic("what is this"), Failure::MayHaveHappened),
        ] {
            assert_eq!(Failure::of(&error), expected, "{error}");
        }
    }
}

//! The same control over HTTP, for processes.
//!
//! | request | does |
//! |---|---|
//! | `GET /_frazil/counters` | [`Counters`](crate::Counters) as JSON |
//! | `DELETE /_frazil/counters` | begins counting anew |
//! | `GET /_frazil/faults` | [`Faults`] as JSON |
//! | `PUT /_frazil/faults` | replaces them |
//! | `DELETE /_frazil/faults` | nothing goes wrong any more, what is held goes on |
//! | `POST /_frazil/rules` | adds a [`Rule`](crate::Rule) |
//! | `DELETE /_frazil/rules?name=NAME` | removes the rules of that name |
//! | `PUT /_frazil/outage` | begins (`"reset"`, `"hang"`) or ends (`null`) an outage |
//! | `GET /_frazil/held` | what is held now, as a list of [`Held`](crate::Held) |
//! | `GET /_frazil/held?name=NAME&wait_ms=MS` | waits up to so long until that rule holds something |
//! | `POST /_frazil/release?name=NAME` | lets go on what that rule holds; without a name, everything |
//!
//! It is answered during an outage too.

use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::Request;
use hyper::body::Incoming;
use serde::Serialize;

use crate::faults::Faults;
use crate::s3::{Answer, decode};
use crate::server::Shared;

/// No document of the control is larger, in bytes.
const BODY_MAX: usize = 1 << 20;

fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => Answer {
            body: body.into(),
            ..Answer::new(200)
        },
        Err(e) => wrong(&e.to_string()),
    }
}

fn wrong(text: &str) -> Answer {
    Answer {
        body: format!("{text}\n").into(),
        ..Answer::new(400)
    }
}

pub(crate) async fn handle(shared: &Shared, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let query = |name: &str| {
        let mut pairs = head.uri.query()?.split('&');
        pairs.find_map(|pair| Some(decode(pair.split_once('=').filter(|p| p.0 == name)?.1)))
    };
    let body = match Limited::new(body, BODY_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(e) => return wrong(&e.to_string()),
    };
    /// Takes what the body says, and answers what was wrong with it.
    fn take<T: serde::de::DeserializeOwned>(body: &[u8], how: impl FnOnce(T)) -> Answer {
        match serde_json::from_slice(body) {
            Ok(value) => {
                how(value);
                Answer::new(204)
            }
            Err(e) => wrong(&e.to_string()),
        }
    }
    let faults = &shared.faults;
    match (head.method.as_str(), head.uri.path()) {
        ("GET", "/_frazil/counters") => json(&shared.counting.get()),
        ("DELETE", "/_frazil/counters") => {
            shared.counting.reset();
            Answer::new(204)
        }
        ("GET", "/_frazil/faults") => json(&faults.get()),
        ("PUT", "/_frazil/faults") => take::<Faults>(&body, |new| faults.set(new)),
        ("DELETE", "/_frazil/faults") => {
            faults.heal();
            Answer::new(204)
        }
        ("POST", "/_frazil/rules") => take(&body, |rule| faults.add(rule)),
        ("DELETE", "/_frazil/rules") => {
            faults.remove(&query("name").unwrap_or_default());
            Answer::new(204)
        }
        ("PUT", "/_frazil/outage") => take(&body, |outage| faults.outage(outage)),
        ("GET", "/_frazil/held") => {
            let wait = query("wait_ms").and_then(|ms| ms.parse().ok());
            if let (Some(name), Some(ms)) = (query("name"), wait) {
                let held = faults.wait_held(&name);
                // Whether it came or not is what the list says.
                let _ = tokio::time::timeout(Duration::from_millis(ms), held).await;
            }
            json(&faults.held())
        }
        ("POST", "/_frazil/release") => json(&match query("name") {
            Some(name) => faults.release(&name),
            None => faults.release_all(),
        }),
        _ => Answer::new(404),
    }
}

//! Connections, and the life of a request under faults.
//!
//! ```text
//! head ─► outage? ─► body ─► plan ─► ┌─ wait, hold ─► apply ─► hold, wait ─► answer
//!                                    └ a task of its own: who hangs up does not stop it
//! ```
//!
//! As with a real store, a client that has given up can still have its PUT done.

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::control;
use crate::counters::Counting;
use crate::faults::{Control, Fault, Held, Operation, Outage};
use crate::objects::Objects;
use crate::s3::{Answer, Request, code, header_value};

/// How much of a body is sent at once.
const CHUNK: usize = 64 << 10;

/// What requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) objects: Objects,
    pub(crate) faults: Control,
    pub(crate) counting: Counting,
    pub(crate) body_max: usize,
    pub(crate) stop: CancellationToken,
}

/// The connection is to be reset.
#[derive(Debug)]
pub(crate) struct Abort;

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is reset")
    }
}

impl std::error::Error for Abort {}

pub(crate) type Body = BoxBody<Bytes, io::Error>;

/// Serves until it is stopped.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = shared.stop.cancelled() => return,
        };
        // What fails is one connection, or there are no descriptors, which passes.
        let Ok((stream, _)) = accepted else {
            tokio::task::yield_now().await;
            continue;
        };
        connections.spawn(connection(stream, Arc::clone(&shared)));
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    // Without it, answers in two pieces wait for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| handle(Arc::clone(&shared), request));
    let mut connection = http1::Builder::new()
        .max_buf_size(1 << 20)
        .serve_connection(TokioIo::new(stream), service);
    let ended = (&mut connection).await;
    if ended.is_err() {
        // A reset, not an orderly end.
        let stream = connection.into_parts().io.into_inner();
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
}

async fn handle(
    shared: Arc<Shared>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Body>, Abort> {
    if request.uri().path().starts_with("/_frazil/") {
        return Ok(respond(control::handle(&shared, request).await));
    }
    let (head, mut body) = request.into_parts();
    let request = Request::new(&head.method, &head.uri, head.headers);
    let operation = request.operation;
    let mut outages = shared.faults.outages();
    let outage = *outages.borrow();
    match outage {
        None => {}
        Some(Outage::Reset) => {
            drop(shared.counting.begin(operation));
            return Err(Abort);
        }
        Some(Outage::Hang) => {
            let _serving = shared.counting.begin(operation);
            let ended = outages
                .wait_for(|outage| *outage != Some(Outage::Hang))
                .await;
            drop(ended);
            return Err(Abort);
        }
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Abort)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        shared.faults.carry(data.len()).await;
        shared.counting.received(data.len());
        if bytes.len() + data.len() > shared.body_max {
            return Ok(respond(Answer::error(400, "EntityTooLarge")));
        }
        bytes.extend_from_slice(&data);
    }
    let request = request.with_body(bytes.into());
    let stop = shared.stop.clone();
    let work = work(Arc::clone(&shared), request);
    let served = tokio::spawn(async move {
        let served = stop.run_until_cancelled(work).await;
        served.unwrap_or(Err(Abort))
    });
    let served = served.await;
    let (answer, truncate) = served.map_err(|_| Abort)??;
    Ok(paced(shared, answer, truncate))
}

/// The life of a request that has been read. Returns the answer and how much of its body is sent.
async fn work(shared: Arc<Shared>, request: Request) -> Result<(Answer, Option<f64>), Abort> {
    let mut serving = shared.counting.begin(request.operation);
    let plan = shared.faults.plan(request.operation, &request.keys);
    for rule in &plan.struck {
        shared.counting.struck(rule);
    }
    let held = |rule: &str, applied| Held {
        rule: rule.to_owned(),
        operation: request.operation,
        key: request.keys.first().cloned().unwrap_or_default(),
        applied,
    };
    tokio::time::sleep(plan.before).await;
    if let Some(rule) = &plan.hold_before {
        shared.faults.hold(held(rule, false)).await;
    }
    match &plan.fault {
        Some(Fault::Status {
            status,
            code,
            applied: false,
        }) => {
            serving.status = *status;
            return Ok((refusal(*status, code.as_deref()), None));
        }
        Some(Fault::Reset { applied: false }) => return Err(Abort),
        Some(Fault::Hang { applied: false }) => return pending().await,
        Some(Fault::Late { after_ms }) => {
            let later = Duration::from_millis(*after_ms);
            let (stop, shared) = (shared.stop.clone(), Arc::clone(&shared));
            tokio::spawn(async move {
                let apply = async {
                    tokio::time::sleep(later).await;
                    apply(&shared, &request).await
                };
                stop.run_until_cancelled(apply).await
            });
            return Err(Abort);
        }
        _ => {}
    }
    let mut answer = apply(&shared, &request).await;
    if let Some(rule) = &plan.hold_after {
        shared.faults.hold(held(rule, true)).await;
    }
    tokio::time::sleep(plan.after).await;
    match &plan.fault {
        Some(Fault::Status { status, code, .. }) => {
            serving.status = *status;
            return Ok((refusal(*status, code.as_deref()), None));
        }
        Some(Fault::Reset { .. }) => return Err(Abort),
        Some(Fault::Hang { .. }) => return pending().await,
        _ => {}
    }
    serving.status = answer.status;
    let of_object = request.operation == Operation::Get && matches!(answer.status, 200 | 206);
    match plan.fault {
        Some(Fault::Truncate { keep }) if of_object => Ok((answer, Some(keep))),
        Some(Fault::Flip) if of_object && !answer.body.is_empty() => {
            let mut bytes = Vec::from(answer.body);
            let at = (plan.draw >> 8) as usize % bytes.len();
            bytes[at] ^= 1 << (plan.draw % 8);
            answer.body = bytes.into();
            Ok((answer, None))
        }
        _ => Ok((answer, None)),
    }
}

async fn apply(shared: &Shared, request: &Request) -> Answer {
    let answer = request.apply(&shared.objects).await;
    let puts = [Operation::Put, Operation::Copy, Operation::CompleteUpload];
    if answer.status == 200 && puts.contains(&request.operation) {
        for key in &request.keys {
            shared.counting.put(&request.bucket, key);
        }
    }
    answer
}

fn refusal(status: u16, text: Option<&str>) -> Answer {
    Answer::error(status, text.unwrap_or(code(status)))
}

fn head(answer: &Answer) -> hyper::http::response::Builder {
    let mut response = hyper::Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(name, header_value(value));
    }
    let length = answer.length.unwrap_or(answer.body.len() as u64);
    // These two have no body, and no length of one.
    if answer.status == 204 || answer.status == 304 {
        return response;
    }
    response.header(hyper::header::CONTENT_LENGTH, length)
}

/// The answer with its body in one piece.
fn respond(answer: Answer) -> hyper::Response<Body> {
    let head = head(&answer);
    let body = Full::new(answer.body).map_err(|never: Infallible| match never {});
    build(head, body.boxed())
}

/// The answer with its body at the speed of the line, and perhaps only the first part of it.
fn paced(shared: Arc<Shared>, answer: Answer, keep: Option<f64>) -> hyper::Response<Body> {
    let head = head(&answer);
    let mut body = answer.body;
    if let Some(keep) = keep {
        let sent = (body.len() as f64 * keep.clamp(0.0, 1.0)) as usize;
        body.truncate(sent);
    }
    let chunks = stream::unfold(
        (shared, body, keep),
        |(shared, mut body, keep)| async move {
            if body.is_empty() {
                let broken = io::Error::from(io::ErrorKind::UnexpectedEof);
                return keep.map(|_| (Err(broken), (shared, body, None)));
            }
            let chunk = body.split_to(body.len().min(CHUNK));
            shared.faults.carry(chunk.len()).await;
            shared.counting.sent(chunk.len());
            Some((Ok(Frame::data(chunk)), (shared, body, keep)))
        },
    );
    build(head, BodyExt::boxed(StreamBody::new(chunks)))
}

fn build(head: hyper::http::response::Builder, body: Body) -> hyper::Response<Body> {
    head.body(body).unwrap_or_else(|_| {
        // Names and values have been checked; a status below 100 is somebody's fault.
        let body = Full::new(Bytes::new()).map_err(|never: Infallible| match never {});
        let mut response = hyper::Response::new(body.boxed());
        *response.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

//! What goes wrong, when, and how often.
//!
//! [`Faults`] is data, given to a [`Store`](crate::Store) or sent to it as JSON at any time. Every
//! request is compared with the rules in their order; each rule that matches it is drawn, and may
//! add its fault. Delays and holds add up; of the other faults the first wins. Draws come from the
//! seed, so one request after the other gets the same faults in every run; which request meets
//! which draw when several come at once is up to the machine.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::latency::{Latency, Rng};

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// PutObject
    Put,
    /// GetObject
    Get,
    /// HeadObject
    Head,
    /// DeleteObject
    Delete,
    /// DeleteObjects
    DeleteMany,
    /// ListObjectsV2
    List,
    /// CopyObject
    Copy,
    /// CreateMultipartUpload
    CreateUpload,
    /// UploadPart, UploadPartCopy
    PutPart,
    /// CompleteMultipartUpload
    CompleteUpload,
    /// AbortMultipartUpload
    AbortUpload,
    /// Anything else, which is not served.
    Other,
}

/// Nothing works at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outage {
    /// Every connection is reset as soon as it asks for something.
    Reset,
    /// Nothing is answered. When the outage ends, the connections that wait are reset.
    Hang,
}

/// Everything that goes wrong. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Decides draws and latencies.
    pub seed: u64,
    /// How long requests take, by operation; at once, if nothing is said.
    pub latency: BTreeMap<Operation, Latency>,
    /// Bytes of bodies in a second, in both directions together.
    pub bandwidth: Option<u64>,
    /// Nothing works at all.
    pub outage: Option<Outage>,
    /// Faults of single requests.
    pub rules: Vec<Rule>,
}

impl Faults {
    /// As slow as Amazon S3 in the same region usually is, for objects up to some megabytes.
    pub fn s3_latency(mut self) -> Self {
        use Operation::{
            CompleteUpload, Copy, CreateUpload, Delete, DeleteMany, Get, Head, List, Put, PutPart,
        };
        self.latency = BTreeMap::from([
            (Put, Latency::new(30.0, 120.0)),
            (PutPart, Latency::new(30.0, 120.0)),
            (Get, Latency::new(15.0, 80.0)),
            (Head, Latency::new(10.0, 50.0)),
            (Delete, Latency::new(15.0, 80.0)),
            (DeleteMany, Latency::new(30.0, 150.0)),
            (List, Latency::new(30.0, 150.0)),
            (Copy, Latency::new(40.0, 150.0)),
            (CreateUpload, Latency::new(20.0, 80.0)),
            (CompleteUpload, Latency::new(50.0, 200.0)),
        ]);
        self
    }

    /// With one more rule.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }
}

/// Which requests get which fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// By which it is removed, released and counted.
    #[serde(default)]
    pub name: String,
    /// Which operations; empty: all.
    #[serde(default)]
    pub operations: BTreeSet<Operation>,
    /// Which keys, without the bucket; `*` stands for any characters.
    #[serde(default = "any")]
    pub key: String,
    /// Of those that match, how many get the fault: 0 to 1.
    #[serde(default = "always")]
    pub probability: f64,
    /// How many that match are let through first.
    #[serde(default)]
    pub skip: u64,
    /// How often it strikes at most.
    #[serde(default)]
    pub count: Option<u64>,
    /// How long after it was set it strikes, in milliseconds.
    #[serde(default)]
    pub for_ms: Option<u64>,
    /// What happens.
    pub fault: Fault,
}

fn any() -> String {
    "*".to_owned()
}

fn always() -> f64 {
    1.0
}

impl Rule {
    /// The fault for every request with any of these operations; none: with all.
    pub fn new(operations: &[Operation], fault: Fault) -> Self {
        Self {
            name: String::new(),
            operations: operations.iter().copied().collect(),
            key: any(),
            probability: always(),
            skip: 0,
            count: None,
            for_ms: None,
            fault,
        }
    }

    /// By which it is removed, released and counted.
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Only for keys that match; `*` stands for any characters.
    pub fn key(mut self, pattern: &str) -> Self {
        pattern.clone_into(&mut self.key);
        self
    }

    /// Only for this part of the requests, 0 to 1.
    pub fn probability(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }

    /// Only so often.
    pub fn times(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// Only for so long from now.
    pub fn lasting(mut self, time: Duration) -> Self {
        self.for_ms = Some(time.as_millis() as u64);
        self
    }
}

/// What happens to a request. `applied` says whether what was asked for is done before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// This status is answered, with S3's error code for it unless another is given.
    Status {
        /// For example 503.
        status: u16,
        /// For example `SlowDown`.
        #[serde(default)]
        code: Option<String>,
        /// Whether it is done all the same.
        #[serde(default)]
        applied: bool,
    },
    /// The connection is reset.
    Reset {
        /// Whether it is done before.
        #[serde(default)]
        applied: bool,
    },
    /// There is never an answer.
    Hang {
        /// Whether it is done before.
        #[serde(default)]
        applied: bool,
    },
    /// The connection is reset at once, and what was asked for is done later.
    Late {
        /// How much later, in milliseconds.
        after_ms: u64,
    },
    /// A GET promises all of the body, sends this part of it (0 to 1) and breaks the connection.
    Truncate {
        /// How much is sent.
        keep: f64,
    },
    /// A GET has one wrong byte.
    Flip,
    /// It takes so much longer, in milliseconds.
    Delay {
        /// How much.
        ms: u64,
    },
    /// It waits until the rule is released.
    Hold {
        /// Whether it is done before, so that only the answer waits.
        #[serde(default)]
        applied: bool,
    },
}

impl Fault {
    /// This status instead of doing it.
    pub fn status(status: u16) -> Self {
        Self::Status {
            status,
            code: None,
            applied: false,
        }
    }

    /// This status after having done it.
    pub fn status_applied(status: u16) -> Self {
        Self::Status {
            status,
            code: None,
            applied: true,
        }
    }
}

/// A request that waits to be released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The rule that holds it.
    pub rule: String,
    /// What was asked.
    pub operation: Operation,
    /// Of which object.
    pub key: String,
    /// Whether it has been done.
    pub applied: bool,
}

/// The faults in force; can be changed while requests run.
#[derive(Debug)]
pub struct Control {
    inner: Mutex<Inner>,
    outage: watch::Sender<Option<Outage>>,
    held: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    faults: Faults,
    rng: Rng,
    rules: Vec<Armed>,
    holds: BTreeMap<u64, (Held, Arc<Notify>)>,
    next_hold: u64,
    /// Until when the line is busy.
    line: Option<Instant>,
}

#[derive(Debug)]
struct Armed {
    rule: Rule,
    since: Instant,
    seen: u64,
    struck: u64,
}

impl Armed {
    fn new(rule: Rule) -> Self {
        Self {
            rule,
            since: Instant::now(),
            seen: 0,
            struck: 0,
        }
    }
}

/// What happens to one request.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) before: Duration,
    pub(crate) after: Duration,
    pub(crate) hold_before: Option<String>,
    pub(crate) hold_after: Option<String>,
    pub(crate) fault: Option<Fault>,
    /// For the byte that is wrong.
    pub(crate) draw: u64,
    /// The rules that struck.
    pub(crate) struck: Vec<String>,
}

impl Control {
    pub(crate) fn new(faults: Faults) -> Self {
        let control = Self {
            inner: Mutex::new(Inner {
                faults: Faults::default(),
                rng: Rng::new(0),
                rules: Vec::new(),
                holds: BTreeMap::new(),
                next_hold: 0,
                line: None,
            }),
            outage: watch::Sender::new(None),
            held: watch::Sender::new(0),
        };
        control.set(faults);
        control
    }

    /// What is in force, with the rules as they were set.
    pub fn get(&self) -> Faults {
        let inner = self.inner.lock();
        Faults {
            rules: inner.rules.iter().map(|armed| armed.rule.clone()).collect(),
            outage: *self.outage.borrow(),
            ..inner.faults.clone()
        }
    }

    /// Replaces everything that is in force. Requests that are held stay so.
    pub fn set(&self, faults: Faults) {
        let mut inner = self.inner.lock();
        inner.rng = Rng::new(faults.seed);
        inner.rules = faults.rules.iter().cloned().map(Armed::new).collect();
        self.outage.send_replace(faults.outage);
        inner.faults = faults;
    }

    /// Nothing goes wrong any more, nothing takes long; what is held goes on.
    pub fn heal(&self) {
        self.set(Faults::default());
        self.release_all();
    }

    /// Adds a rule behind the others.
    pub fn add(&self, rule: Rule) {
        self.inner.lock().rules.push(Armed::new(rule));
    }

    /// Removes the rules with this name. What they hold stays held.
    pub fn remove(&self, name: &str) {
        self.inner
            .lock()
            .rules
            .retain(|armed| armed.rule.name != name);
    }

    /// Begins or ends an outage.
    pub fn outage(&self, outage: Option<Outage>) {
        self.outage.send_replace(outage);
    }

    /// What is held now.
    pub fn held(&self) -> Vec<Held> {
        let inner = self.inner.lock();
        inner.holds.values().map(|(held, _)| held.clone()).collect()
    }

    /// Waits until the rule with this name holds something.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn wait_held(&self, rule: &str) -> Held {
        let mut changes = self.held.subscribe();
        loop {
            let found = self.held().into_iter().find(|held| held.rule == rule);
            if let Some(held) = found {
                return held;
            }
            // The sender is ours, so it is there.
            let _ = changes.changed().await;
        }
    }

    /// Lets go on what the rule with this name holds now; returns how many.
    pub fn release(&self, rule: &str) -> usize {
        self.release_where(|held| held.rule == rule)
    }

    /// Lets everything go on that is held now; returns how many.
    pub fn release_all(&self) -> usize {
        self.release_where(|_| true)
    }

    fn release_where(&self, mut which: impl FnMut(&Held) -> bool) -> usize {
        let mut inner = self.inner.lock();
        let before = inner.holds.len();
        inner.holds.retain(|_, (held, go)| {
            let release = which(held);
            if release {
                go.notify_one();
            }
            !release
        });
        before - inner.holds.len()
    }

    /// Waits until the rule is released.
    pub(crate) async fn hold(&self, held: Held) {
        let go = Arc::new(Notify::new());
        let released = Arc::clone(&go);
        {
            let mut inner = self.inner.lock();
            let number = inner.next_hold;
            inner.next_hold += 1;
            inner.holds.insert(number, (held, go));
        }
        self.held.send_modify(|count| *count += 1);
        released.notified().await;
    }

    pub(crate) fn outages(&self) -> watch::Receiver<Option<Outage>> {
        self.outage.subscribe()
    }

    /// What happens to a request for these keys.
    pub(crate) fn plan(&self, operation: Operation, keys: &[String]) -> Plan {
        let inner = &mut *self.inner.lock();
        let (rng, mut plan) = (&mut inner.rng, Plan::default());
        if let Some(latency) = inner.faults.latency.get(&operation) {
            let whole = latency.sample(rng);
            plan.before = whole.mul_f64(rng.unit());
            plan.after = whole - plan.before;
        }
        for armed in &mut inner.rules {
            let rule = &armed.rule;
            let applies = (rule.operations.is_empty() || rule.operations.contains(&operation))
                && (rule.key == "*" || keys.iter().any(|key| matches(&rule.key, key)))
                && rule.count.is_none_or(|count| armed.struck < count)
                && rule
                    .for_ms
                    .is_none_or(|ms| armed.since.elapsed() < Duration::from_millis(ms));
            if !applies {
                continue;
            }
            armed.seen += 1;
            if armed.seen <= rule.skip || rng.unit() >= rule.probability {
                continue;
            }
            match &rule.fault {
                Fault::Delay { ms } => plan.before += Duration::from_millis(*ms),
                Fault::Hold { applied: false } => plan.hold_before = Some(rule.name.clone()),
                Fault::Hold { applied: true } => plan.hold_after = Some(rule.name.clone()),
                _ if plan.fault.is_some() => continue,
                fault => plan.fault = Some(fault.clone()),
            }
            armed.struck += 1;
            plan.struck.push(rule.name.clone());
        }
        plan.draw = rng.next();
        plan
    }

    /// Waits until the line has carried so many bytes.
    pub(crate) async fn carry(&self, bytes: usize) {
        let until = {
            let mut inner = self.inner.lock();
            let Some(bandwidth) = inner.faults.bandwidth else {
                return;
            };
            let now = Instant::now();
            let free = inner.line.map_or(now, |line| line.max(now));
            let takes = Duration::from_secs_f64(bytes as f64 / bandwidth.max(1) as f64);
            let until = free + takes;
            inner.line = Some(until);
            until
        };
        tokio::time::sleep_until(until).await;
    }
}

/// Whether `text` is like `pattern`, in which `*` stands for any characters.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        let Some(at) = text.find(part) else {
            return false;
        };
        text = &text[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*b", "ab", true),
            ("a*b", "axxb", true),
            ("a*b", "axx", false),
            ("*segments/*", "p/segments/01/x", true),
            ("*segments/*/x", "p/segments/01/y", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[tokio::test]
    async fn rules_count_skip_and_end() {
        let control = Control::new(Faults::default());
        let mut rule = Rule::new(&[Operation::Put], Fault::status(503)).times(2);
        rule.skip = 1;
        control.add(rule.named("slow"));
        let strikes = |operation| control.plan(operation, &[]).fault.is_some();
        assert!(!strikes(Operation::Get));
        let puts: Vec<_> = (0..5).map(|_| strikes(Operation::Put)).collect();
        assert_eq!(puts, [false, true, true, false, false]);
        control.add(Rule::new(&[], Fault::Flip).named("more"));
        assert!(strikes(Operation::Put));
        control.remove("more");
        assert!(!strikes(Operation::Put));
    }

    #[test]
    fn faults_are_json_and_unknown_names_are_refused() {
        let text = r#"{"latency": {"put": {"median_ms": 30, "p99_ms": 120}}, "outage": "hang",
            "rules": [{"operations": ["get"], "key": "*/segments/*", "probability": 0.5,
                       "fault": {"kind": "truncate", "keep": 0.5}}]}"#;
        let faults: Faults = serde_json::from_str(text).unwrap();
        let again: Faults = serde_json::from_str(&serde_json::to_string(&faults).unwrap()).unwrap();
        assert_eq!(faults, again);
        assert_eq!(faults.rules[0].fault, Fault::Truncate { keep: 0.5 });
        assert!(serde_json::from_str::<Faults>(r#"{"latencies": {}}"#).is_err());
    }
}

//! What happened, as a hash and, if wanted, as text.
//!
//! Everything that one part of the cluster learns from another leaves a line: requests to the store
//! and to disks, faults, what clients were told, and the program's own log. The same seed must give
//! the same hash; where it does not, the two texts say where they part.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

static TRACE: Mutex<Trace> = Mutex::new(Trace {
    hash: 0xCBF2_9CE4_8422_2325,
    lines: 0,
    line: String::new(),
    file: None,
    hosts: Vec::new(),
});
/// Virtual milliseconds.
static NOW: AtomicU64 = AtomicU64::new(0);
/// The host whose turn it is, from 1; 0: nobody's.
static HOST: AtomicU64 = AtomicU64::new(0);

struct Trace {
    hash: u64,
    lines: u64,
    line: String,
    file: Option<BufWriter<File>>,
    hosts: Vec<String>,
}

/// Virtual milliseconds since the simulation began.
pub fn now_ms() -> u64 {
    NOW.load(Ordering::Relaxed)
}

/// Time goes on.
pub fn set_now(ms: u64) {
    NOW.store(ms, Ordering::Relaxed);
}

/// One line.
pub fn note(what: fmt::Arguments<'_>) {
    let mut trace = TRACE.lock();
    let trace = &mut *trace;
    trace.line.clear();
    let host = HOST.load(Ordering::Relaxed) as usize;
    let host = trace.hosts.get(host.wrapping_sub(1)).map_or("-", |h| h);
    // A string takes everything.
    let _ = writeln!(trace.line, "{:>7} {host} {what}", now_ms());
    for byte in trace.line.bytes() {
        trace.hash = (trace.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    }
    trace.lines += 1;
    if let Some(file) = &mut trace.file {
        // What cannot be written is missing for the reader, and changes nothing else.
        let _ = file.write_all(trace.line.as_bytes());
    }
}

/// The hash of all lines, and their number.
pub fn digest() -> (u64, u64) {
    let trace = TRACE.lock();
    (trace.hash, trace.lines)
}

/// Writes what is left to the file.
pub fn flush() {
    if let Some(file) = &mut TRACE.lock().file {
        let _ = file.flush();
    }
}

/// Takes the program's log; all lines go to a file too, if one is named.
///
/// # Errors
/// The file cannot be created.
pub fn install(file: Option<&Path>, verbose: bool) -> anyhow::Result<()> {
    if let Some(path) = file {
        TRACE.lock().file = Some(BufWriter::new(File::create(path)?));
    }
    tracing::subscriber::set_global_default(Lines { verbose })?;
    Ok(())
}

/// The program's log as lines; the spans in which hosts run say whose they are.
struct Lines {
    verbose: bool,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.is_span() {
            return metadata.target().starts_with("turmoil");
        }
        let max = match metadata.target() {
            target if target.starts_with("frazil") => {
                if self.verbose {
                    Level::DEBUG
                } else {
                    Level::INFO
                }
            }
            target if target.starts_with("openraft") && !self.verbose => Level::ERROR,
            target if target.starts_with("openraft") => Level::INFO,
            _ => return false,
        };
        *metadata.level() <= max
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut name = Text::default();
        span.record(&mut name);
        let mut trace = TRACE.lock();
        let known = trace.hosts.iter().position(|host| *host == name.0);
        let index = known.unwrap_or_else(|| {
            trace.hosts.push(name.0);
            trace.hosts.len() - 1
        });
        Id::from_u64(index as u64 + 1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let level = event.metadata().level();
        let target = event.metadata().target();
        note(format_args!("{level} {target}{}", text.0));
    }

    fn enter(&self, span: &Id) {
        HOST.store(span.into_u64(), Ordering::Relaxed);
    }

    fn exit(&self, _: &Id) {
        HOST.store(0, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            "name" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = match field.name() {
            "name" => write!(self.0, "{value}"),
            name => write!(self.0, " {name}={value}"),
        };
    }
}

//! Runs a simulation for many seeds.

use std::cell::RefCell;
use std::io::Write as _;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// How long a seed may take. Simulated time passes in no time: one that is not done is stuck.
const STUCK: Duration = Duration::from_secs(120);
/// How long a seed may go on after a panic: what waits for the task that panicked waits for ever.
const PANICKED: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(200);

/// What one thread works on: the seed, since when, and since when it has panicked.
#[derive(Default)]
struct Work {
    seed: Option<(u64, Instant)>,
    panicked: Option<Instant>,
}

type Slot = Arc<Mutex<Work>>;

thread_local! {
    static SLOT: RefCell<Option<Slot>> = const { RefCell::new(None) };
}

/// Notes the panics of each thread: a simulated process that panics in a task of its own, whose end
/// nobody looks at, has failed all the same.
fn note_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            SLOT.with_borrow(|slot| {
                if let Some(slot) = slot {
                    lock(slot).panicked.get_or_insert_with(Instant::now);
                }
            });
            before(info);
        }));
    });
}

fn lock(slot: &Slot) -> std::sync::MutexGuard<'_, Work> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `SEEDS` says: `a..b`, or one seed.
fn wanted(text: &str) -> Option<Range<u64>> {
    match text.split_once("..") {
        Some((from, to)) => Some(from.parse().ok()?..to.parse().ok()?),
        None => {
            let seed: u64 = text.parse().ok()?;
            Some(seed..seed.checked_add(1)?)
        }
    }
}

/// Runs `simulate` for the seeds `0..usual`, or those that the environment variable `SEEDS` names
/// (`a..b`, or one), on as many threads as there are processors. `package` and `test` say how the
/// test is called, for the line that repeats a failure.
///
/// # Panics
/// If a seed fails: `simulate` panics, or anything on its thread does.
pub fn seeds(package: &str, test: &str, usual: u64, simulate: impl Fn(u64) + Sync) {
    let seeds = match std::env::var("SEEDS") {
        Ok(text) => wanted(&text).unwrap_or_else(|| panic!("SEEDS={text} is neither n nor a..b")),
        Err(_) => 0..usual,
    };
    note_panics();
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicU64::new(u64::MAX);
    let began = Instant::now();
    let failure = |seed: u64, how: &str| {
        let done = next.load(Ordering::Relaxed).min(seeds.end) - seeds.start;
        let seconds = began.elapsed().as_secs_f64();
        format!(
            "seed {seed} {how}, after {done} seeds in {seconds:.1} s; to repeat it:\n    \
             SEEDS={seed} cargo test -p {package} --lib {test}"
        )
    };
    let work = |slot: Slot| {
        SLOT.set(Some(Arc::clone(&slot)));
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || failed.load(Ordering::Relaxed) != u64::MAX {
                return;
            }
            *lock(&slot) = Work {
                seed: Some((seed, Instant::now())),
                panicked: None,
            };
            let result = catch_unwind(AssertUnwindSafe(|| simulate(seed)));
            if result.is_err() || lock(&slot).panicked.is_some() {
                failed.fetch_min(seed, Ordering::Relaxed);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min((seeds.end.saturating_sub(seeds.start)) as usize);
    let slots: Vec<Slot> = (0..threads).map(|_| Slot::default()).collect();
    std::thread::scope(|scope| {
        let (alive, ended) = mpsc::channel::<()>();
        for slot in &slots {
            let (slot, alive, work) = (Arc::clone(slot), alive.clone(), &work);
            scope.spawn(move || {
                work(slot);
                drop(alive);
            });
        }
        drop(alive);
        while ended.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
            for slot in &slots {
                let work = lock(slot);
                let Some((seed, since)) = work.seed else {
                    continue;
                };
                let panicked = work.panicked.is_some_and(|at| at.elapsed() > PANICKED);
                if panicked || since.elapsed() > STUCK {
                    // Its thread cannot be ended otherwise. Past the capture of the test's output.
                    let message = failure(seed, if panicked { "failed" } else { "is stuck" });
                    drop(writeln!(std::io::stderr(), "{message}"));
                    std::process::exit(101);
                }
            }
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    let done = next.load(Ordering::Relaxed).min(seeds.end) - seeds.start;
    let first = failed.load(Ordering::Relaxed);
    if first != u64::MAX {
        panic!("{}", failure(first, "failed"));
    }
    println!(
        "{package} {test}: {done} seeds in {seconds:.1} s, {:.0} a minute",
        done as f64 * 60.0 / seconds.max(0.001)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_named_one_by_one_or_from_to() {
        assert_eq!(wanted("7"), Some(7..8));
        assert_eq!(wanted("7..30"), Some(7..30));
        for text in ["", "x", "7..", "..8", "-1", "1...3"] {
            assert_eq!(wanted(text), None, "{text}");
        }
    }

    #[test]
    fn a_failing_seed_is_named() {
        let fail = |seed| assert!(seed != 17, "as this test wants it");
        let failure = catch_unwind(|| seeds("package", "module::test", 100, fail));
        let message = failure.expect_err("it fails");
        let message = message.downcast_ref::<String>().expect("a text");
        assert!(message.contains("seed 17 failed"), "{message}");
        let repeat = "SEEDS=17 cargo test -p package --lib module::test";
        assert!(message.contains(repeat), "{message}");
    }

    #[test]
    fn a_panic_that_somebody_catches_is_a_failure_too() {
        let fail = |seed| {
            drop(catch_unwind(|| assert!(seed != 3, "as this test wants it")));
        };
        assert!(catch_unwind(|| seeds("package", "test", 10, fail)).is_err());
    }
}

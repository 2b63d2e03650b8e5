//! Figures of one run, from what producers remember.

use super::load::{PARTITIONS, Sent};

const SECOND: u64 = 1_000_000_000;
/// Throughput is looked at in windows of this length.
const WINDOW: u64 = 2 * SECOND;
const STEP: u64 = SECOND / 4;
/// Which share of what is sent must be acknowledged in a window.
const ENOUGH: f64 = 0.9;

/// When things happened, in the run's nanoseconds.
#[derive(Clone, Copy)]
pub(crate) struct Marks {
    /// When the undisturbed time began.
    pub steady: u64,
    pub injected: u64,
    /// When what was broken worked again; a crash is over at once.
    pub healed: u64,
    /// When nothing new was sent any more.
    pub end: u64,
}

/// Figures, times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figures {
    /// The longest time that any partition was without an acknowledgement.
    pub gap: f64,
    /// From healing until throughput was back for good.
    pub back: f64,
    pub p99_before: f64,
    pub p99_during: f64,
}

fn milliseconds(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

fn p99(mut latencies: Vec<u64>) -> f64 {
    if latencies.is_empty() {
        return f64::NAN;
    }
    latencies.sort_unstable();
    milliseconds(latencies[(latencies.len() - 1) * 99 / 100])
}

/// The longest gap between acknowledgements in one partition that reaches behind `marks.injected`.
fn gap(acked: &[Sent], marks: &Marks) -> u64 {
    let of_partition = |partition| {
        let mut times: Vec<u64> = acked
            .iter()
            .filter(|sent| sent.partition == partition)
            .map(|sent| sent.ret)
            .collect();
        times.sort_unstable();
        times.push(times.last().copied().unwrap_or(0).max(marks.end));
        let pairs = times.windows(2);
        let late = pairs.filter(|pair| pair[1] > marks.injected && pair[0] < marks.end);
        late.map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    };
    (0..PARTITIONS).map(of_partition).max().unwrap_or(0)
}

/// The end of the last window after the fault in which too little was acknowledged.
fn last_slow_window(acked: &[Sent], rate: u32, marks: &Marks) -> Option<u64> {
    let mut times: Vec<u64> = acked.iter().map(|sent| sent.ret).collect();
    times.sort_unstable();
    let count = |from: u64, to: u64| {
        times.partition_point(|time| *time < to) - times.partition_point(|time| *time < from)
    };
    let wanted = f64::from(rate) * WINDOW as f64 / SECOND as f64 * ENOUGH;
    let windows = (marks.injected..marks.end.saturating_sub(WINDOW)).step_by(STEP as usize);
    let slow = windows.filter(|from| (count(*from, from + WINDOW) as f64) < wanted);
    slow.last().map(|from| from + WINDOW)
}

/// The figures of a run.
pub(crate) fn figures(sent: &[Sent], rate: u32, marks: &Marks) -> Figures {
    let acked: Vec<Sent> = sent
        .iter()
        .filter(|sent| sent.outcome.is_ok())
        .copied()
        .collect();
    let back = last_slow_window(&acked, rate, marks);
    let disturbed = back
        .unwrap_or(0)
        .max(marks.healed)
        .max(marks.injected + 5 * SECOND);
    let latencies = |from: u64, to: u64, until: u64| {
        let due = acked.iter().filter(|sent| (from..to).contains(&sent.due));
        let known = due.filter(|sent| sent.ret < until);
        p99(known
            .map(|sent| sent.ret.saturating_sub(sent.due))
            .collect())
    };
    Figures {
        gap: milliseconds(gap(&acked, marks)),
        back: milliseconds(back.map_or(0, |back| back.saturating_sub(marks.healed))),
        p99_before: latencies(marks.steady, marks.injected, marks.injected),
        p99_during: latencies(marks.injected, disturbed, u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred records a second and partition, each acknowledged after 5 ms; those that are due
    /// within the outage, at its end.
    fn run(outage: std::ops::Range<u64>) -> Vec<Sent> {
        let mut sent = Vec::new();
        for n in 0..3000 {
            for partition in 0..PARTITIONS {
                let due = n * SECOND / 100;
                let ret = if outage.contains(&due) {
                    outage.end
                } else {
                    due
                } + 5_000_000;
                sent.push(Sent {
                    producer: 0,
                    partition,
                    sequence: n as u32,
                    value: 0,
                    due,
                    invoke: due,
                    ret,
                    outcome: Ok(n as i64),
                });
            }
        }
        sent
    }

    const RATE: u32 = 100 * PARTITIONS as u32;

    #[test]
    fn an_outage_is_as_long_as_it_is() {
        let marks = Marks {
            steady: SECOND,
            injected: 10 * SECOND,
            healed: 10 * SECOND,
            end: 30 * SECOND,
        };
        let found = figures(&run(10 * SECOND..14 * SECOND), RATE, &marks);
        assert_eq!(found.p99_before, 5.0);
        assert!((4000.0..4020.0).contains(&found.gap), "{found:?}");
        // What had waited counts when it comes, so a window that ends then is fast again.
        assert!((3500.0..6000.0).contains(&found.back), "{found:?}");
        assert!((3900.0..4010.0).contains(&found.p99_during), "{found:?}");
    }

    #[test]
    fn nothing_happens_when_nothing_happens() {
        let marks = Marks {
            steady: SECOND,
            injected: 10 * SECOND,
            healed: 15 * SECOND,
            end: 29 * SECOND,
        };
        let found = figures(&run(0..0), RATE, &marks);
        assert_eq!((found.back, found.p99_during), (0.0, 5.0));
        assert!(found.gap < 15.0, "{found:?}");
    }

    #[test]
    fn one_partition_without_acknowledgements_to_the_end_is_a_gap() {
        let marks = Marks {
            steady: SECOND,
            injected: 10 * SECOND,
            healed: 10 * SECOND,
            end: 29 * SECOND,
        };
        let mut sent = run(0..0);
        sent.retain(|sent| sent.partition != 3 || sent.due < 20 * SECOND);
        let found = figures(&sent, RATE, &marks);
        assert!((8900.0..9100.0).contains(&found.gap), "{found:?}");
    }
}

//! What was written last is what is read, by anyone: for committed offsets, topics by name, and
//! settings.
//!
//! A read of `v` is refused if nobody can have written `v` yet, or if every write of `v` had ended
//! before something showed another value (an acknowledged write, or a read), and that had ended
//! before the read began. Writes that may have happened never end. These are necessary conditions
//! for a linearizable register, checked in O(n log n).

use std::collections::BTreeMap;

use crate::Time;

/// A value that was, or may have been, written.
pub(super) struct Write<V> {
    pub(super) value: V,
    pub(super) invoke: Time,
    /// After this it cannot take effect any more; [`Time::MAX`] for what may always.
    pub(super) end: Time,
}

/// A value that was certainly there at some time in an interval.
pub(super) struct Proof<V> {
    pub(super) value: V,
    pub(super) invoke: Time,
    pub(super) ret: Time,
    pub(super) event: usize,
}

/// Why a read cannot be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stale {
    /// Nobody had written it.
    Unwritten,
    /// This event had shown another value since.
    Overwritten(usize),
}

/// The latest proof of a value, and the latest of any other value.
type Latest<V> = [Option<(Time, V, usize)>; 2];

/// One register.
pub(super) struct Register<V> {
    /// Per value, by invoke: (invoke, the highest end so far).
    writes: BTreeMap<V, Vec<(Time, Time)>>,
    /// By ret: what proofs up to there show.
    proofs: Vec<(Time, Latest<V>)>,
}

impl<V: Ord + Clone> Register<V> {
    pub(super) fn new(writes: impl IntoIterator<Item = Write<V>>, proofs: Vec<Proof<V>>) -> Self {
        let mut by_value: BTreeMap<V, Vec<(Time, Time)>> = BTreeMap::new();
        for write in writes {
            let of_value = by_value.entry(write.value).or_default();
            of_value.push((write.invoke, write.end));
        }
        for of_value in by_value.values_mut() {
            of_value.sort_unstable();
            let mut highest = 0;
            for (_, end) in of_value {
                highest = highest.max(*end);
                *end = highest;
            }
        }
        let mut proofs = proofs;
        proofs.sort_by_key(|proof| proof.ret);
        let mut latest: Latest<V> = [None, None];
        let proofs = proofs
            .into_iter()
            .map(|proof| {
                learn(&mut latest, (proof.invoke, proof.value, proof.event));
                (proof.ret, latest.clone())
            })
            .collect();
        Self {
            writes: by_value,
            proofs,
        }
    }

    /// Whether `value` can be what a read from `invoke` to `ret` found.
    pub(super) fn judge(&self, value: &V, invoke: Time, ret: Time) -> Result<(), Stale> {
        let possible = self.writes.get(value).and_then(|writes| {
            let before = writes.partition_point(|write| write.0 <= ret);
            writes[..before].last()
        });
        let Some((_, end)) = possible else {
            return Err(Stale::Unwritten);
        };
        let before = self.proofs.partition_point(|(ret, _)| *ret < invoke);
        let Some((_, latest)) = self.proofs[..before].last() else {
            return Ok(());
        };
        match latest.iter().flatten().find(|proof| proof.1 != *value) {
            Some((since, _, event)) if end < since => Err(Stale::Overwritten(*event)),
            _ => Ok(()),
        }
    }
}

fn learn<V: Ord + Clone>(latest: &mut Latest<V>, proof: (Time, V, usize)) {
    let [first, second] = latest;
    let newer = |known: &Option<(Time, V, usize)>| known.as_ref().is_none_or(|k| proof.0 > k.0);
    if first.as_ref().is_some_and(|known| known.1 == proof.1) {
        if newer(first) {
            *first = Some(proof);
        }
    } else if newer(first) {
        *second = first.replace(proof);
    } else if newer(second) {
        *second = Some(proof);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(value: i32, invoke: Time, end: Time) -> Write<i32> {
        Write { value, invoke, end }
    }

    fn proof(value: i32, invoke: Time, ret: Time) -> Proof<i32> {
        Proof {
            value,
            invoke,
            ret,
            event: value as usize,
        }
    }

    #[test]
    fn reads_are_judged_by_what_can_have_been_written() {
        let register = Register::new(
            [
                write(1, 10, 20),
                write(2, 30, 40),
                write(3, 50, Time::MAX),
                write(1, 70, 80),
            ],
            vec![proof(1, 10, 20), proof(2, 30, 40), proof(1, 70, 80)],
        );
        let cases = [
            // Not yet written.
            (1, 5, 9, Err(Stale::Unwritten)),
            (2, 5, 29, Err(Stale::Unwritten)),
            (9, 90, 99, Err(Stale::Unwritten)),
            // While it is written, both.
            (1, 35, 36, Ok(())),
            (2, 35, 36, Ok(())),
            // Afterwards, only the later.
            (1, 41, 45, Err(Stale::Overwritten(2))),
            (2, 41, 45, Ok(())),
            // What may have happened may happen late.
            (3, 41, 55, Ok(())),
            (3, 90, 99, Ok(())),
            // Written again.
            (1, 41, 75, Ok(())),
            (1, 90, 99, Ok(())),
            (2, 90, 99, Err(Stale::Overwritten(1))),
        ];
        for (value, invoke, ret, expected) in cases {
            assert_eq!(
                register.judge(&value, invoke, ret),
                expected,
                "{value} in {invoke}..{ret}"
            );
        }
    }

    #[test]
    fn a_read_is_held_against_later_reads() {
        let register = Register::new(
            [write(1, 10, 20), write(2, 15, Time::MAX)],
            vec![proof(1, 10, 20), proof(2, 30, 31)],
        );
        assert_eq!(register.judge(&1, 25, 40), Ok(()));
        assert_eq!(register.judge(&1, 32, 40), Err(Stale::Overwritten(2)));
    }
}

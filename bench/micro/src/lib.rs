//! The inner loops of the broker, one by one, on inputs that are the same in every run.
//!
//! One list of [`cases`] serves two readers:
//!
//! - `cargo bench -p frazil-micro` has Criterion tell how long each takes on this machine;
//! - `frazil-micro count` has valgrind tell how many instructions each takes, and compares that with
//!   the figures accepted last ([`counts`]). Instructions are nearly the same on a busy machine and
//!   on a quiet one, so that CI can hold them.
//!
//! What a case calls is public elsewhere. Where the loop itself is private, the case is what stands
//! next to it: of an append to the write-ahead log the frames, whose bytes are then written and
//! synced; of a fetch what it asks the image, of which its plan is made.
//!
//! Invariant: a run of a case leaves things as it found them, so that the thousandth takes what the
//! first took.

pub mod cases;
pub mod counts;
pub mod state;

/// Something to be measured.
pub struct Case {
    /// Its name, `<what>/<how>`.
    pub name: &'static str,
    /// Bytes that one run goes through, where that is what it is about.
    pub bytes: Option<u64>,
    /// Makes its inputs.
    pub prepare: fn() -> Work,
}

/// One run. Its inputs are made.
pub type Work = Box<dyn FnMut()>;

/// The run whose instructions are counted: callgrind counts from entering this function to leaving
/// it, and finds it by its name.
#[inline(never)]
pub fn run_that_is_counted(work: &mut Work) {
    work();
    // What would let the call above become a jump, with nothing to leave.
    std::hint::black_box(());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_case_runs_twice_and_has_a_name_of_its_own() {
        let mut names = BTreeSet::new();
        for case in cases::all() {
            assert!(names.insert(case.name), "{} twice", case.name);
            let mut work = (case.prepare)();
            work();
            run_that_is_counted(&mut work);
        }
    }

    #[test]
    fn accepted_counts_are_of_the_cases_that_there_are() {
        let accepted = counts::Accepted::read().expect("counts.json");
        let names: BTreeSet<_> = cases::all().iter().map(|case| case.name).collect();
        let of: BTreeSet<_> = accepted.counts.keys().map(String::as_str).collect();
        assert_eq!(names, of, "frazil-micro count --accept");
    }
}

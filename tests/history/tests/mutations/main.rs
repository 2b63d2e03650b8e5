//! The checker, checked: clean histories from a reference model show nothing, and every way of
//! spoiling one is caught, on every seed.

mod model;
mod mutate;

use std::collections::BTreeSet;
use std::time::Instant;

use frazil_history::{History, Invariant, check};

/// Seeds per class; every one is also run unspoilt.
const SEEDS: u64 = 100;

fn show(history: &History) -> String {
    let found = check(history);
    let lines = found.iter().take(5).map(|found| found.explain(history));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn clean_histories_show_nothing() {
    let mut bad = Vec::new();
    for seed in 0..4 * SEEDS {
        let history = model::run(seed, 400);
        if !check(&history).is_empty() {
            bad.push(format!("seed {seed}:\n{}", show(&history)));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// A violation that anybody could see in a history must not depend on the order of its events.
#[test]
fn the_order_of_the_events_in_the_file_does_not_matter() {
    for seed in 0..20 {
        let mut history = model::run(seed, 400);
        history.events.reverse();
        assert!(
            check(&history).is_empty(),
            "seed {seed}:\n{}",
            show(&history)
        );
    }
}

/// How one class fared.
#[derive(Default)]
struct Tally {
    tried: u64,
    caught: u64,
    named: BTreeSet<Invariant>,
}

#[test]
fn every_mutation_is_caught_on_every_seed() {
    let mut tallies: Vec<Tally> = mutate::CLASSES.iter().map(|_| Tally::default()).collect();
    let mut missed = Vec::new();
    for seed in 0..SEEDS {
        let clean = model::run(seed, 400);
        for (class, tally) in mutate::CLASSES.iter().zip(&mut tallies) {
            let Some(spoilt) = (class.spoil)(&clean, seed) else {
                continue;
            };
            assert_ne!(spoilt, clean, "{} changes something", class.name);
            tally.tried += 1;
            let found: BTreeSet<Invariant> = check(&spoilt).iter().map(|v| v.invariant).collect();
            if class.expected.iter().any(|one| found.contains(one)) {
                tally.caught += 1;
            } else {
                missed.push(format!("{} with seed {seed}: {found:?}", class.name));
            }
            tally.named.extend(found);
        }
    }
    let mut report = String::new();
    for (class, tally) in mutate::CLASSES.iter().zip(&tallies) {
        report.push_str(&format!(
            "{:<62} {:>3} of {:>3} by {:?}\n",
            class.name, tally.caught, tally.tried, tally.named
        ));
        // A class that hardly ever applies is not tested.
        if tally.tried < SEEDS / 10 {
            missed.push(format!("{} applied to {} seeds", class.name, tally.tried));
        }
    }
    println!("{report}");
    assert!(missed.is_empty(), "{report}\n{missed:#?}");
}

/// Not a measurement: only that nothing is quadratic. A quadratic sweep would take hours.
#[test]
fn a_hundred_thousand_events_are_checked() {
    let history = model::run(7, 100_000);
    assert!(history.events.len() > 50_000, "{}", history.events.len());
    let start = Instant::now();
    assert!(check(&history).is_empty(), "{}", show(&history));
    println!("{} events in {:?}", history.events.len(), start.elapsed());
}

//! The pipeline against a model of everything around it, in any order of events.

use std::collections::BTreeMap;

use frazil_core::BrokerId;
use proptest::prelude::*;

use super::*;
use crate::Config;
use crate::config::PutBudget;
use crate::testing::partition;
use crate::testing::quorum::State;

const BROKER: BrokerId = BrokerId(1);

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Append {
        partition: i32,
        local: bool,
        length: u32,
    },
    Pass(u64),
    Flush,
    /// One of the uploads ends.
    Uploaded(usize),
    /// One of them finds its name taken.
    NameTaken(usize),
    Synced,
    SyncFailed {
        for_good: bool,
    },
    Committed,
    CommitUnknown {
        happened: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..3, prop::bool::weighted(0.6), 100_u32..3_000)
            .prop_map(|(partition, local, length)| Step::Append { partition, local, length }),
        3 => (0_u64..50).prop_map(Step::Pass),
        1 => Just(Step::Flush),
        4 => any::<usize>().prop_map(Step::Uploaded),
        1 => any::<usize>().prop_map(Step::NameTaken),
        4 => Just(Step::Synced),
        1 => prop::bool::weighted(0.1).prop_map(|for_good| Step::SyncFailed { for_good }),
        4 => Just(Step::Committed),
        1 => any::<bool>().prop_map(|happened| Step::CommitUnknown { happened }),
    ];
    prop::collection::vec(step, 1..150)
}

struct Upload {
    seal: u64,
    id: SegmentId,
    batches: Vec<(Ticket, TopicPartition)>,
}

struct World {
    pipeline: Pipeline,
    state: State,
    now: Duration,
    /// Length of each batch.
    lengths: Vec<u32>,
    answers: BTreeMap<Ticket, Result<Appended, AppendError>>,
    settled: Vec<Ticket>,
    uploads: Vec<Upload>,
    names: Vec<SegmentId>,
    writing: Option<Vec<(Ticket, TopicPartition)>>,
    wal_end: u64,
    truncated: u64,
    commit: Option<Commit>,
}

impl World {
    fn new() -> Self {
        Self::with(None)
    }

    fn with(past_log_bytes: Option<usize>) -> Self {
        let mut state = State::new((0..3).map(partition));
        let epoch = state.register(BROKER);
        let policy = Policy::new(&Config {
            put_budget: Some(PutBudget {
                per_second: 100.0,
                burst: 1,
            }),
            segment_bytes: 5_000,
            linger: Duration::from_millis(40),
            uploads_max: 3,
            past_log_bytes,
            ..Config::remote()
        });
        Self {
            pipeline: Pipeline::new(BROKER, epoch, policy, Some(30_000)),
            state,
            now: Duration::ZERO,
            lengths: Vec::new(),
            answers: BTreeMap::new(),
            settled: Vec::new(),
            uploads: Vec::new(),
            names: Vec::new(),
            writing: None,
            wal_end: 0,
            truncated: 0,
            commit: None,
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Upload { seal, id, batches } => {
                    assert!(!self.names.contains(&id), "a name twice");
                    self.names.push(id);
                    self.uploads.push(Upload { seal, id, batches });
                }
                Effect::WriteWal(batches) => assert!(self.writing.replace(batches).is_none()),
                Effect::Commit(commit) => assert!(self.commit.replace(commit).is_none()),
                Effect::Answer(ticket, answer) => {
                    let before = self.answers.insert(ticket, answer);
                    assert_eq!(before, None, "answered twice");
                }
                Effect::Settled { tickets } => {
                    for ticket in &tickets {
                        assert!(self.answers.contains_key(ticket), "settled unanswered");
                    }
                    self.settled.extend(tickets);
                }
                Effect::TruncateWal(below) => {
                    assert!(below > self.truncated && below <= self.wal_end);
                    self.truncated = below;
                    for (_, extent) in self.state.wal_extents(BROKER) {
                        let Location::Wal { start, .. } = extent.location else {
                            unreachable!("it is in the log");
                        };
                        assert!(start >= below, "{extent:?} is cut off at {below}");
                    }
                }
            }
        }
    }

    fn pump(&mut self) {
        let (effects, _) = self.pipeline.pump(self.now);
        self.perform(effects);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Append {
                partition: index,
                local,
                length,
            } => {
                let ticket = self.lengths.len() as Ticket;
                self.lengths.push(*length);
                let info = BatchInfo {
                    length: *length,
                    records: 1 + ticket as u32 % 3,
                    max_timestamp: 0,
                    producer: None,
                };
                let durability = match local {
                    true => Durability::Local,
                    false => Durability::Object,
                };
                let to = partition(*index);
                let staged = self.pipeline.stage(ticket, to, info, durability, self.now);
                if let Err(error) = staged {
                    assert!(local, "only the log is ever full");
                    self.answers.insert(ticket, Err(error));
                    self.settled.push(ticket);
                }
            }
            Step::Pass(ms) => self.now += Duration::from_millis(*ms),
            Step::Flush => drop(self.pipeline.flush()),
            Step::Uploaded(index) if !self.uploads.is_empty() => {
                let upload = self.uploads.remove(index % self.uploads.len());
                self.uploaded(&upload);
            }
            Step::NameTaken(index) if !self.uploads.is_empty() => {
                let upload = self.uploads.remove(index % self.uploads.len());
                let again = self.pipeline.name_taken(upload.seal);
                self.perform(vec![again]);
            }
            Step::Synced => {
                if let Some(batches) = self.writing.take() {
                    let (positions, end) = lay_out(&batches, &self.lengths, self.wal_end + 50);
                    self.wal_end = end;
                    self.pipeline.wal_synced(&positions, end);
                }
            }
            Step::SyncFailed { for_good } => {
                if let Some(batches) = self.writing.take() {
                    (_, self.wal_end) = lay_out(&batches, &self.lengths, self.wal_end);
                    self.pipeline.wal_failed(*for_good, self.now);
                }
            }
            Step::Committed => {
                if let Some(commit) = self.commit.take() {
                    let outcome = self.state.apply(&commit).expect("not fenced");
                    let effects = self.pipeline.committed(&outcome);
                    self.perform(effects);
                }
            }
            Step::CommitUnknown { happened } => {
                if let Some(commit) = self.commit.take() {
                    self.unknown(&commit, *happened);
                }
            }
            Step::Uploaded(_) | Step::NameTaken(_) => {}
        }
        self.pump();
    }

    fn uploaded(&mut self, upload: &Upload) {
        let (starts, end) = lay_out(&upload.batches, &self.lengths, 16);
        assert!(
            end < 16 + 2 * 5_000,
            "segment {} has {end} bytes",
            upload.id
        );
        let starts = starts.into_iter().map(|start| start as u32).collect();
        self.pipeline.uploaded(upload.seal, starts, end);
    }

    fn unknown(&mut self, commit: &Commit, happened: bool) {
        if happened {
            self.state.apply(commit).expect("not fenced");
        }
        let fence = Commit {
            segments: Vec::new(),
            appends: Vec::new(),
            moves: Vec::new(),
            ..*commit
        };
        self.state.apply(&fence).expect("not fenced");
        let wal = self.state.wal_extents(BROKER);
        let effects = self.pipeline.commit_unknown("lost", &wal, self.now);
        self.perform(effects);
    }

    /// Lets everything end well.
    fn finish(&mut self) {
        let mut rounds = 0;
        while self.settled.len() < self.lengths.len() {
            rounds += 1;
            assert!(rounds < 1_000, "it does not end");
            for upload in std::mem::take(&mut self.uploads) {
                self.uploaded(&upload);
            }
            for step in [Step::Flush, Step::Synced, Step::Committed, Step::Pass(50)] {
                self.step(&step);
            }
        }
    }
}

/// Batches grouped by partition, each partition's back to back, as both the segment and the log
/// lay them out: where each begins, and the end of all.
fn lay_out(batches: &[(Ticket, TopicPartition)], lengths: &[u32], from: u64) -> (Vec<u64>, u64) {
    let mut order: Vec<usize> = (0..batches.len()).collect();
    order.sort_by_key(|&at| batches[at].1);
    let mut starts = vec![0; batches.len()];
    let mut end = from;
    for at in order {
        starts[at] = end;
        end += u64::from(lengths[batches[at].0 as usize]);
    }
    (starts, end)
}

fn check(steps: &[Step]) {
    check_with(None, steps);
}

fn check_with(past_log_bytes: Option<usize>, steps: &[Step]) {
    let mut world = World::with(past_log_bytes);
    let mut sent: Vec<(Ticket, i32)> = Vec::new();
    for step in steps {
        if let Step::Append { partition, .. } = step {
            sent.push((sent.len() as Ticket, *partition));
        }
        world.step(step);
    }
    world.finish();
    world.settled.sort_unstable();
    let tickets: Vec<Ticket> = (0..world.lengths.len() as Ticket).collect();
    assert_eq!(world.settled, tickets, "each batch is settled once");
    assert_eq!(world.state.wal_extents(BROKER), Vec::new());
    assert_eq!(world.pipeline.wal_held(), 0);
    let pipeline = &world.pipeline;
    assert!(pipeline.awaiting.is_empty() && pipeline.groups.is_empty());
    assert_eq!(
        world.truncated, pipeline.wal.synced,
        "nothing is kept for ever"
    );
    for index in 0..3 {
        let offsets = sent.iter().filter(|(_, to)| *to == index);
        let offsets = offsets.filter_map(|(ticket, _)| match &world.answers[ticket] {
            Ok(appended) => Some(appended.base_offset),
            Err(_) => None,
        });
        let offsets: Vec<Offset> = offsets.collect();
        assert!(offsets.is_sorted(), "partition {index}: {offsets:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// The model of the quorum also checks every commit: whole extents are moved, names are used
    /// once and not after they were sealed, lengths agree.
    #[test]
    fn any_order_of_events_keeps_the_promises(steps in steps()) {
        check(&steps);
    }

    /// Also if large groups go past the log.
    #[test]
    fn groups_that_pass_the_log_keep_the_promises(steps in steps(), least in 100_usize..6_000) {
        check_with(Some(least), &steps);
    }
}

#[test]
fn batches_staged_again_do_not_cut_the_extent_of_a_group() {
    let append = |partition, local, length| Step::Append {
        partition,
        local,
        length,
    };
    check(&[
        append(0, true, 182),
        append(1, false, 1_986),
        Step::Synced,
        append(1, false, 1_029),
        append(1, false, 1_547),
        Step::Committed,
        Step::Uploaded(0),
        append(2, true, 100),
        append(0, true, 100),
        Step::CommitUnknown { happened: false },
        append(0, true, 100),
        append(0, false, 100),
        Step::Committed,
    ]);
}

#[test]
fn a_fenced_pipeline_answers_everything_and_says_what_it_does_not_know() {
    let mut world = World::new();
    let append = |local| Step::Append {
        partition: i32::from(local),
        local,
        length: 100,
    };
    world.step(&append(true));
    world.step(&Step::Synced);
    assert!(world.commit.is_some(), "the first batch is being committed");
    world.step(&append(false));
    let effects = world.pipeline.fenced("newer", true);
    world.perform(effects);
    assert!(matches!(
        world.answers[&0],
        Err(AppendError::Indeterminate(_))
    ));
    assert!(matches!(world.answers[&1], Err(AppendError::Fenced(_))));
}

#[test]
fn a_backlog_is_committed_in_several_commands() {
    let mut world = World::new();
    let mut largest = 0;
    for ticket in 0..20_000 {
        let info = BatchInfo {
            length: 100,
            records: 1,
            max_timestamp: 0,
            producer: None,
        };
        world.lengths.push(100);
        let staged =
            world
                .pipeline
                .stage(ticket, partition(0), info, Durability::Object, world.now);
        assert_eq!(staged, Ok(()));
    }
    world.pump();
    while world.settled.len() < 20_000 {
        for upload in std::mem::take(&mut world.uploads) {
            world.uploaded(&upload);
        }
        world.pump();
        let commit = world.commit.as_ref().expect("all is uploaded");
        largest = largest.max(commit.appends.iter().map(|a| a.batches.len()).sum());
        world.step(&Step::Flush);
        world.step(&Step::Committed);
    }
    assert!((4_000..=8_192).contains(&largest), "{largest}");
}

#[test]
fn a_segment_has_no_more_batches_than_a_commit_may() {
    let policy = Policy::new(&Config::remote());
    let mut pipeline = Pipeline::new(BROKER, BrokerEpoch(1), policy, None);
    let batches = COMMIT_BATCHES_MAX + 1;
    for ticket in 0..batches as u64 {
        let info = BatchInfo {
            length: 70,
            records: 1,
            max_timestamp: 0,
            producer: None,
        };
        let staged = pipeline.stage(
            ticket,
            partition(0),
            info,
            Durability::Object,
            Duration::ZERO,
        );
        staged.unwrap();
    }
    let (effects, _) = pipeline.pump(Duration::ZERO);
    let uploads = effects.iter().filter_map(|effect| match effect {
        Effect::Upload { batches, .. } => Some(batches.len()),
        _ => None,
    });
    assert_eq!(uploads.collect::<Vec<_>>(), [COMMIT_BATCHES_MAX]);
}

#[test]
fn what_gathers_behind_the_log_passes_it_until_less_comes() {
    let mut world = World::with(Some(2_000));
    let append = |partition| Step::Append {
        partition,
        local: true,
        length: 1_000,
    };
    world.step(&append(0));
    assert_eq!(
        world.writing.as_ref().map(Vec::len),
        Some(1),
        "the log is free"
    );
    // Less than that waits for the log; as much does not.
    world.step(&append(1));
    assert_eq!(world.pipeline.wal_held(), 2_000);
    world.step(&append(2));
    assert_eq!(world.pipeline.wal_held(), 1_000);
    world.step(&Step::Pass(5));
    assert_eq!(world.uploads.len(), 1, "sealed at once");
    // Behind those that pass it, a small group waits, and is in the log afterwards.
    world.step(&Step::Synced);
    world.step(&Step::Committed);
    world.step(&append(1));
    assert!(world.writing.is_none());
    world.step(&Step::Uploaded(0));
    world.step(&Step::Committed);
    assert_eq!(world.writing.as_ref().map(Vec::len), Some(1));
    assert_eq!(world.answers.len(), 3);
    world.finish();
}

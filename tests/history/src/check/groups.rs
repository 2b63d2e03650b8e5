//! What members of groups were given, delivered and committed: I23-I27.

use std::collections::{BTreeMap, BTreeSet};

use super::index::{Committed, GroupFacts, Index, Joined, Polled};
use super::register::{Proof, Register, Stale, Write};
use super::{Invariant, Report};
use crate::{Client, Group, Time, TopicPartition};

pub(super) fn check(index: &Index<'_>, report: &mut Report) {
    let starts = Starts::new(index);
    for (group, facts) in &index.groups {
        let fences = Fences::new(&facts.joined);
        check_owners(*group, facts, &fences, report);
        let registers = registers(facts, &fences);
        for (event, invoke, ret, at, offset) in &facts.fetched {
            let register = &registers[at];
            match register.judge(offset, *invoke, *ret) {
                Ok(()) => {}
                Err(Stale::Unwritten) => report.add(Invariant::I25, &[*event], || {
                    format!("{group:?} {at:?}: {offset} was fetched, and never committed")
                }),
                Err(Stale::Overwritten(since)) => {
                    report.add(Invariant::I25, &[since, *event], || {
                        format!("{group:?} {at:?}: {offset} was fetched after another commit")
                    });
                }
            }
        }
        check_polls(*group, facts, index, report);
        check_assignments(*group, facts, &registers, &starts, report);
        check_delivery(*group, facts, &starts, report);
    }
}

/// When which generation was certainly over.
struct Fences {
    /// By ret of joins: the highest generation known by then, and the event.
    reached: Vec<(Time, i32, usize)>,
    /// By generation: the earliest time at which a higher or equal one was known.
    over: Vec<(i32, Time)>,
}

impl Fences {
    fn new(joined: &[Joined<'_>]) -> Self {
        let mut reached: Vec<(Time, i32, usize)> = joined
            .iter()
            .filter_map(|join| Some((join.ret, join.generation?, join.event)))
            .collect();
        reached.sort_unstable();
        let mut over: Vec<(i32, Time)> = reached
            .iter()
            .map(|(ret, generation, _)| (*generation, *ret))
            .collect();
        over.sort_unstable();
        let mut earliest = Time::MAX;
        for (_, ret) in over.iter_mut().rev() {
            earliest = earliest.min(*ret);
            *ret = earliest;
        }
        let mut highest = (i32::MIN, 0);
        for (_, generation, event) in &mut reached {
            if *generation > highest.0 {
                highest = (*generation, *event);
            }
            (*generation, *event) = highest;
        }
        Self { reached, over }
    }

    /// The highest generation known strictly before an instant.
    fn before(&self, instant: Time) -> Option<(i32, usize)> {
        let index = self.reached.partition_point(|step| step.0 < instant);
        let (_, generation, event) = self.reached[..index].last()?;
        Some((*generation, *event))
    }

    /// When a generation was certainly superseded.
    fn end(&self, generation: Option<i32>) -> Time {
        let Some(generation) = generation else {
            return Time::MAX;
        };
        let index = self.over.partition_point(|step| step.0 <= generation);
        self.over.get(index).map_or(Time::MAX, |step| step.1)
    }
}

/// I27.
fn check_owners(group: Group, facts: &GroupFacts<'_>, fences: &Fences, report: &mut Report) {
    let mut owners: BTreeMap<(i32, TopicPartition), (Client, usize)> = BTreeMap::new();
    for join in &facts.joined {
        let Some(generation) = join.generation else {
            continue;
        };
        for at in join.partitions {
            let owner = (join.client, join.event);
            let known = owners.entry((generation, *at)).or_insert(owner);
            if known.0 != owner.0 {
                report.add(Invariant::I27, &[known.1, owner.1], || {
                    format!(
                        "{group:?} {at:?}: {:?} and {:?} own it in generation {generation}",
                        known.0, owner.0
                    )
                });
            }
        }
        refuse_stale(
            group,
            "joined",
            generation,
            join.invoke,
            join.event,
            fences,
            report,
        );
    }
    for commit in facts.committed.iter().filter(|commit| commit.acked) {
        if let Some(generation) = commit.generation {
            let (invoke, event) = (commit.invoke, commit.event);
            refuse_stale(
                group,
                "committed",
                generation,
                invoke,
                event,
                fences,
                report,
            );
        }
    }
}

fn refuse_stale(
    group: Group,
    what: &str,
    generation: i32,
    invoke: Time,
    event: usize,
    fences: &Fences,
    report: &mut Report,
) {
    if let Some((newer, since)) = fences.before(invoke)
        && newer > generation
    {
        report.add(Invariant::I27, &[since, event], || {
            format!("{group:?}: generation {generation} {what} after {newer} had begun")
        });
    }
}

/// Committed offsets, per partition; -1 is none.
fn registers(facts: &GroupFacts<'_>, fences: &Fences) -> BTreeMap<TopicPartition, Register<i64>> {
    type Access = (Vec<Write<i64>>, Vec<Proof<i64>>);
    let mut accesses: BTreeMap<TopicPartition, Access> = BTreeMap::new();
    for commit in &facts.committed {
        let (writes, proofs) = accesses.entry(commit.at).or_default();
        writes.push(Write {
            value: commit.offset,
            invoke: commit.invoke,
            end: end_of(commit, fences),
        });
        if commit.acked {
            proofs.push(Proof {
                value: commit.offset,
                invoke: commit.invoke,
                ret: commit.ret,
                event: commit.event,
            });
        }
    }
    for (event, invoke, ret, at, offset) in &facts.fetched {
        let (_, proofs) = accesses.entry(*at).or_default();
        proofs.push(Proof {
            value: *offset,
            invoke: *invoke,
            ret: *ret,
            event: *event,
        });
    }
    for poll in &facts.polled {
        accesses.entry(poll.at).or_default();
    }
    let none = || Write {
        value: -1,
        invoke: 0,
        end: 0,
    };
    accesses
        .into_iter()
        .map(|(at, (writes, proofs))| {
            (
                at,
                Register::new(writes.into_iter().chain([none()]), proofs),
            )
        })
        .collect()
}

fn end_of(commit: &Committed, fences: &Fences) -> Time {
    if commit.acked {
        commit.ret
    } else {
        fences.end(commit.generation).max(commit.ret)
    }
}

/// How high each partition's log start can ever have been.
struct Starts(BTreeMap<TopicPartition, i64>);

impl Starts {
    fn new(index: &Index<'_>) -> Self {
        let highest = |log: &super::index::Log<'_>| {
            let reads = log.reads.iter().filter_map(|read| read.log_start);
            let cuts = log.cuts.iter().map(|cut| cut.before);
            let cuts = cuts.map(|before| if before < 0 { i64::MAX } else { before });
            let listed = log
                .listed
                .iter()
                .filter(|l| l.list == crate::List::Earliest);
            let listed = listed.filter_map(|listed| listed.offset);
            reads.chain(cuts).chain(listed).max().unwrap_or(0)
        };
        let starts = index.logs.iter().map(|(at, log)| {
            let retention = index.topic(at.topic).retention;
            (*at, if retention { i64::MAX } else { highest(log) })
        });
        Self(starts.collect())
    }

    fn highest(&self, at: TopicPartition) -> i64 {
        self.0.get(&at).copied().unwrap_or(0)
    }
}

/// I23.
fn check_polls(group: Group, facts: &GroupFacts<'_>, index: &Index<'_>, report: &mut Report) {
    for poll in &facts.polled {
        if index.topic(poll.at.topic).gaps {
            continue;
        }
        for pair in poll.records.windows(2) {
            let [before, after] = [pair[0].offset, pair[1].offset];
            if after != before + 1 {
                report.add(Invariant::I23, &[poll.event], || {
                    format!(
                        "{group:?} {:?}: {after} follows {before} in a poll",
                        poll.at
                    )
                });
            }
        }
    }
}

/// A step of a member.
enum Step<'a> {
    Join(&'a Joined<'a>),
    Revoke(&'a [TopicPartition]),
    Poll(&'a Polled<'a>),
}

/// I24: a member goes on where it was; in a new assignment, where the group had committed, or at
/// the log start.
fn check_assignments(
    group: Group,
    facts: &GroupFacts<'_>,
    registers: &BTreeMap<TopicPartition, Register<i64>>,
    starts: &Starts,
    report: &mut Report,
) {
    let mut members: BTreeMap<Client, Vec<(Time, Step<'_>)>> = BTreeMap::new();
    let mut add = |client, time, step| members.entry(client).or_default().push((time, step));
    for join in &facts.joined {
        add(join.client, join.ret, Step::Join(join));
    }
    for (invoke, client, partitions) in &facts.revoked {
        add(*client, *invoke, Step::Revoke(partitions));
    }
    for poll in &facts.polled {
        add(poll.client, poll.ret, Step::Poll(poll));
    }
    for steps in members.values_mut() {
        steps.sort_by_key(|step| step.0);
        // Per partition: the next offset due, and since when it may be read afresh.
        let mut due: BTreeMap<TopicPartition, (i64, usize)> = BTreeMap::new();
        let mut fresh: BTreeMap<TopicPartition, Time> = BTreeMap::new();
        for (_, step) in steps {
            match step {
                Step::Join(join) => {
                    let owned: BTreeSet<_> = join.partitions.iter().collect();
                    due.retain(|at, _| owned.contains(at));
                    fresh.extend(join.partitions.iter().map(|at| (*at, join.invoke)));
                }
                Step::Revoke(partitions) => {
                    for at in *partitions {
                        due.remove(at);
                    }
                }
                Step::Poll(poll) => {
                    let first = poll.records[0].offset;
                    let last = poll.records[poll.records.len() - 1].offset;
                    let before = due.insert(poll.at, (last + 1, poll.event));
                    let since = fresh.remove(&poll.at);
                    if let Some((next, event)) = before {
                        let deleted = first > next && first <= starts.highest(poll.at);
                        if first == next || deleted {
                            continue;
                        }
                        if since.is_none() {
                            report.add(Invariant::I24, &[event, poll.event], || {
                                let at = poll.at;
                                format!("{group:?} {at:?}: {first} was polled where {next} was due")
                            });
                            continue;
                        }
                    }
                    let Some(since) = since else {
                        continue;
                    };
                    let register = &registers[&poll.at];
                    let reset = first == 0 && register.judge(&-1, since, poll.ret).is_ok();
                    let deleted = first > 0 && first <= starts.highest(poll.at);
                    if !reset && !deleted && register.judge(&first, since, poll.ret).is_err() {
                        report.add(Invariant::I24, &[poll.event], || {
                            let at = poll.at;
                            format!("{group:?} {at:?}: an assignment began at {first}, which was not committed")
                        });
                    }
                }
            }
        }
    }
}

/// I26: below what is committed, everything was delivered.
///
/// A group begins where its first poll does.
fn check_delivery(group: Group, facts: &GroupFacts<'_>, starts: &Starts, report: &mut Report) {
    let mut of_partition: BTreeMap<TopicPartition, Vec<&Polled<'_>>> = BTreeMap::new();
    for poll in &facts.polled {
        of_partition.entry(poll.at).or_default().push(poll);
    }
    let mut commits: BTreeMap<TopicPartition, Vec<&Committed>> = BTreeMap::new();
    for commit in facts.committed.iter().filter(|c| c.generation.is_some()) {
        commits.entry(commit.at).or_default().push(commit);
    }
    for (at, mut commits) in commits {
        let polls = of_partition.entry(at).or_default();
        polls.sort_by_key(|poll| poll.invoke);
        commits.sort_by_key(|commit| commit.ret);
        let mut polls = polls.iter().peekable();
        let mut reached: Option<i64> = None;
        let mut beyond: BTreeMap<i64, i64> = BTreeMap::new();
        for commit in commits {
            while let Some(poll) = polls.next_if(|poll| poll.invoke <= commit.ret) {
                let first = poll.records[0].offset;
                let next = poll.records[poll.records.len() - 1].offset + 1;
                reached.get_or_insert(first);
                let end = beyond.entry(first).or_insert(next);
                *end = next.max(*end);
            }
            let Some(mut end) = reached else {
                continue;
            };
            while let Some((first, next)) = beyond.pop_first() {
                if first > end.max(starts.highest(at)) {
                    beyond.insert(first, next);
                    break;
                }
                end = end.max(next);
            }
            reached = Some(end);
            if commit.offset > end.max(starts.highest(at)) {
                report.add(Invariant::I26, &[commit.event], || {
                    let offset = commit.offset;
                    format!("{group:?} {at:?}: {offset} was committed, {end} was delivered")
                });
            }
        }
    }
}

//! Consumer groups, as stories in `groups.txt`.
//!
//! Each line is a command, `->` and its outcome; lines are applied in order to one state per story
//! (`#` begins one). See [`Story::run`] for the words.

use std::collections::BTreeMap;
use std::fmt::Write;

use frazil_core::group::{CommittedOffset, Coordinator, Group, Member};
use frazil_core::ports::{GroupClaim, GroupRefusal};

use super::*;

struct Story {
    world: World,
    /// By name.
    gateways: BTreeMap<String, Gateway>,
    /// The claim each gateway has of each group.
    claims: BTreeMap<(String, String), Coordinator>,
}

fn refusal(result: Result<(), GroupRefusal>) -> String {
    match result {
        Ok(()) => "ok".to_owned(),
        Err(refusal) => format!("{refusal:?}"),
    }
}

fn member() -> Member {
    Member {
        instance_id: None,
        client_id: "client".to_owned(),
        client_host: "/10.0.0.9".to_owned(),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 300_000,
        protocols: vec![("range".to_owned(), vec![1, 2, 3].into())],
        assignment: vec![4, 5].into(),
    }
}

/// `one-0` or `two-1`.
fn parse_partition(word: &str) -> TopicPartition {
    let (topic, index) = word.split_once('-').expect("topic-partition");
    let topic = match topic {
        "one" => 1,
        "two" => 2,
        _ => 9,
    };
    partition(topic, index.parse().expect("a partition"))
}

impl Story {
    fn new() -> Self {
        let mut world = World::new();
        world.apply(Command::CreateTopic(new_topic(1, "one", 2)));
        world.apply(Command::CreateTopic(new_topic(2, "two", 2)));
        Self {
            world,
            gateways: BTreeMap::new(),
            claims: BTreeMap::new(),
        }
    }

    fn claim_of(&self, gateway: &str, group: &str) -> GroupClaim {
        let key = (gateway.to_owned(), group.to_owned());
        let none = Coordinator {
            broker: BrokerId(99),
            broker_epoch: BrokerEpoch(99),
            epoch: 99,
        };
        GroupClaim {
            group: group.to_owned(),
            coordinator: self.claims.get(&key).copied().unwrap_or(none),
        }
    }

    /// One command; the gateway that sends it comes first, the group second.
    fn run(&mut self, line: &str) -> String {
        let words: Vec<_> = line.split_whitespace().collect();
        let command = match words[..] {
            ["wait", ms] => {
                self.world.now_ms += ms.parse::<i64>().expect("milliseconds");
                return "ok".to_owned();
            }
            ["show", group] => return self.show(group),
            ["list"] => return self.world.state.groups(None).join(" "),
            ["list", gateway] => {
                let id = self.gateways[gateway].id;
                return self.world.state.groups(Some(id)).join(" ");
            }
            ["expire", age] => {
                let before = self.world.now_ms - age.parse::<i64>().expect("milliseconds");
                Command::Expire {
                    producers_before_ms: 0,
                    offsets_before_ms: before,
                }
            }
            ["delete-topic", topic] => Command::DeleteTopic {
                id: parse_partition(&format!("{topic}-0")).topic,
            },
            [name, "starts"] => {
                let old = self.gateways.get(name).map(|gateway| gateway.id);
                let incarnation = u128::from(self.world.index) + 1;
                let gateway = self.world.register(old, incarnation);
                self.gateways.insert(name.to_owned(), gateway);
                return "ok".to_owned();
            }
            [name, "sealed"] => Command::SealEpoch {
                epoch: self.gateways[name].epoch,
            },
            [name, "claims", group] => {
                let Gateway { id: broker, epoch } = self.gateways[name];
                return match self.world.apply(Command::ClaimGroup {
                    group: group.to_owned(),
                    broker,
                    epoch,
                }) {
                    Outcome::GroupClaimed {
                        coordinator,
                        group: found,
                    } => {
                        let key = (name.to_owned(), group.to_owned());
                        self.claims.insert(key, coordinator);
                        format!("generation {}", found.generation)
                    }
                    other => format!("{other:?}"),
                };
            }
            // NAME saves GROUP GENERATION MEMBERS…
            [name, "saves", group, generation, ref members @ ..] => Command::SaveGroup {
                claim: self.claim_of(name, group),
                group: Group {
                    protocol_type: "consumer".to_owned(),
                    generation: generation.parse().expect("a generation"),
                    protocol: members.first().map(|_| "range".to_owned()),
                    leader: members.first().map(|&leader| leader.to_owned()),
                    members: members
                        .iter()
                        .map(|&id| (id.to_owned(), member()))
                        .collect(),
                },
            },
            // NAME commits GROUP MEMBER/GENERATION PARTITION=OFFSET… (`nobody`: no member)
            [name, "commits", group, member, ref offsets @ ..] => Command::CommitOffsets {
                claim: self.claim_of(name, group),
                member: member.split_once('/').map(|(id, generation)| {
                    (generation.parse().expect("a generation"), id.to_owned())
                }),
                offsets: offsets
                    .iter()
                    .map(|word| {
                        let (partition, offset) = word.split_once('=').expect("p=offset");
                        let offset = CommittedOffset {
                            offset: Offset(offset.parse().expect("an offset")),
                            leader_epoch: 0,
                            metadata: "note".to_owned(),
                            committed_ms: -1,
                        };
                        (parse_partition(partition), offset)
                    })
                    .collect(),
            },
            [name, "forgets", group, ref partitions @ ..] => Command::DeleteOffsets {
                claim: self.claim_of(name, group),
                partitions: partitions
                    .iter()
                    .map(|word| parse_partition(word))
                    .collect(),
            },
            [name, "deletes", group] => Command::DeleteGroup {
                claim: self.claim_of(name, group),
            },
            _ => panic!("not a command: {line}"),
        };
        match self.world.apply(command) {
            Outcome::Group(result) => refusal(result),
            Outcome::Done | Outcome::Catalog(Ok(())) => "ok".to_owned(),
            other => format!("{other:?}"),
        }
    }

    fn show(&self, group: &str) -> String {
        let Some((found, coordinator)) = self.world.state.group(group) else {
            return "nothing".to_owned();
        };
        let coordinator = coordinator.expect("a claim");
        let mut text = format!(
            "gateway {} generation {}",
            coordinator.broker, found.generation
        );
        for member in found.members.keys() {
            write!(text, " {member}").expect("a string");
        }
        for (partition, offset) in self.world.state.offsets(group) {
            let topic = self
                .world
                .state
                .topic_by_id(partition.topic)
                .expect("a topic");
            let (name, index) = (&topic.name, partition.partition);
            let committed_ms = offset.committed_ms;
            write!(text, " {name}-{index}={}@{committed_ms}", offset.offset).expect("a string");
            let single = self.world.state.offset(group, &partition);
            assert_eq!(single.as_ref(), Some(&offset));
        }
        text
    }
}

#[test]
fn stories() {
    let mut story = Story::new();
    let mut commands = 0;
    for (number, line) in (1..).zip(include_str!("groups.txt").lines()) {
        if line.starts_with('#') {
            story = Story::new();
        } else if let Some((command, expected)) = line.split_once("->") {
            let outcome = story.run(command.trim());
            assert_eq!(outcome, expected.trim(), "groups.txt:{number}: {line}");
            commands += 1;
        } else {
            assert_eq!(line.trim(), "", "groups.txt:{number}");
        }
    }
    assert!(commands > 80, "the stories are there");
}

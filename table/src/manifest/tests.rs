use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use frazil_core::TopicId;
use frazil_core::batch::Codec;
use frazil_core::env::testing::{check_golden, golden};
use proptest::prelude::*;
use uuid::Uuid;

use super::edit::Shape;
use super::*;

const PARTITION: TopicPartition = TopicPartition::new(TopicId::new(Uuid::from_u128(5)), 3);
const SMALL: Shape = Shape { leaf: 3, fanout: 2 };

fn group(base: i64, end: i64, number: u64) -> GroupRef {
    GroupRef {
        base: Offset(base),
        end: Offset(end),
        file: ObjectId::new(9, number),
        partition: PARTITION.partition,
        start: 4 + number,
        length: 1000,
        index_length: 100,
        index_crc: number as u32,
        records: 1,
        min_timestamp: base,
        max_timestamp: 10 * base,
        codec: None,
    }
}

/// A bucket of manifests, and what the manifest in it should hold.
#[derive(Default)]
struct World {
    objects: BTreeMap<ObjectId, Bytes>,
    root: Option<NodeRef>,
    groups: Vec<GroupRef>,
    number: u64,
    claim: u64,
}

impl World {
    fn load(&self, reference: &NodeRef) -> Node {
        Node::parse(&PARTITION, reference, &self.objects[&reference.id]).unwrap()
    }

    fn end(&self) -> i64 {
        self.groups.last().map_or(100, |group| group.end.0)
    }

    fn new_groups(&mut self, base: i64, end: i64, count: i64) -> Vec<GroupRef> {
        let count = count.min(end - base);
        let at = |n: i64| base + (end - base) * n / count;
        (0..count)
            .map(|n| {
                self.number += 1;
                group(at(n), at(n + 1), self.number)
            })
            .collect()
    }

    fn edit(&mut self, change: impl FnOnce(&mut Editor, &Self)) {
        let root = self.root.as_ref().map(|root| self.load(root));
        self.claim += 1;
        let first = ObjectId::new(self.claim, 0);
        let end = Offset(self.end());
        let mut editor = Editor::shaped(PARTITION, root, end, first, SMALL);
        change(&mut editor, self);
        let edited = editor.finish();
        for id in edited.dropped {
            assert!(self.objects.remove(&id).is_some(), "{id} was there");
        }
        for (id, bytes) in edited.objects {
            assert_eq!(id.claim, self.claim);
            assert!(self.objects.insert(id, bytes).is_none(), "names are fresh");
        }
        self.root = edited.root;
    }

    /// Every row group that the manifest leads to, and every object on the way.
    fn walk(&self) -> (Vec<GroupRef>, BTreeSet<ObjectId>) {
        let (mut groups, mut objects) = (Vec::new(), BTreeSet::new());
        if let Some(root) = &self.root {
            self.walk_from(root, &mut groups, &mut objects);
        }
        (groups, objects)
    }

    fn walk_from(
        &self,
        reference: &NodeRef,
        groups: &mut Vec<GroupRef>,
        objects: &mut BTreeSet<ObjectId>,
    ) {
        assert!(objects.insert(reference.id));
        let node = self.load(reference);
        for child in node.children() {
            self.walk_from(child, groups, objects);
        }
        groups.extend_from_slice(node.groups());
    }

    fn find(&self, look: impl Fn(&Node) -> Option<Found<'_>>) -> Option<GroupRef> {
        let mut node = self.load(self.root.as_ref()?);
        loop {
            match look(&node)? {
                Found::Group(group) => return Some(group.clone()),
                Found::Node(next) => node = self.load(&next.clone()),
            }
        }
    }

    fn check(&self) {
        let (groups, objects) = self.walk();
        assert_eq!(groups, self.groups);
        let stored: BTreeSet<_> = self.objects.keys().copied().collect();
        assert_eq!(
            objects, stored,
            "no more and no less is kept than is needed"
        );
        if let Some(root) = &self.root {
            assert_eq!(root.records, groups.len() as u64);
            assert_eq!(root.bytes, 1000 * groups.len() as u64);
            let largest = groups.iter().map(|group| group.max_timestamp).max();
            assert_eq!(Some(root.max_timestamp), largest);
        }
        for offset in 90..self.end() + 10 {
            let expected = groups
                .iter()
                .find(|group| (group.base.0..group.end.0).contains(&offset));
            assert_eq!(
                self.find(|node| node.find(Offset(offset))).as_ref(),
                expected
            );
        }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Append(i64),
    Truncate(prop::sample::Index),
    Replace(prop::sample::Index, prop::sample::Index, i64),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (1i64..8).prop_map(Change::Append),
        1 => any::<prop::sample::Index>().prop_map(Change::Truncate),
        3 => (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1i64..6)
            .prop_map(|(from, to, count)| Change::Replace(from, to, count)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_manifest_holds_what_was_put_into_it(changes in prop::collection::vec(change(), 1..25)) {
        let mut world = World::default();
        for change in changes {
            match change {
                Change::Append(count) => {
                    let base = world.end();
                    let groups = world.new_groups(base, base + 4 * count, count);
                    world.edit(|editor, _| editor.append(groups.clone()).unwrap());
                    world.groups.extend(groups);
                }
                Change::Truncate(at) if !world.groups.is_empty() => {
                    // The last row group stays: an empty manifest begins anew at its end.
                    let before = world.groups[at.index(world.groups.len())].base;
                    world.edit(|editor, world| {
                        while let Err(Need(nodes)) = editor.truncate(before) {
                            nodes.iter().for_each(|node| editor.load(world.load(node)));
                        }
                    });
                    // Leaves go as a whole.
                    let kept = world.walk().0.len();
                    let drop = world.groups.len() - kept;
                    let old = world.groups.partition_point(|group| group.end <= before);
                    prop_assert!(old - drop < 3, "less than a leaf is left over");
                    prop_assert!(world.groups[..drop].iter().all(|group| group.end <= before));
                    world.groups.drain(..drop);
                }
                Change::Replace(from, to, count) if !world.groups.is_empty() => {
                    let from = from.index(world.groups.len());
                    let to = from + to.index(world.groups.len() - from);
                    let range = world.groups[from].base..world.groups[to].end;
                    let groups = world.new_groups(range.start.0, range.end.0, count);
                    world.edit(|editor, world| loop {
                        match editor.replace(range.clone(), groups.clone()) {
                            Ok(()) => break,
                            Err(ReplaceError::Need(Need(nodes))) => {
                                for node in nodes {
                                    editor.load(world.load(&node));
                                }
                            }
                            Err(error) => panic!("{error}"),
                        }
                    });
                    world.groups.splice(from..=to, groups);
                }
                _ => {}
            }
            world.check();
        }
    }

    #[test]
    fn any_bytes_are_a_manifest_or_not(bytes: Vec<u8>) {
        let mut framed = MAGIC.to_vec();
        framed.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        framed.extend_from_slice(&bytes);
        let crc = crc32c::crc32c(&framed);
        framed.extend_from_slice(&crc.to_le_bytes());
        if let Ok(node) = Node::decode(&framed) {
            prop_assert_eq!(node.check(), Ok(()));
        }
    }
}

#[test]
fn a_partition_of_a_tebibyte_is_found_by_few_reads() {
    // 8 MiB each: 1 TiB.
    let groups: Vec<_> = (0..131_072)
        .map(|n| group(n * 100, n * 100 + 100, 1))
        .collect();
    let mut root: Option<Node> = None;
    let mut objects = BTreeMap::new();
    let mut pointer = None;
    for (claim, part) in (1..).zip(groups.chunks(1000)) {
        let first = ObjectId::new(claim, 0);
        let mut editor = Editor::new(PARTITION, root.take(), Offset(0), first);
        editor.append(part.to_vec()).unwrap();
        let edited = editor.finish();
        assert!(edited.objects.len() <= 3, "an append writes little");
        objects.extend(edited.objects);
        let new = edited.root.unwrap();
        root = Some(Node::parse(&PARTITION, &new, &objects[&new.id]).unwrap());
        pointer = Some(new);
    }
    let (root, pointer) = (root.unwrap(), pointer.unwrap());
    assert!(pointer.length < 100 << 10, "{} bytes", pointer.length);
    for offset in [0, 5_000_000, 13_000_000] {
        let Some(Found::Node(leaf)) = root.find(Offset(offset)) else {
            panic!("{offset} is old");
        };
        assert!(leaf.length < 50 << 10, "{} bytes", leaf.length);
        let leaf = Node::parse(&PARTITION, leaf, &objects[&leaf.id]).unwrap();
        assert!(matches!(leaf.find(Offset(offset)), Some(Found::Group(_))));
    }
    let newest = root.find(Offset(13_107_199));
    assert!(
        matches!(newest, Some(Found::Group(_))),
        "the newest are in the root"
    );
}

#[test]
fn times_are_found() {
    let mut world = World::default();
    let groups = world.new_groups(100, 140, 10);
    world.edit(|editor, _| editor.append(groups.clone()).unwrap());
    let find = |from, timestamp| {
        world
            .find(|node| node.find_time(Offset(from), timestamp))
            .map(|group| group.base.0)
    };
    assert_eq!(find(0, 0), Some(100));
    assert_eq!(find(0, 1001), Some(104));
    assert_eq!(find(105, 0), Some(104));
    assert_eq!(find(120, 1001), Some(120));
    assert_eq!(find(0, 1360), Some(136));
    assert_eq!(find(0, 1361), None);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut editor = Editor::new(PARTITION, None, Offset(10), ObjectId::new(1, 0));
    let misfit = |result: Result<(), Misfit>| assert!(result.is_err());
    misfit(editor.append(vec![group(11, 20, 1)]));
    misfit(editor.append(vec![group(10, 20, 1), group(21, 30, 2)]));
    let other = GroupRef {
        partition: 4,
        ..group(10, 20, 1)
    };
    misfit(editor.append(vec![other]));
    let overfull = GroupRef {
        records: 11,
        ..group(10, 20, 1)
    };
    misfit(editor.append(vec![overfull]));
    editor
        .append(vec![group(10, 20, 1), group(20, 30, 2)])
        .unwrap();
    let mut replace = |from, to, groups| {
        let result = editor.replace(Offset(from)..Offset(to), groups);
        assert!(matches!(result, Err(ReplaceError::Misfit(_))), "{result:?}");
    };
    replace(10, 25, vec![group(10, 25, 3)]);
    replace(15, 20, vec![group(15, 20, 3)]);
    replace(10, 31, vec![group(10, 31, 3)]);
    replace(10, 20, vec![group(10, 19, 3)]);
    replace(10, 10, vec![]);
}

#[test]
fn damage_is_refused() {
    let mut world = World::default();
    let groups = world.new_groups(100, 140, 10);
    world.edit(|editor, _| editor.append(groups.clone()).unwrap());
    let root = world.root.clone().unwrap();
    let bytes = world.objects[&root.id].clone();
    for at in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1;
        assert!(Node::parse(&PARTITION, &root, &damaged).is_err(), "{at}");
        assert!(Node::decode(&damaged).is_err(), "{at}");
        assert!(
            Node::parse(&PARTITION, &root, &bytes[..at]).is_err(),
            "{at}"
        );
    }
    let other = TopicPartition {
        partition: 4,
        ..PARTITION
    };
    assert!(Node::parse(&other, &root, &bytes).is_err());
    let older = NodeRef { records: 1, ..root };
    assert!(Node::parse(&PARTITION, &older, &bytes).is_err());
    let mut later = bytes.to_vec();
    later[7] = 2;
    assert_eq!(
        Node::decode(&later),
        Err("its version, which is not known here,")
    );
}

#[test]
fn codecs_of_producers_are_kept() {
    let mut editor = Editor::shaped(PARTITION, None, Offset(100), ObjectId::new(8, 2), SMALL);
    let codecs = [
        None,
        Some(Codec::None),
        Some(Codec::Gzip),
        Some(Codec::Zstd),
    ];
    let groups = codecs.iter().enumerate().map(|(n, codec)| GroupRef {
        codec: *codec,
        ..group(100 + n as i64 * 10, 110 + n as i64 * 10, n as u64)
    });
    editor.append(groups.collect()).unwrap();
    let edited = editor.finish();
    let (_, root) = edited.objects.last().unwrap();
    check_golden("table-manifest-codecs-v1.bin", root);
    let root = Node::decode(&golden("table-manifest-codecs-v1.bin")).unwrap();
    assert_eq!(
        root.groups().iter().map(|g| g.codec).collect::<Vec<_>>(),
        codecs
    );
}

/// Else a root above it would be deeper than any may be, and a chain of nodes need not end.
#[test]
fn a_node_below_is_of_a_lower_level() {
    let mut root = Node::decode(&golden("table-manifest-root-v1.bin")).unwrap();
    assert_eq!(root.level, 1);
    for (level, expected) in [
        (0, Ok(())),
        (1, Err("a node's level")),
        (8, Err("a node's level")),
    ] {
        root.children[0].level = level;
        assert_eq!(
            Node::decode(&crate::framed(MAGIC, &root)).map(drop),
            expected
        );
    }
}

#[test]
fn manifests_are_written_as_ever() {
    let mut editor = Editor::shaped(PARTITION, None, Offset(100), ObjectId::new(8, 2), SMALL);
    let mut groups: Vec<_> = (0..7)
        .map(|n| group(100 + n * 10, 110 + n * 10, n as u64))
        .collect();
    groups[6] = GroupRef {
        length: 0,
        index_length: 0,
        index_crc: 0,
        records: 0,
        min_timestamp: -1,
        max_timestamp: -1,
        ..groups[6].clone()
    };
    editor.append(groups.clone()).unwrap();
    let edited = editor.finish();
    let [(_, leaf), (_, root)] = &edited.objects[..] else {
        panic!("{:?}", edited.objects);
    };
    check_golden("table-manifest-leaf-v1.bin", leaf);
    check_golden("table-manifest-root-v1.bin", root);
    let leaf = Node::decode(&golden("table-manifest-leaf-v1.bin")).unwrap();
    let root = Node::decode(&golden("table-manifest-root-v1.bin")).unwrap();
    assert_eq!(leaf.groups(), &groups[..3]);
    assert_eq!(root.groups(), &groups[3..]);
    assert_eq!(root.children().len(), 1);
}

//! Makes extents cold, as a compactor does.

use bytes::{Bytes, BytesMut};
use frazil_core::batch::BatchHeader;
use frazil_core::cold::{NodeRef, ObjectId, TableObject};
use frazil_core::{Location, Offset, TopicPartition};
use frazil_table::manifest::{Editor, Node};
use frazil_table::{GroupRef, Writer, WriterConfig};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use super::World;
use crate::flush::upload::object_path;

#[derive(Default)]
pub(crate) struct Freezer {
    claim: u64,
}

/// The path of a table's object.
pub(crate) fn table_path(world: &World, partition: TopicPartition, object: TableObject) -> Path {
    let key = object.key(partition.topic);
    Path::from(format!("{}/{key}", world.prefix))
}

impl Freezer {
    /// Makes the extents that end at `until` or earlier cold, and the state name the new root.
    pub(crate) async fn freeze(
        &mut self,
        world: &World,
        partition: TopicPartition,
        until: Offset,
        config: WriterConfig,
    ) -> Vec<GroupRef> {
        self.claim += 1;
        let extents = world.quorum.extents(partition);
        let extents = extents.into_iter().take_while(|extent| extent.end <= until);
        let extents: Vec<_> = extents.collect();
        let (base, end) = (extents[0].base, extents.last().expect("some").end);
        let file = ObjectId::new(self.claim, 0);
        let mut writer = Writer::new(file, config).expect("a level that exists");
        writer.begin(partition.partition, base);
        for extent in &extents {
            match extent.location {
                Location::Lost => {}
                Location::Segment { id, start, length } => {
                    let path = object_path(&world.prefix, id);
                    let range = u64::from(start)..u64::from(start) + u64::from(length);
                    let bytes = world.store.objects.get_range(&path, range).await;
                    push(&mut writer, extent.base, bytes.expect("it is there"));
                }
                Location::Wal { .. } => panic!("{extent:?} is not in a segment"),
            }
        }
        writer.end(end).expect("in memory");
        let written = writer.finish();
        let mut whole = BytesMut::new();
        written
            .parts
            .iter()
            .for_each(|part| whole.extend_from_slice(part));
        put(world, partition, TableObject::Data(file), whole.freeze()).await;
        let groups = written.groups.clone();
        let root = self.append(world, partition, base, written.groups).await;
        world.quorum.replace(partition, root);
        groups
    }

    async fn append(
        &self,
        world: &World,
        partition: TopicPartition,
        base: Offset,
        groups: Vec<GroupRef>,
    ) -> NodeRef {
        let before = match world.quorum.cold(partition) {
            None => None,
            Some(root) => {
                let object = TableObject::Manifest(partition.partition, root.id);
                let path = table_path(world, partition, object);
                let bytes = world.store.objects.get(&path).await.expect("it is there");
                let bytes = bytes.bytes().await.expect("in memory");
                Some(Node::parse(&partition, &root, &bytes).expect("sound"))
            }
        };
        let mut editor = Editor::new(partition, before, base, ObjectId::new(self.claim, 1));
        editor.append(groups).expect("they follow");
        let edited = editor.finish();
        for (id, bytes) in edited.objects {
            let object = TableObject::Manifest(partition.partition, id);
            put(world, partition, object, bytes).await;
        }
        edited.root.expect("there are row groups")
    }
}

fn push(writer: &mut Writer, base: Offset, mut bytes: Bytes) {
    let mut offset = base;
    while !bytes.is_empty() {
        let header = BatchHeader::parse(&bytes).expect("a batch");
        let batch = bytes.split_to(header.length as usize);
        writer.push_batch(offset, &batch).expect("sound records");
        offset = offset + header.offsets();
    }
}

async fn put(world: &World, partition: TopicPartition, object: TableObject, bytes: Bytes) {
    let path = table_path(world, partition, object);
    let put = world.store.objects.put(&path, PutPayload::from(bytes));
    put.await.expect("in memory");
}

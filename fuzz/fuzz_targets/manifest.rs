//! Manifests of tables whose checksum is right and whose content is anything.
//!
//! Input: an offset, then the CBOR of a manifest.
#![no_main]

use frazil_core::{Offset, TopicId, TopicPartition};
use frazil_table::ObjectId;
use frazil_table::manifest::{Editor, Found, Node};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((offset, cbor)) = data.split_first_chunk() else {
        return;
    };
    let offset = Offset(i64::from_le_bytes(*offset));
    let mut bytes = b"FRZMNFT\x01".to_vec();
    bytes.extend_from_slice(&(cbor.len() as u32).to_le_bytes());
    bytes.extend_from_slice(cbor);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    let Ok(node) = Node::decode(&bytes) else {
        return;
    };
    if let Some(Found::Group(group)) = node.find(offset) {
        assert!(group.base <= offset && offset < group.end);
        assert!(group.index_range().end <= group.range().end);
    }
    let _ = node.find_time(offset, offset.0);
    let partition = TopicPartition::new(TopicId::new(uuid::Uuid::nil()), 0);
    let first = ObjectId::new(u64::MAX, 0);
    let mut editor = Editor::new(partition, Some(node), Offset(0), first);
    drop(editor.truncate(offset));
    let end = editor.end();
    drop(editor.replace(offset..end, Vec::new()));
    let edited = editor.finish();
    if let Some(root) = edited.root {
        let (_, bytes) = edited.objects.last().expect("the root is written");
        assert!(Node::decode(bytes).is_ok());
        assert_eq!(root.end, end);
    }
});

//! The objects of segments, and who judges what is deleted of them.

use std::sync::Arc;

use bytes::Bytes;
use frazil_core::SegmentId;
use frazil_metadata::simulated::Quorum;
use futures_util::{StreamExt, stream};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetResult, GetResultPayload, ObjectMeta, PutMode, PutOptions, PutPayload,
    PutResult, Result,
};
use parking_lot::Mutex;

use super::oracle::Oracle;
use crate::simulated::Objects;

/// Objects that a list answers at once.
const PAGE: usize = 5;

/// The oracle has the objects.
pub(super) struct Segments {
    pub(super) quorum: Quorum,
    pub(super) oracle: Arc<Mutex<Oracle>>,
}

fn meta(path: &Path, size: usize) -> ObjectMeta {
    ObjectMeta {
        location: path.clone(),
        last_modified: Default::default(),
        size: size as u64,
        e_tag: None,
        version: None,
    }
}

impl Objects for Segments {
    fn put(&self, path: &Path, payload: PutPayload, how: &PutOptions) -> Result<PutResult> {
        assert_eq!(how.mode, PutMode::Create, "contents never change");
        let mut oracle = self.oracle.lock();
        if oracle.objects.contains_key(path) {
            return Err(Error::AlreadyExists {
                path: path.to_string(),
                source: "412".into(),
            });
        }
        oracle.objects.insert(path.clone(), payload.into());
        Ok(PutResult {
            e_tag: None,
            version: None,
            extensions: Default::default(),
        })
    }

    fn get(&self, path: &Path, _: GetOptions) -> Result<GetResult> {
        let found: Option<Bytes> = self.oracle.lock().objects.get(path).cloned();
        let bytes = found.ok_or_else(|| Error::NotFound {
            path: path.to_string(),
            source: "404".into(),
        })?;
        Ok(GetResult {
            meta: meta(path, bytes.len()),
            range: 0..bytes.len() as u64,
            attributes: Default::default(),
            payload: GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed()),
            extensions: Default::default(),
        })
    }

    fn delete(&self, path: &Path) {
        self.quorum.read(|state| {
            let mut oracle = self.oracle.lock();
            if oracle.objects.remove(path).is_some() {
                let id = SegmentId::from_object_key(path.as_ref()).expect("a segment");
                oracle.deleted(state, id);
            }
        });
    }

    fn page(&self, prefix: &Path, after: Option<&Path>) -> Vec<ObjectMeta> {
        let oracle = self.oracle.lock();
        let all = oracle.objects.iter();
        all.filter(|(path, _)| path.prefix_matches(prefix))
            .filter(|(path, _)| after.is_none_or(|after| *path > after))
            .take(PAGE)
            .map(|(path, bytes)| meta(path, bytes.len()))
            .collect()
    }
}

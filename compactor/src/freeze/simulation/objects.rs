//! The objects of segments and tables, and who judges what happens to them.

use std::sync::Arc;

use bytes::Bytes;
use frazil_metadata::simulated::Quorum;
use futures_util::{FutureExt, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    GetOptions, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutOptions, PutPayload,
    PutResult, Result,
};
use parking_lot::Mutex;

use super::oracle::Oracle;
use crate::simulated::Objects;

/// Objects that a list answers at once.
const PAGE: usize = 100;

pub(super) struct Tables {
    pub(super) objects: Arc<InMemory>,
    pub(super) quorum: Quorum,
    pub(super) oracle: Arc<Mutex<Oracle>>,
}

/// What a store in memory does is done at once.
fn now<T>(done: impl Future<Output = T>) -> T {
    done.now_or_never().expect("in memory")
}

/// An object's bytes.
pub(super) fn get(objects: &InMemory, path: &Path) -> Option<Bytes> {
    let found = now(objects.get(path)).ok()?;
    now(found.bytes()).ok()
}

impl Objects for Tables {
    fn put(&self, path: &Path, payload: PutPayload, _: &PutOptions) -> Result<PutResult> {
        if let Some(there) = get(&self.objects, path) {
            let again: Vec<u8> = payload.iter().flatten().copied().collect();
            assert!(
                there == again,
                "{path} is written again, with other content"
            );
        }
        now(self.objects.put(path, payload))
    }

    fn get(&self, path: &Path, how: GetOptions) -> Result<GetResult> {
        now(self.objects.get_opts(path, how))
    }

    fn delete(&self, path: &Path) {
        if get(&self.objects, path).is_some() {
            self.quorum
                .read(|state| self.oracle.lock().deleted(state, path));
            now(self.objects.delete(path)).expect("it is there");
        }
    }

    fn page(&self, prefix: &Path, after: Option<&Path>) -> Vec<ObjectMeta> {
        let found = match after {
            Some(after) => self.objects.list_with_offset(Some(prefix), after),
            None => self.objects.list(Some(prefix)),
        };
        let mut found: Vec<ObjectMeta> = now(found.map(|one| one.expect("in memory")).collect());
        found.sort_by(|one, other| one.location.cmp(&other.location));
        found.truncate(PAGE);
        found
    }
}

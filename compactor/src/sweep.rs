//! Deletes orphans: objects that were uploaded, never committed, and can never be.
//!
//! The list of the store only tells where to look. Whether an object is an orphan is for the state
//! to say: its segment's epoch has been sealed, or its writer has declared it finished, and the
//! state does not contain it. From then on the state refuses to commit it, so a writer that was
//! paused for any length of time cannot bring it back.

use frazil_core::SegmentId;
use frazil_core::ports::{Ledger, SegmentStatus};
use frazil_core::sabotage::{self, Bug};
use frazil_objects::Retries;
use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::reclaim::{delete, object, objects};
use crate::{Error, Metrics};

/// How many orphans are gathered before they are deleted.
const PAGE: usize = 1000;

/// One sweep. Answers how many orphans were deleted.
pub async fn round(
    ledger: &dyn Ledger,
    store: &dyn ObjectStore,
    retries: &Retries,
    prefix: &Path,
    metrics: &Metrics,
) -> Result<u64, Error> {
    let mut found = store.list(Some(&prefix.clone().join("segments")));
    let mut orphans = Vec::new();
    let mut total = 0;
    loop {
        let next = found.try_next().await?;
        let at_end = next.is_none();
        if let Some(found) = next
            && let Some(id) = SegmentId::from_object_key(found.location.as_ref())
            // Only what the state's own naming leads to: a copy elsewhere is not ours to delete.
            && object(prefix, id) == found.location
            && (ledger.segment(id) == SegmentStatus::Orphan
                || (sabotage::on(Bug::UnknownMeansOrphan)
                    && ledger.segment(id) == SegmentStatus::Pending))
            && !sabotage::on(Bug::OrphansStay)
        {
            orphans.push(id);
        }
        if orphans.len() == PAGE || (at_end && !orphans.is_empty()) {
            let due = objects(prefix, std::mem::take(&mut orphans));
            let (gone, error) = delete(store, retries, due).await;
            metrics.orphans.inc_by(gone.len() as u64);
            total += gone.len() as u64;
            if let Some(error) = error {
                return Err(error.into());
            }
        }
        if at_end {
            return Ok(total);
        }
    }
}

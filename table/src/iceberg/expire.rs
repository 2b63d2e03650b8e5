//! Which snapshots a table no longer keeps.
//!
//! A snapshot can be read until some time after it was replaced by the next one, so that whoever began
//! with it can finish. Pure: the caller finds out which objects only the expired ones named.

use super::{Snapshot, TableMetadata};

impl TableMetadata {
    /// Takes out the snapshots that were replaced before `before_ms`, and the oldest beyond `most`.
    /// The newest stays, whatever is asked. Answers those that are gone, oldest first.
    ///
    /// Snapshots that stay may name a parent that is gone, which the table spec allows.
    pub fn expire(&mut self, before_ms: i64, most: usize) -> Vec<Snapshot> {
        let replaced = self.snapshots.iter().skip(1);
        let old = replaced
            .take_while(|next| next.timestamp_ms < before_ms)
            .count();
        let many = self.snapshots.len().saturating_sub(most.max(1));
        let gone: Vec<Snapshot> = self.snapshots.drain(..old.max(many)).collect();
        let kept = |id: i64| self.snapshots.iter().any(|kept| kept.snapshot_id == id);
        let log = std::mem::take(&mut self.snapshot_log);
        // What is left must be a history without holes: it begins with the last one that is gone.
        let first = log.iter().rposition(|entry| {
            let id = entry["snapshot-id"].as_i64();
            !id.is_some_and(kept)
        });
        let start = first.map_or(0, |last| last + 1);
        self.snapshot_log = log.into_iter().skip(start).collect();
        gone
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::{Commit, SNAPSHOTS};
    use super::*;
    use frazil_core::cold::ObjectId;

    /// A table with snapshots 1, 2, … made at these times.
    fn table(times: &[i64]) -> TableMetadata {
        let mut table = TableMetadata::new("u".to_owned(), "file:///t".to_owned(), 0);
        for (number, time) in times.iter().enumerate() {
            let commit = Commit {
                table: &table,
                manifests: Vec::new(),
                add: Vec::new(),
                remove: BTreeSet::new(),
                summary: BTreeMap::new(),
                snapshot: number as i64 + 1,
                now_ms: *time,
                next: ObjectId::new(number as u64 + 1, 0),
            };
            table = commit.finish().expect("nothing is needed").table;
        }
        table
    }

    fn left(mut table: TableMetadata, before_ms: i64, most: usize) -> (Vec<i64>, Vec<i64>) {
        let gone = table.expire(before_ms, most);
        let log = &table.snapshot_log;
        let logged: Vec<_> = log
            .iter()
            .map(|entry| entry["snapshot-id"].as_i64())
            .collect();
        let kept: Vec<i64> = table
            .snapshots
            .iter()
            .map(|kept| kept.snapshot_id)
            .collect();
        assert_eq!(logged, kept.iter().map(|id| Some(*id)).collect::<Vec<_>>());
        assert_eq!(TableMetadata::decode(&table.encode()).expect("ours"), table);
        (gone.iter().map(|gone| gone.snapshot_id).collect(), kept)
    }

    #[test]
    fn a_snapshot_stays_for_a_time_after_it_was_replaced() {
        let table = || table(&[10, 20, 30, 40]);
        assert_eq!(left(table(), 0, 100), (vec![], vec![1, 2, 3, 4]));
        assert_eq!(left(table(), 20, 100), (vec![], vec![1, 2, 3, 4]));
        // The first was replaced at 20.
        assert_eq!(left(table(), 21, 100), (vec![1], vec![2, 3, 4]));
        assert_eq!(left(table(), 35, 100), (vec![1, 2], vec![3, 4]));
        assert_eq!(left(table(), i64::MAX, 100), (vec![1, 2, 3], vec![4]));
    }

    #[test]
    fn there_is_an_upper_limit_and_the_newest_stays() {
        let table = || table(&[10, 20, 30, 40]);
        assert_eq!(left(table(), 0, 2), (vec![1, 2], vec![3, 4]));
        assert_eq!(left(table(), 35, 3), (vec![1, 2], vec![3, 4]));
        assert_eq!(left(table(), 0, 0), (vec![1, 2, 3], vec![4]));
        let times: Vec<i64> = (0..SNAPSHOTS as i64 + 3).collect();
        assert_eq!(self::table(&times).snapshots.len(), SNAPSHOTS);
        let mut none = TableMetadata::new("u".to_owned(), "file:///t".to_owned(), 0);
        assert_eq!(none.expire(i64::MAX, 0), []);
    }
}

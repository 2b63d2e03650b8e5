//! Bugs that can be switched on, to see whether the tests notice them.
//!
//! Each [`Bug`] is the kind of mistake that has cost other systems acknowledged data. Where it would
//! be made stands one line, `if sabotage::on(Bug::…)`. Without the feature `sabotage` that is the
//! constant `false` and nothing of it is compiled; with it, the environment variable `SABOTAGE`
//! names the one bug that this process has. `tests/sabotage/run` builds the feature, lets the suites
//! loose on each bug, and fails if one escapes: then the suites are the bug.
//!
//! Invariant: no default and no member's feature turns `sabotage` on. `tests/sabotage.rs` looks for
//! [`MARKER`] in the binary that is shipped.

use crate::ports::{AppendOutcome, BatchOutcome, Bounds, Commit, CommitOutcome};
use crate::{Offset, TopicPartition};

/// Whether bugs can be switched on in this build.
pub const AVAILABLE: bool = cfg!(feature = "sabotage");

/// A text that is in a binary if and only if bugs can be switched on in it.
pub const MARKER: &str = "SABOTAGE names no bug that this program could have";

macro_rules! bugs {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A mistake that somebody could make. By its name in the environment: see [`Bug::name`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[$doc])* $variant,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name in the environment.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

bugs! {
    /// A segment counts as durable as soon as its upload has begun.
    AckBeforePut = "ack-before-put",
    /// A commit is answered with the offsets that it will probably get.
    AckBeforeCommit = "ack-before-commit",
    /// The write-ahead log is not synced before what it holds is committed.
    AckBeforeSync = "ack-before-sync",
    /// The name of a new file of the write-ahead log is not synced.
    NoDirectorySync = "no-directory-sync",
    /// An object that is there already is taken for the one that was to be put.
    TakenMeansOurs = "taken-means-ours",
    /// A commit of unknown outcome is answered as one that did not happen.
    UnknownMeansFailed = "unknown-means-failed",
    /// A commit of unknown outcome is given up without making sure that it stays so.
    UnknownIsNotFenced = "unknown-is-not-fenced",
    /// The bound below which segments are finished takes no account of those under way.
    SealsWhatIsUnderWay = "seals-what-is-under-way",
    /// The first batch of a segment is left out when batches move there from the log.
    RelocationDropsBatch = "relocation-drops-a-batch",
    /// The write-ahead log is cut before its batches have moved.
    WalIsCutEarly = "wal-is-cut-early",
    /// Acknowledged bytes that the write-ahead log has lost are passed over at the start.
    LostWalIsSkipped = "lost-wal-is-skipped",
    /// Frames and batches are recovered whatever their checksums say.
    RecoveryIgnoresCrc = "recovery-ignores-crc",
    /// Batches are sent to consumers whatever their checksums say.
    ReadIgnoresCrc = "read-ignores-crc",
    /// Batches of idempotent producers are appended whatever came before.
    RepeatsAreAppended = "repeats-are-appended",
    /// A repeated batch is recognised, and answered with the end of the log.
    RepeatsGetNewOffsets = "repeats-get-new-offsets",
    /// A producer id is given out twice.
    ProducerIdsAreReused = "producer-ids-are-reused",
    /// A command that is sent again is applied again.
    SessionsForget = "sessions-forget",
    /// A superseded gateway's commits are accepted.
    OldEpochsCommit = "old-epochs-commit",
    /// A segment that was collected, or declared finished, can be committed.
    RetiredSegmentsReturn = "retired-segments-return",
    /// The high watermark is one ahead of what is committed.
    HighWatermarkAhead = "high-watermark-ahead",
    /// A voter answers for log entries that it has not synced.
    VoterDoesNotSync = "voter-does-not-sync",
    /// A barrier lets everybody pass.
    BarrierDoesNotWait = "barrier-does-not-wait",
    /// Offsets are committed under generations that have ended.
    StaleGenerationsCommit = "stale-generations-commit",
    /// A coordinator acts on a claim that was superseded.
    OldClaimsAct = "old-claims-act",
    /// Assignments are given out that are stored nowhere.
    AssignmentIsNotStored = "assignment-is-not-stored",
    /// Committed offsets are read from the image as it is.
    OffsetsWithoutBarrier = "offsets-without-barrier",
    /// Retired objects are deleted at once.
    GraceIsIgnored = "grace-is-ignored",
    /// Objects that the state does not know are deleted.
    UnknownMeansOrphan = "unknown-means-orphan",
    /// Retention takes one extent more than it may.
    RetentionTakesMore = "retention-takes-more",
    /// What was never committed stays in the store for ever.
    OrphansStay = "orphans-stay",
    /// What was planned on roots, extents or a table that have changed since is applied.
    ReplacesWhatHasChanged = "replaces-what-has-changed",
    /// A job whose claim is past replaces extents and the table.
    PastClaimsReplace = "past-claims-replace",
    /// Roots and extents are replaced, and the table's metadata stays the one before.
    PointerIsLeftBehind = "pointer-is-left-behind",
    /// The last batch of an extent becomes no rows.
    ConversionDropsBatch = "conversion-drops-a-batch",
    /// One of the files that were merged stays in the table, beside the one that has its rows.
    MergedFilesStay = "merged-files-stay",
    /// The last row group of a log's cold part is passed over by who comes from the one before.
    ColdReadSkipsGroup = "cold-read-skips-a-group",
    /// Retired objects of tables are deleted at once.
    TablesHaveNoGrace = "tables-have-no-grace",
    /// What only the oldest kept snapshot names is taken for orphans.
    OldSnapshotIsForgotten = "old-snapshot-is-forgotten",
    /// What a job writes is taken for orphans while it is at work.
    RunningClaimIsOrphaned = "running-claim-is-orphaned",
    /// Files that no snapshot names go, although the log needs them.
    ExpiredFilesLeaveTheLog = "expired-files-leave-the-log",
}

/// Whether this process has the bug. Always `false` without the feature.
#[cfg(not(feature = "sabotage"))]
#[inline(always)]
pub const fn on(_: Bug) -> bool {
    false
}

/// Whether this process has the bug.
///
/// # Panics
/// If `SABOTAGE` names no bug.
#[cfg(feature = "sabotage")]
pub fn on(bug: Bug) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("SABOTAGE").ok().filter(|n| !n.is_empty())?;
        let found = Bug::ALL.iter().find(|bug| bug.name() == name);
        Some(*found.unwrap_or_else(|| panic!("{MARKER}: {name}")))
    });
    *chosen == Some(bug)
}

/// The outcome that a commit will have if nobody else commits first: what
/// [`Bug::AckBeforeCommit`] answers.
pub fn guess(commit: &Commit, bounds: impl Fn(&TopicPartition) -> Option<Bounds>) -> CommitOutcome {
    let mut ends = std::collections::BTreeMap::new();
    let mut guess = |append: &crate::ports::Append| {
        let known = bounds(&append.partition);
        let end = known.map_or(Offset::ZERO, |bounds| bounds.high_watermark);
        let end = ends.entry(append.partition).or_insert(end);
        let offsets = append.batches.iter().map(|batch| {
            let base = *end;
            *end = base + batch.records;
            BatchOutcome::Appended(base)
        });
        AppendOutcome {
            batches: offsets.collect(),
            log_start: known.map_or(Offset::ZERO, |bounds| bounds.log_start),
        }
    };
    CommitOutcome {
        appends: commit.appends.iter().map(&mut guess).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_and_distinct() {
        let names: std::collections::BTreeSet<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
        for name in names {
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{name}"
            );
        }
    }
}

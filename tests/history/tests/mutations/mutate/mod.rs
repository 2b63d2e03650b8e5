//! Ways to spoil a clean history. Each answers `None` if the history has no place where the
//! spoiling would show; the comments say when that is.

mod cold;
mod groups;
mod log;
mod look;
mod rest;

use frazil_history::{History, Invariant};

use Invariant::{
    I1, I2, I3, I4, I5, I6, I7, I8, I9, I10, I11, I12, I13, I17, I23, I24, I25, I26, I27, I29, I30,
    I31, I32, I36, I37, I38, I39,
};

/// A way to spoil a history.
pub(crate) struct Class {
    pub(crate) name: &'static str,
    /// The invariants of which at least one must be named.
    pub(crate) expected: &'static [Invariant],
    pub(crate) spoil: fn(&History, u64) -> Option<History>,
}

macro_rules! classes {
    ($($name:literal, $expected:expr, $spoil:expr;)*) => {
        pub(crate) const CLASSES: &[Class] = &[$(Class {
            name: $name,
            expected: &$expected,
            spoil: $spoil,
        }),*];
    };
}

classes! {
    "an acknowledged record is dropped, the rest moves up", [I2, I5], log::drop_and_close;
    "an acknowledged record is dropped, a gap stays", [I2], log::drop_and_gap;
    "the acknowledged end of a log is cut off", [I3], log::cut_tail;
    "an idempotent value is at a second offset", [I4, I30], |h, s| log::duplicate(h, s, true);
    "a value sent once is at a second offset", [I36], |h, s| log::duplicate(h, s, false);
    "two offsets are swapped in every read", [I5, I8], log::swap_offsets;
    "a value changes between two reads", [I1], |h, s| log::change_one_read(h, s, |r| r.value += 1_000_000);
    "a timestamp changes between two reads", [I1], |h, s| log::change_one_read(h, s, |r| r.timestamp += 1);
    "an acknowledgement names the offset before", [I5], |h, s| log::shift_ack(h, s, -1);
    "an acknowledgement names an offset after", [I5], |h, s| log::shift_ack(h, s, 1);
    "a repeated batch is answered with another offset", [I5, I30], log::reassign_retry;
    "two batches are acknowledged at one offset", [I36, I5], log::share_offset;
    "a batch goes below an earlier one of its producer", [I7], log::reorder_producer;
    "latest is stale after an acknowledgement", [I9], log::stale_latest;
    "latest goes back although nobody had been acknowledged more", [I10], log::latest_goes_back;
    "a gateway's high watermark goes back", [I10], |h, s| log::bound_goes_back(h, s, true);
    "a gateway's log start goes back", [I10], |h, s| log::bound_goes_back(h, s, false);
    "earliest goes back", [I10], log::earliest_goes_back;
    "the log start moves though nobody asked", [I2, I10], log::log_start_by_itself;
    "a record at or beyond the high watermark is read", [I10], log::read_beyond_end;
    "a committed read passes the last stable offset", [I17], log::read_unstable;
    "OFFSET_OUT_OF_RANGE inside the log", [I11], log::out_of_range;
    "a value that nobody sent", [I12], log::phantom;
    "a value read before it was sent", [I12], log::read_before_sent;
    "a value of another partition", [I12], log::wrong_partition;
    "a value of a deleted topic under its name", [I12], log::resurrected;
    "ListOffsets by time skips a record", [I13], |h, s| log::by_time(h, s, true);
    "ListOffsets by time answers an earlier record", [I13], |h, s| log::by_time(h, s, false);
    "what was refused is visible", [I6], log::refused_is_visible;
    "a fetch skips a record", [I2, I23], log::skip_in_fetch;
    "a poll skips a record", [I23], groups::skip_in_poll;
    "a poll repeats a record", [I23], groups::repeat_in_poll;
    "a poll skips what was between it and the one before", [I24, I26], groups::lose_poll;
    "an assignment begins at zero again", [I24], groups::back_to_zero;
    "a committed offset goes back", [I25], groups::commit_goes_back;
    "a committed offset is forgotten", [I25], groups::commit_forgotten;
    "an offset is fetched that nobody committed", [I25], groups::commit_invented;
    "more is committed than was delivered", [I26], groups::commit_too_far;
    "a stale generation's commit is accepted", [I27], groups::stale_commit;
    "two own a partition in one generation", [I27], groups::two_owners;
    "a generation begins after a later one", [I27], groups::generation_goes_back;
    "the final sweep gets nothing where there is something", [I29], rest::stuck;
    "a first batch is refused for its producer", [I31], rest::first_refused;
    "a producer id is given twice", [I32], rest::same_producer;
    "a topic is not there after it was created", [I39], |h, s| rest::topic_stale(h, s, true);
    "a topic is there after it was deleted", [I39], |h, s| rest::topic_stale(h, s, false);
    "a setting goes back", [I39], rest::setting_goes_back;
    "a record has another value since it is cold", [I37], cold::other_value;
    "a record has another time since it is cold", [I37], cold::other_time;
    "a cold record is skipped", [I37], cold::skipped;
    "a table has a row twice", [I38], cold::row_twice;
    "a table lacks a row", [I38], |h, s| cold::row_missing(h, s, false);
    "a table lacks its first row", [I38], |h, s| cold::row_missing(h, s, true);
    "a table has another value than the log", [I38], |h, s| cold::row_differs(h, s, true);
    "a table has another time than the log", [I38], |h, s| cold::row_differs(h, s, false);
    "a table has fewer rows than before", [I38], cold::table_goes_back;
    "a table has a row that the log does not have", [I38], cold::row_beyond_the_log;
}

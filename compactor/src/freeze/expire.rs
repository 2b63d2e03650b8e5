//! What retention may take of the cold offsets of a log.
//!
//! As [`crate::retention`] does with extents, row groups go whole and from the front only: while they
//! are older than `retention.ms`, or while what would remain holds `retention.bytes`. What a node of
//! the manifest says of everything below it is enough where all of it goes, so of a long log that
//! loses its oldest hour, the root and a leaf are read.

use frazil_core::cold::NodeRef;
use frazil_core::{Offset, TopicPartition};

use super::{Ctx, JobError, manifests};
use crate::retention::Limits;

/// What goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    /// Where the log may begin.
    pub(crate) to: Offset,
    /// Row groups, or nodes, that are below that and were not before.
    pub(crate) count: u64,
    /// Bytes that remain, extents included.
    pub(crate) remaining: u64,
    /// Whether all that is cold goes.
    pub(crate) all: bool,
}

enum Left {
    Node(NodeRef),
    Group(Piece),
}

/// A node or a row group.
struct Piece {
    base: Offset,
    end: Offset,
    bytes: u64,
    max_timestamp: i64,
}

impl Expired {
    /// Whether `piece` goes, which is next.
    fn takes(&mut self, piece: &Piece, limits: Limits, now_ms: i64, log_start: Offset) -> bool {
        let remaining = self.remaining.saturating_sub(piece.bytes);
        if piece.end <= log_start {
            self.remaining = remaining;
            return true;
        }
        let age = limits.age_ms;
        let too_old = age.is_some_and(|age| piece.max_timestamp < now_ms.saturating_sub(age));
        let too_much = limits.bytes.is_some_and(|keep| remaining >= keep);
        if too_old || too_much {
            self.remaining = remaining;
            self.to = piece.end;
            self.count += 1;
        }
        too_old || too_much
    }
}

/// What may go of a log of `bytes` bytes that begins at `log_start`, whose manifest has this root.
pub(crate) async fn expired(
    ctx: &Ctx,
    partition: &TopicPartition,
    root: NodeRef,
    log_start: Offset,
    bytes: u64,
    limits: Limits,
) -> Result<Expired, JobError> {
    let now_ms = ctx.ledger.now_ms();
    let mut expired = Expired {
        to: log_start,
        count: 0,
        remaining: bytes,
        all: false,
    };
    let mut left = vec![Left::Node(root)];
    while let Some(next) = left.pop() {
        match next {
            Left::Group(group) => {
                if !expired.takes(&group, limits, now_ms, log_start) {
                    return Ok(expired);
                }
            }
            Left::Node(node) => {
                let whole = Piece {
                    base: node.base,
                    end: node.end,
                    bytes: node.bytes,
                    max_timestamp: node.max_timestamp,
                };
                // One that the log start lies in must be looked into for what it still holds.
                let cut = whole.base < log_start && log_start < whole.end;
                if !cut && expired.takes(&whole, limits, now_ms, log_start) {
                    continue;
                }
                let node = manifests::load(&ctx.bucket, partition, &node).await?;
                let groups = node.groups().iter().rev().map(|group| {
                    Left::Group(Piece {
                        base: group.base,
                        end: group.end,
                        bytes: u64::from(group.length),
                        max_timestamp: group.max_timestamp,
                    })
                });
                left.extend(groups);
                left.extend(node.children().iter().rev().cloned().map(Left::Node));
            }
        }
    }
    expired.all = true;
    Ok(expired)
}

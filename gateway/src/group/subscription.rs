//! What the members of a group subscribe to, as far as their metadata tells.
//!
//! ```text
//! ConsumerProtocolSubscription (KIP-429): version i16 | count i32 | (length i16 | topic)* | …
//! ```
//!
//! The metadata is opaque to a coordinator; this is read for one purpose only, to refuse the
//! deletion of offsets that a member is using.

use std::collections::BTreeSet;

use frazil_core::group::Group;

/// Topics that a group's members subscribe to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Subscribed {
    /// These.
    Topics(BTreeSet<String>),
    /// Members are consumers, and at least one does not tell: any topic may be among theirs.
    Any,
    /// Members are no consumers, so they have no subscriptions that could be told.
    Unknowable,
}

impl Subscribed {
    pub(super) fn of(group: &Group) -> Self {
        if group.members.is_empty() {
            return Self::Topics(BTreeSet::new());
        }
        if group.protocol_type != "consumer" {
            return Self::Unknowable;
        }
        let mut all = BTreeSet::new();
        // During a first rebalance no protocol is chosen yet: all that are offered count.
        let chosen = |name: &String| group.protocol.as_ref().is_none_or(|chosen| chosen == name);
        for member in group.members.values() {
            for (_, metadata) in member.protocols.iter().filter(|(name, _)| chosen(name)) {
                match topics(metadata) {
                    Some(topics) => all.extend(topics),
                    None => return Self::Any,
                }
            }
        }
        Self::Topics(all)
    }

    pub(super) fn contains(&self, topic: &str) -> bool {
        match self {
            Self::Topics(topics) => topics.contains(topic),
            Self::Any | Self::Unknowable => true,
        }
    }
}

/// The topics in a subscription; `None` if it is not one.
fn topics(metadata: &[u8]) -> Option<Vec<String>> {
    let (version, rest) = metadata.split_first_chunk::<2>()?;
    if i16::from_be_bytes(*version) < 0 {
        return None;
    }
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let mut topics = Vec::new();
    for _ in 0..u32::try_from(i32::from_be_bytes(*count)).ok()? {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
        let (name, tail) = tail.split_at_checked(length)?;
        topics.push(std::str::from_utf8(name).ok()?.to_owned());
        rest = tail;
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_are_read_within_bounds() {
        let two = b"\0\x01\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff";
        for (metadata, expected) in [
            (&two[..], Some(vec!["a".to_owned(), "bc".to_owned()])),
            (b"\0\0\0\0\0\0", Some(vec![])),
            (b"", None),
            (b"\0\0\0\0\0", None),
            (b"\xff\xff\0\0\0\0", None),
            (b"\0\0\xff\xff\xff\xff", None),
            (b"\0\0\x7f\xff\xff\xff", None),
            (b"\0\0\0\0\0\x01\x7f\xffabc", None),
            (b"\0\0\0\0\0\x01\xff\xff", None),
            (b"\0\0\0\0\0\x01\0\x01\xff", None),
        ] {
            assert_eq!(topics(metadata), expected, "{metadata:?}");
        }
        for end in 0..two.len() - 4 {
            assert_eq!(topics(&two[..end]), None, "{end}");
        }
    }
}

//! Edits of a manifest: what is written, and what is no longer needed.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use frazil_core::{Offset, TopicPartition};

use super::{FANOUT, Found, GroupRef, LEAF, MAGIC, Node, NodeRef};
use frazil_core::cold::ObjectId;

/// Edits one partition's manifest. Pure: the caller reads the nodes that are needed and writes the
/// objects that result, all of them before the metadata names the root.
#[derive(Debug)]
pub struct Editor {
    partition: TopicPartition,
    root: Node,
    /// Names what is written: a claim and the next number.
    next: ObjectId,
    shape: Shape,
    loaded: BTreeMap<ObjectId, Node>,
    objects: Vec<(ObjectId, Bytes)>,
    dropped: Vec<ObjectId>,
}

/// How large nodes get.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) leaf: usize,
    pub(super) fanout: usize,
}

/// The outcome of an edit.
#[derive(Debug)]
pub struct Edited {
    /// The new root. `None` if nothing is left.
    pub root: Option<NodeRef>,
    /// What must be in the store before the metadata names the root; the root is the last.
    pub objects: Vec<(ObjectId, Bytes)>,
    /// Manifest objects that the new root does not need any more.
    pub dropped: Vec<ObjectId>,
    /// The name that the next object of the same claim can have.
    pub next: ObjectId,
}

/// A range that is not made of whole row groups, or does not fit to what it shall replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the row groups do not fit: {0}")]
pub struct Misfit(&'static str);

/// These nodes must be given to [`Editor::load`] first; then it can be tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} manifests must be read first", .0.len())]
pub struct Need(pub Vec<NodeRef>);

/// Why a range cannot be replaced yet, or at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// Not yet.
    #[error(transparent)]
    Need(#[from] Need),
    /// It never fits.
    #[error(transparent)]
    Misfit(#[from] Misfit),
}

impl Editor {
    /// Edits the manifest with this root, or a new one whose offsets begin at `base`.
    pub fn new(
        partition: TopicPartition,
        root: Option<Node>,
        base: Offset,
        next: ObjectId,
    ) -> Self {
        let shape = Shape {
            leaf: LEAF,
            fanout: FANOUT,
        };
        Self::shaped(partition, root, base, next, shape)
    }

    pub(super) fn shaped(
        partition: TopicPartition,
        root: Option<Node>,
        base: Offset,
        next: ObjectId,
        shape: Shape,
    ) -> Self {
        let dropped = root.iter().map(|root| root.id).collect();
        let root = root.unwrap_or(Node {
            partition,
            id: next,
            base,
            end: base,
            level: 0,
            children: Vec::new(),
            groups: Vec::new(),
        });
        Self {
            partition,
            root,
            next,
            shape,
            loaded: BTreeMap::new(),
            objects: Vec::new(),
            dropped,
        }
    }

    /// Where the manifest ends: the next row group must begin there.
    pub fn end(&self) -> Offset {
        self.root.end
    }

    /// Adds row groups at the end.
    ///
    /// # Errors
    /// [`Misfit`] if they do not begin there, or do not tile their range. Nothing changes then.
    pub fn append(&mut self, groups: Vec<GroupRef>) -> Result<(), Misfit> {
        let end = self.tile(self.root.end, &groups)?;
        self.root.groups.extend(groups);
        self.root.end = end;
        Ok(())
    }

    /// Forgets what ends at `before` or earlier: whole leaves, and row groups of the root once no
    /// leaf is left. Nodes of a higher level on the way are replaced by what is in them. What
    /// remains begins at `before` or up to a leaf earlier.
    ///
    /// # Errors
    /// [`Need`]; what has been forgotten so far stays forgotten.
    pub fn truncate(&mut self, before: Offset) -> Result<(), Need> {
        while let Some(first) = self.root.children.first() {
            if first.level == 0 && first.end > before || first.base >= before {
                break;
            }
            let opened = match first.level {
                0 => Vec::new(),
                _ => match self.loaded.remove(&first.id) {
                    Some(node) => node.children,
                    None => return Err(Need(vec![first.clone()])),
                },
            };
            self.dropped.push(first.id);
            self.root.children.splice(..1, opened);
            self.set_base();
        }
        if self.root.children.is_empty() {
            let groups = &mut self.root.groups;
            let gone = groups.partition_point(|group| group.end <= before);
            groups.drain(..gone);
            self.set_base();
        }
        Ok(())
    }

    fn set_base(&mut self) {
        let first = self.root.children.first().map(|node| node.base);
        let first = first.or_else(|| self.root.groups.first().map(|group| group.base));
        self.root.base = first.unwrap_or(self.root.end);
    }

    /// Gives it a node that [`Need`] asked for.
    pub fn load(&mut self, node: Node) {
        self.loaded.insert(node.id, node);
    }

    /// Puts `groups` in place of the row groups of `range`.
    ///
    /// # Errors
    /// [`ReplaceError`]; nothing changes then.
    pub fn replace(
        &mut self,
        range: Range<Offset>,
        groups: Vec<GroupRef>,
    ) -> Result<(), ReplaceError> {
        if range.is_empty() || range.start < self.root.base || range.end > self.root.end {
            return Err(Misfit("the range is not in the manifest").into());
        }
        if self.tile(range.start, &groups)? != range.end {
            return Err(Misfit("they do not fill the range").into());
        }
        let mut need = Vec::new();
        self.check(&self.root, &range, &mut need)?;
        if !need.is_empty() {
            return Err(Need(need).into());
        }
        let head = self.root.clone_head();
        let mut root = std::mem::replace(&mut self.root, head);
        let mut insert = Some(groups);
        self.splice(&mut root, &range, &mut insert);
        self.root = root;
        Ok(())
    }

    /// The objects to be written, the root last.
    pub fn finish(mut self) -> Edited {
        let mut root = self.root.clone_head();
        root.children = std::mem::take(&mut self.root.children);
        root.groups = std::mem::take(&mut self.root.groups);
        while root.groups.len() >= 2 * self.shape.leaf {
            let groups: Vec<_> = root.groups.drain(..self.shape.leaf).collect();
            let leaf = self.write_leaf(groups);
            root.children.push(leaf);
        }
        let mut start = 0;
        while let Some(first) = root.children.get(start) {
            let level = first.level;
            let run = root.children[start..].iter();
            let run = run.take_while(|node| node.level == level).count();
            if run < 2 * self.shape.fanout {
                start += run;
                continue;
            }
            let end = start + self.shape.fanout;
            let children: Vec<_> = root.children.drain(start..end).collect();
            let node = self.write_inner(level + 1, children);
            root.children.insert(start, node);
            // It may complete a run of its own level.
            start = 0;
        }
        root.level = root
            .children
            .iter()
            .map(|node| node.level + 1)
            .max()
            .unwrap_or(0);
        let empty = root.base == root.end;
        let root = (!empty).then(|| self.write(root));
        let written: Vec<_> = self.objects.iter().map(|(id, _)| *id).collect();
        // What was written and replaced again in the same edit was never in the store.
        let (unborn, dropped): (Vec<_>, Vec<_>) = self
            .dropped
            .into_iter()
            .partition(|id| written.contains(id));
        self.objects.retain(|(id, _)| !unborn.contains(id));
        Edited {
            root,
            objects: self.objects,
            dropped,
            next: self.next,
        }
    }

    /// Where `groups` end if they tile the offsets from `from` on.
    fn tile(&self, from: Offset, groups: &[GroupRef]) -> Result<Offset, Misfit> {
        let mut at = from;
        for group in groups {
            if group.base != at || !group.is_sound() {
                return Err(Misfit("they leave gaps or overlap"));
            }
            if group.partition != self.partition.partition {
                return Err(Misfit("they are of another partition"));
            }
            at = group.end;
        }
        Ok(at)
    }

    /// Checks that `range` is made of whole row groups, and collects the nodes that are not here.
    fn check(
        &self,
        node: &Node,
        range: &Range<Offset>,
        need: &mut Vec<NodeRef>,
    ) -> Result<(), Misfit> {
        for child in node
            .children
            .iter()
            .filter(|child| touches(child.base..child.end, range))
        {
            match self.loaded.get(&child.id) {
                Some(child) => self.check(child, range, need)?,
                None => need.push(child.clone()),
            }
        }
        for offset in [range.start, Offset(range.end.0 - 1)] {
            if let Some(Found::Group(group)) = node.find(offset)
                && (group.base < range.start || group.end > range.end)
            {
                return Err(Misfit("a row group would be cut"));
            }
        }
        Ok(())
    }

    /// Replaces `range` in `node` and everything below it, all of which is loaded. The new groups
    /// go where the first old one was.
    fn splice(
        &mut self,
        node: &mut Node,
        range: &Range<Offset>,
        insert: &mut Option<Vec<GroupRef>>,
    ) {
        let mut children = Vec::with_capacity(node.children.len());
        for child in node.children.drain(..) {
            if touches(child.base..child.end, range) {
                let mut loaded = self.loaded.remove(&child.id).expect("checked");
                self.dropped.push(child.id);
                self.splice(&mut loaded, range, insert);
                children.extend(self.rewrite(&loaded));
            } else {
                children.push(child);
            }
        }
        node.children = children;
        let start = node
            .groups
            .partition_point(|group| group.end <= range.start);
        let end = node.groups.partition_point(|group| group.base < range.end);
        if start < end {
            let groups = insert.take().unwrap_or_default();
            node.groups.splice(start..end, groups);
        }
    }

    /// Writes what a leaf or inner node has become: none, one or several of its level.
    fn rewrite(&mut self, node: &Node) -> Vec<NodeRef> {
        // Evenly, so that none is left nearly empty beside full ones.
        let even = |count: usize, max: usize| count.div_ceil(count.div_ceil(max).max(1)).max(1);
        if node.level == 0 {
            let size = even(node.groups.len(), self.shape.leaf);
            let groups = node.groups.chunks(size);
            groups
                .map(|groups| self.write_leaf(groups.to_vec()))
                .collect()
        } else {
            let size = even(node.children.len(), self.shape.fanout);
            let children = node.children.chunks(size);
            children
                .map(|children| self.write_inner(node.level, children.to_vec()))
                .collect()
        }
    }

    fn write_leaf(&mut self, groups: Vec<GroupRef>) -> NodeRef {
        let node = Node {
            base: groups[0].base,
            end: groups[groups.len() - 1].end,
            level: 0,
            groups,
            ..self.root.clone_head()
        };
        self.write(node)
    }

    fn write_inner(&mut self, level: u8, children: Vec<NodeRef>) -> NodeRef {
        let node = Node {
            base: children[0].base,
            end: children[children.len() - 1].end,
            level,
            children,
            ..self.root.clone_head()
        };
        self.write(node)
    }

    fn write(&mut self, mut node: Node) -> NodeRef {
        node.id = self.next;
        self.next.number += 1;
        debug_assert_eq!(node.check(), Ok(()));
        let bytes = crate::framed(MAGIC, &node);
        let reference = node.summary(bytes.len() as u32, crc32c::crc32c(&bytes));
        self.objects.push((node.id, bytes.into()));
        self.loaded.insert(node.id, node);
        reference
    }
}

impl Node {
    /// The node without what stands in it.
    fn clone_head(&self) -> Self {
        Self {
            partition: self.partition,
            id: self.id,
            base: self.base,
            end: self.end,
            level: self.level,
            children: Vec::new(),
            groups: Vec::new(),
        }
    }
}

fn touches(one: Range<Offset>, other: &Range<Offset>) -> bool {
    one.start < other.end && other.start < one.end
}

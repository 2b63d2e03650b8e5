//! Finding the topics that a request names.
//!
//! A topic that the local image does not know may have been created through another gateway a
//! moment ago, and acknowledged: what is unknown is looked for again after a barrier.

use frazil_core::PortResult;

use crate::Ctx;

/// Brings the image up to date if it does not know one of the topics.
///
/// # Errors
/// Those of the barrier: then nothing can be said of the unknown ones.
pub(crate) async fn catch_up<'a>(
    ctx: &Ctx,
    topics: impl IntoIterator<Item = &'a str>,
) -> PortResult<()> {
    let unknown = topics
        .into_iter()
        .any(|name| ctx.catalog.topic(name).is_none());
    if unknown {
        ctx.log.barrier().await
    } else {
        Ok(())
    }
}

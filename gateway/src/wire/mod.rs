//! Kafka's wire format where it meets bytes from strangers, and where copies would cost.
//!
//! | file | idea |
//! |---|---|
//! | `reader` | bounds-safe primitives over a slice |
//! | `header` | the request header |
//! | `layout` | what every request looks like, version by version, as data |
//! | `guard` | walks a request by its layout and refuses what would make the decoders allocate |
//! | `produce` | the Produce request, record sets as slices of the frame |
//! | `fetch` | the Fetch response around record batches that are not copied |
//! | `response` | a response as pieces, written vectored |
//!
//! Invariant: the decoders of `kafka-protocol` see only requests that [`guard::check`] let pass:
//! they allocate for whatever count a request claims.

pub(crate) mod fetch;
pub mod guard;
pub mod header;
mod layout;
pub mod produce;
mod reader;
pub mod response;

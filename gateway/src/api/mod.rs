//! One file per API. Each has `handle(ctx, connection, header, request, version) -> response`;
//! what a handler cannot do it says inside the response.

pub(crate) mod api_versions;
pub(crate) mod describe_cluster;

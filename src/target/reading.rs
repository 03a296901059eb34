//! All paths that an upstream may take a path for.

/// What else a path may mean; empty for nearly every path.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {}

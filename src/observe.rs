//! What an operator can see of streams, readers and jobs while they run: events and spans, with the feature `tracing`.
//!
//! Without the feature all of it is nothing, and takes no room; only `observe/events` names the crate `tracing`. It must never
//! be given a key, a nonce, a context, a path or a byte of plaintext, so nothing here takes any; and no span may be entered
//! across an await.
//!
//! What is told is [API](crate::guide::observability).

#[cfg(feature = "tracing")]
mod events;
#[cfg(not(feature = "tracing"))]
mod nothing;

#[cfg(feature = "tracing")]
pub(crate) use self::events::{Job, Watch, range_failed, reader_failed, reader_opened};
#[cfg(not(feature = "tracing"))]
pub(crate) use self::nothing::{Job, Watch, range_failed, reader_failed, reader_opened};

/// Which way a stream goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Encrypt,
    Decrypt,
}

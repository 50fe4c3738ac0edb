//! The stream as Tokio readers and writers.
//!
//! Each adapter is a thin layer that moves bytes between an inner reader or writer and a buffer of one frame:
//! [`SealBuffer`](seal_buffer::SealBuffer) on the encrypting side, [`OpenBuffer`](open_buffer::OpenBuffer) on the other. The
//! buffers know the stream and do no I/O; the adapters do I/O and must know nothing of the stream.

mod decrypt_reader;
mod encrypt_writer;
mod offload;
pub(crate) mod open_buffer;
mod seal_buffer;

pub use decrypt_reader::DecryptReader;
pub use encrypt_writer::EncryptWriter;

//! The stream as Tokio readers and writers.
//!
//! Each adapter is a thin layer that moves bytes between an inner reader or writer and a buffer of one frame:
//! [`SealBuffer`](seal_buffer::SealBuffer) on the encrypting side, [`OpenBuffer`](open_buffer::OpenBuffer) on the other. The
//! buffers know the stream and do no I/O; the adapters do I/O and must know nothing of the stream.

mod decrypt_reader;
mod decrypt_writer;
mod encrypt_reader;
mod encrypt_writer;
pub(crate) mod offload;
pub(crate) mod open_buffer;
pub(crate) mod poll;
mod seal_buffer;
mod seek_buffer;
mod seek_reader;

pub use decrypt_reader::DecryptReader;
pub use decrypt_writer::DecryptWriter;
pub use encrypt_reader::EncryptReader;
pub use encrypt_writer::EncryptWriter;
pub use seek_reader::SeekReader;

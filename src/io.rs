//! The stream as Tokio readers and writers.
//!
//! Each adapter is a thin layer that moves bytes between an inner reader or writer and a queue of frames:
//! [`SealQueue`](seal_queue::SealQueue) on the encrypting side, [`OpenQueue`](open_queue::OpenQueue) on the other. The
//! queues know the stream and do no I/O; the adapters do I/O and must know nothing of the stream. With one worker a queue is
//! one frame long.

mod decrypt_reader;
mod decrypt_writer;
mod encrypt_reader;
mod encrypt_writer;
pub(crate) mod open_queue;
pub(crate) mod poll;
mod seal_queue;
mod seek_buffer;
mod seek_reader;

pub use decrypt_reader::DecryptReader;
pub use decrypt_writer::DecryptWriter;
pub use encrypt_reader::EncryptReader;
pub use encrypt_writer::EncryptWriter;
pub use seek_reader::SeekReader;

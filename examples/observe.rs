//! What streams, readers by offset and files tell of themselves through the feature `tracing`.
//!
//! ```text
//! cargo run --features tracing --example observe
//! ```
//!
//! A program has a subscriber already, most likely of `tracing-subscriber`; `RUST_LOG=info,agcm=debug` shows all of this there.
//! The one here prints the same in few lines.

use std::{
    fmt::{self, Write},
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use agcm::{DecryptReader, EncryptWriter, FileOptions, Key, RangeReader};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, sink};
use tracing::{
    Event, Instrument, Level, Metadata, Subscriber,
    field::{Field, Visit},
    info_span,
    span::{Attributes, Id, Record},
};

/// Prints every event and every field, and whatever a span has learnt at its end.
struct Printer(AtomicU64);

/// Fields, in one line.
#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

impl Subscriber for Printer {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let (mut line, id) = (Line::default(), self.0.fetch_add(1, Ordering::Relaxed));
        span.record(&mut line);
        println!("  ({} {id}:{})", span.metadata().name(), line.0);
        Id::from_u64(id)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut line = Line::default();
        values.record(&mut line);
        println!("  ({}:{})", span.into_u64(), line.0);
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        println!("{:5} {}: {}", event.metadata().level(), event.metadata().target(), line.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    tracing::subscriber::set_global_default(Printer(AtomicU64::new(1))).map_err(io::Error::other)?;
    let key = Key::generate();

    println!("-- a stream that is written and read");
    let mut writer = EncryptWriter::new(Vec::new(), &key);
    writer.write_all(&[7; 200_000]).await?;
    writer.shutdown().await?;
    let stream = writer.into_inner();
    copy(&mut DecryptReader::new(&stream[..], &key), &mut sink()).await?;

    println!("-- a peer that goes away, a reader that loses interest, and damage");
    let _ = DecryptReader::new(&stream[..100_000], &key).read_to_end(&mut Vec::new()).await;
    DecryptReader::new(&stream[..], &key).read_u8().await?;
    let mut damaged = stream.clone();
    damaged[70_000] ^= 1;
    let _ = DecryptReader::new(&damaged[..], &key).read_to_end(&mut Vec::new()).await;

    println!("-- ranges");
    let reader = RangeReader::open(Bytes::from(damaged), &key).await?;
    reader.read_range(150_000..160_000).await?;
    let _ = reader.read_range(60_000..70_000).await;

    println!("-- a file, in a span of the program's own");
    let folder = tempfile::tempdir()?;
    let options = FileOptions::new();
    let restore = options.decrypt_from(&stream[..], folder.path().join("restored"), &key);
    restore.instrument(info_span!("restore", request = 17)).await?;
    Ok(())
}

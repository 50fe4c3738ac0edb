//! Several streams in a row on one TCP connection, as frames, each ended by `Frame::End` and answered.
//!
//! ```text
//! cargo run --example framed
//! ```

use std::io;

use agcm::{
    DecryptOptions, EncryptOptions, Error, Key,
    codec::{Frame, FrameCodec, FrameDecoder, FrameEncoder, framed},
};
use bytes::Bytes;
use futures::{SinkExt, TryStreamExt};
use tokio::net::{TcpListener, TcpStream};

/// Each direction has its own context, so that nobody can send one side its own streams back.
fn codec(key: &Key, sending: &str, receiving: &str) -> Result<FrameCodec, Error> {
    Ok(FrameCodec::new(
        FrameEncoder::with_options(key, &EncryptOptions::new().context(sending)?),
        FrameDecoder::with_options(key, &DecryptOptions::new().context(receiving)?),
    ))
}

async fn serve(listener: TcpListener, key: Key) -> io::Result<()> {
    let (socket, _) = listener.accept().await?;
    let mut connection = framed(socket, codec(&key, "to client", "to server")?);
    let mut len = 0;
    while let Some(frame) = connection.try_next().await? {
        match frame {
            Frame::Data(data) => len += data.len(),
            // Only now is it known that the snapshot is whole.
            Frame::End => {
                connection.feed(Frame::Data(format!("got {len} bytes").into())).await?;
                connection.send(Frame::End).await?;
                len = 0;
            }
        }
    }
    Ok(()) // the client closed the connection, between two streams
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let key = Key::generate();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(serve(listener, key.clone()));

    let mut connection = framed(TcpStream::connect(address).await?, codec(&key, "to server", "to client")?);
    for (name, len) in [("users", 1_000_000), ("orders", 300_000), ("nothing", 0)] {
        for piece in vec![7; len].chunks(agcm::DEFAULT_CHUNK_SIZE) {
            // Four of these go out in one write.
            connection.feed(Frame::Data(Bytes::copy_from_slice(piece))).await?;
        }
        connection.send(Frame::End).await?;
        loop {
            match connection.try_next().await? {
                Some(Frame::Data(answer)) => println!("{name}: {}", String::from_utf8_lossy(&answer)),
                Some(Frame::End) => break,
                // A clean end of the connection, but not where an answer was due.
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
    }
    connection.close().await?;
    server.await?
}

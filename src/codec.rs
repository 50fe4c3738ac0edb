//! Streams as frames, for `tokio_util::codec`: `Sink` and `Stream` of [`Frame`].
//!
//! A connection carries any number of streams in a row: [`framed`] for both directions of it, [`framed_write`] and
//! [`framed_read`] for one. They are [`Framed`], [`FramedWrite`] and [`FramedRead`] with buffers that suit these frames.
//!
//! The encoder never merges items or holds one back; the decoder stays failed after an error, because [`FramedRead`] would go
//! on behind it.

use std::{fmt, io};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Decoder, Encoder, Framed, FramedRead, FramedWrite};

use crate::{
    decrypt::{Decryptor, Step},
    encrypt::Encryptor,
    format::{DEFAULT_CHUNK_SIZE, FRAME_OVERHEAD, PRELUDE_LEN, WORD_LEN, longest_frame},
    key::{Key, KeyRing},
    offload::note_work,
    options::{DecryptOptions, EncryptOptions, Trailing},
};

/// From so many bytes on, what was encoded is written before more is: four chunks of the default size.
const WRITE_LEN: usize = 4 * DEFAULT_CHUNK_SIZE;

/// What a read buffer of `tokio_util` has at the least, in bytes.
const LEAST_READ_LEN: usize = 8 * 1024;

/// Writes [`Frame`]s to `inner`, several in one write: a [`FramedWrite`] with a write buffer for them.
///
/// As it comes, [`FramedWrite`] flushes before each item as soon as 8 KiB are buffered, which is at every frame of 64 KiB. This
/// one waits for 256 KiB: items of 64 KiB are written and flushed four at a time, shorter ones as many as make up that much, and
/// longer ones one by one. (`set_backpressure_boundary` chooses another length.) What was `feed` is held until then, or until it
/// is flushed: `flush`, `close` and `send` leave nothing behind.
///
/// The buffer begins with 8 KiB and grows with what is written, to at most twice 256 KiB and the longest item together; it
/// holds sealed frames only.
///
/// ```
/// use agcm::{Key, codec::{Frame, FrameEncoder, framed_write}};
/// use futures::SinkExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let key = Key::generate();
/// let mut frames = framed_write(Vec::new(), FrameEncoder::new(&key)); // or half of a TCP connection
/// frames.feed(Frame::Data("row 1\n".into())).await?;
/// frames.feed(Frame::Data("row 2\n".into())).await?;
/// frames.feed(Frame::End).await?;
/// frames.close().await?;
/// assert_eq!(agcm::decrypt(&key, frames.get_ref())?, b"row 1\nrow 2\n");
/// # Ok(())
/// # }
/// ```
pub fn framed_write<W: AsyncWrite>(inner: W, encoder: FrameEncoder) -> FramedWrite<W, FrameEncoder> {
    let mut frames = FramedWrite::new(inner, encoder);
    frames.set_backpressure_boundary(WRITE_LEN);
    frames
}

/// Reads [`Frame`]s from `inner`, a whole one or many short ones in one read: a [`FramedRead`] with a read buffer for them.
///
/// The buffer has room for the start of a stream and a frame of 64 KiB (together 65 640 bytes), or of the longest that
/// [`DecryptOptions::max_chunk_size`] admits if that is less, but never less than the 8 KiB of [`FramedRead`]. Longer frames make
/// it grow: with what arrives until a frame has authenticated, so never on the word of a header, and from then on by all of the
/// next frame at once.
///
/// As everywhere in the codec, only [`End`](Frame::End) says that a stream was whole; `None` also comes after an error.
///
/// `Data` is handed out where it arrived. As long as it is kept, so is the buffer that it lies in: what is to be kept for long,
/// and is short, is better copied out of it.
///
/// ```
/// use agcm::{DecryptOptions, Key, codec::{Frame, FrameDecoder, framed_read}};
/// use futures::TryStreamExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let key = Key::generate();
/// # let input = agcm::EncryptOptions::new().chunk_size(4096)?.encrypt(&key, b"some rows");
/// // Many connections, of which each is to cost little: no chunks over 4 KiB, and a buffer of 8 KiB.
/// let options = DecryptOptions::new().max_chunk_size(4096)?;
/// let mut frames = framed_read(&input[..], FrameDecoder::with_options(&key, &options));
/// assert_eq!(frames.try_next().await?, Some(Frame::Data("some rows".into())));
/// assert_eq!(frames.try_next().await?, Some(Frame::End));
/// # Ok(())
/// # }
/// ```
pub fn framed_read<R: AsyncRead>(inner: R, decoder: FrameDecoder) -> FramedRead<R, FrameDecoder> {
    let len = decoder.read_len();
    FramedRead::with_capacity(inner, decoder, len)
}

/// Both directions of a connection: a [`Framed`] with the buffers of [`framed_write`] and [`framed_read`].
///
/// See [`FrameCodec`] for why each direction has a context of its own.
///
/// ```
/// use agcm::{DecryptOptions, EncryptOptions, Key};
/// use agcm::codec::{Frame, FrameCodec, FrameDecoder, FrameEncoder, framed};
/// use futures::{SinkExt, TryStreamExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let key = Key::generate();
/// # let (client, server) = tokio::io::duplex(1024);
/// let codec = |sending: &str, receiving: &str| {
///     Ok::<_, agcm::Error>(FrameCodec::new(
///         FrameEncoder::with_options(&key, &EncryptOptions::new().context(sending)?),
///         FrameDecoder::with_options(&key, &DecryptOptions::new().context(receiving)?),
///     ))
/// };
/// let mut client = framed(client, codec("to server", "to client")?);
/// let mut server = framed(server, codec("to client", "to server")?);
///
/// client.feed(Frame::Data("question".into())).await?;
/// client.send(Frame::End).await?;
/// assert_eq!(server.try_next().await?, Some(Frame::Data("question".into())));
/// # Ok(())
/// # }
/// ```
pub fn framed<T: AsyncRead + AsyncWrite>(inner: T, codec: FrameCodec) -> Framed<T, FrameCodec> {
    let read = BytesMut::with_capacity(codec.decoder.read_len());
    let mut frames = Framed::new(inner, codec);
    // The capacity that `Framed` can be made with would be that of the write buffer too, before anything is written.
    *frames.read_buffer_mut() = read;
    frames.set_backpressure_boundary(WRITE_LEN);
    frames
}

/// An item of a framed connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Some plaintext of the current stream.
    Data(Bytes),
    /// The end of the current stream. What was received since the last `End` is whole only now.
    End,
}

impl From<Bytes> for Frame {
    fn from(data: Bytes) -> Self {
        Self::Data(data)
    }
}

/// Encodes [`Frame`]s into one stream after the other.
///
/// The first item after an [`End`](Frame::End) starts a new stream with fresh randomness. `Data` that is longer than the chunk
/// size is split over several frames; shorter `Data` makes a shorter frame, and empty `Data` writes nothing. An `End` with no
/// `Data` before it is a stream too, an empty one.
///
/// An item that fails ([`StreamTooLong`](crate::Error::StreamTooLong), or no randomness for a new stream) has added nothing of
/// its data, and the encoder goes on with the next.
///
/// Sealing is done within the call, whatever the length of an item: send pieces of some 64 KiB rather than one of a gigabyte.
/// A codec cannot give way to other tasks by itself; the connection does that for it, if it is one of Tokio's, after some 1 MiB.
/// Make the connection by [`framed_write`] or [`framed`]: [`FramedWrite::new`] would flush at every such piece.
///
/// ```
/// use agcm::{Key, codec::{Frame, FrameEncoder}};
/// use bytes::BytesMut;
/// use tokio_util::codec::Encoder;
///
/// let key = Key::generate();
/// let mut encoder = FrameEncoder::new(&key);
/// let mut buffer = BytesMut::new();
/// encoder.encode(Frame::Data("one frame".into()), &mut buffer)?;
/// encoder.encode(Frame::End, &mut buffer)?;
/// assert_eq!(agcm::decrypt(&key, &buffer)?, b"one frame");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct FrameEncoder {
    key: Key,
    options: EncryptOptions,
    /// `None` between streams.
    stream: Option<Encryptor>,
}

impl FrameEncoder {
    /// An encoder with the default options.
    #[must_use]
    pub fn new(key: &Key) -> Self {
        Self::with_options(key, &EncryptOptions::new())
    }

    /// An encoder whose streams all have these options.
    #[must_use]
    pub fn with_options(key: &Key, options: &EncryptOptions) -> Self {
        Self { key: key.clone(), options: options.clone(), stream: None }
    }

    /// Takes the current stream; begins one, with its prelude, if there is none.
    fn take_stream(&mut self, dst: &mut BytesMut) -> io::Result<Encryptor> {
        if let Some(stream) = self.stream.take() {
            return Ok(stream);
        }
        let (stream, prelude) = Encryptor::start(&self.key, &self.options)?;
        dst.extend_from_slice(&prelude);
        Ok(stream)
    }
}

impl Encoder<Frame> for FrameEncoder {
    type Error = io::Error;

    fn encode(&mut self, item: Frame, dst: &mut BytesMut) -> io::Result<()> {
        match item {
            Frame::Data(data) if data.is_empty() => {}
            Frame::Data(data) => {
                let stream = self.take_stream(dst)?;
                let stream = self.stream.insert(stream);
                let frames = data.len().div_ceil(stream.chunk_size());
                // All of the item or nothing.
                stream.admit_more(data.len(), frames as u64)?;
                dst.reserve(data.len().saturating_add(frames.saturating_mul(FRAME_OVERHEAD)));
                for chunk in data.chunks(stream.chunk_size()) {
                    stream.seal_onto(chunk, dst)?;
                }
                note_work(data.len());
            }
            Frame::End => {
                let stream = self.take_stream(dst)?;
                dst.extend_from_slice(&stream.finish());
            }
        }
        Ok(())
    }
}

impl fmt::Debug for FrameEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameEncoder").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// Decodes streams that follow each other into [`Frame`]s.
///
/// Each frame is decrypted in the buffer that it arrived in, and handed out without a copy. `Data` is authentic, but only
/// [`End`](Frame::End) says that the stream was whole: if the connection ends or an error comes before it, what was received
/// since the last `End` is a prefix.
///
/// The end of the input is a clean one only between two streams; anywhere else it is [`Truncated`](crate::Error::Truncated).
/// After an error every call returns the same error; a [`FramedRead`] or [`Framed`] puts a `None` behind each of them. So
/// `None` says nothing of whether all was there: only [`End`](Frame::End) does. With [`Trailing::Reject`] there is exactly one
/// stream, and nothing may follow it.
///
/// Decoders read ahead, so a [`FramedRead`] may hold bytes that belong to what follows the last stream: take them from its
/// `into_parts`. Where that matters, [`DecryptReader`](crate::DecryptReader) never does it.
///
/// ```
/// use agcm::{Key, codec::{Frame, FrameDecoder, framed_read}};
/// use futures::TryStreamExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let key = Key::generate();
/// let input = [agcm::encrypt(&key, b"one"), agcm::encrypt(&key, b"two")].concat();
///
/// let frames = framed_read(&input[..], FrameDecoder::new(&key));
/// let frames: Vec<Frame> = frames.try_collect().await?;
/// assert_eq!(frames, [Frame::Data("one".into()), Frame::End, Frame::Data("two".into()), Frame::End]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FrameDecoder {
    keys: KeyRing,
    options: DecryptOptions,
    stream: Decryptor,
    /// The input must not end before the current stream has: something of it has arrived.
    begun: bool,
}

impl FrameDecoder {
    /// A decoder with the default options.
    #[must_use]
    pub fn new(keys: impl Into<KeyRing>) -> Self {
        Self::with_options(keys, &DecryptOptions::new())
    }

    /// A decoder that opens every stream with these options.
    #[must_use]
    pub fn with_options(keys: impl Into<KeyRing>, options: &DecryptOptions) -> Self {
        let keys = keys.into();
        let stream = Decryptor::new(&keys, options);
        // Where there is to be exactly one stream, an input without any is cut as well.
        let begun = options.trailing == Some(Trailing::Reject);
        Self { keys, options: options.clone(), stream, begun }
    }

    /// How long a read buffer is to be at the start, in bytes: for what a first read may bring of a stream whose chunks are not
    /// longer than the default, if they may be that long.
    fn read_len(&self) -> usize {
        let chunk_size = DEFAULT_CHUNK_SIZE.min(self.options.max_chunk_size.get());
        LEAST_READ_LEN.max(PRELUDE_LEN + longest_frame(chunk_size) + WORD_LEN)
    }
}

impl Decoder for FrameDecoder {
    type Item = Frame;
    type Error = io::Error;

    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<Frame>> {
        self.begun |= !src.is_empty();
        loop {
            match self.stream.open_in_place(src)? {
                Step::Incomplete { allowed, .. } => {
                    // Until then, the buffer grows by what arrives, as its reader lets it.
                    if self.stream.trusted_chunk_size().is_some() {
                        src.reserve(allowed - src.len());
                    }
                    return Ok(None);
                }
                Step::Start { consumed } => src.advance(consumed),
                Step::Data { consumed, plaintext } => {
                    note_work(consumed);
                    let mut frame = src.split_to(consumed);
                    frame.truncate(plaintext.end);
                    frame.advance(plaintext.start);
                    return Ok(Some(Frame::Data(frame.freeze())));
                }
                // There was no stream to end: one has ended before, and nothing may follow it.
                Step::End { consumed: 0 } => return Ok(None),
                Step::End { consumed } => {
                    src.advance(consumed);
                    if self.options.trailing != Some(Trailing::Reject) {
                        *self = Self::with_options(&self.keys, &self.options);
                    }
                    return Ok(Some(Frame::End));
                }
            }
        }
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> io::Result<Option<Frame>> {
        let frame = self.decode(src)?;
        if frame.is_none() && self.begun {
            self.stream.end_of_input(src.len())?;
        }
        Ok(frame)
    }
}

/// Both directions of a connection, for [`framed`].
///
/// ```
/// use agcm::{DecryptOptions, EncryptOptions, Key};
/// use agcm::codec::{FrameCodec, FrameDecoder, FrameEncoder};
///
/// let key = Key::generate();
/// let to_server = EncryptOptions::new().context("to server")?;
/// let to_client = DecryptOptions::new().context("to client")?;
/// let client = FrameCodec::new(
///     FrameEncoder::with_options(&key, &to_server),
///     FrameDecoder::with_options(&key, &to_client),
/// );
/// # let _ = client;
/// # Ok::<(), agcm::Error>(())
/// ```
///
/// Give each direction its own context or its own key, as above: under the same ones, whoever is in between could send a peer
/// its own streams back, and they would open.
#[derive(Debug)]
pub struct FrameCodec {
    encoder: FrameEncoder,
    decoder: FrameDecoder,
}

impl FrameCodec {
    /// A codec of the two.
    #[must_use]
    pub fn new(encoder: FrameEncoder, decoder: FrameDecoder) -> Self {
        Self { encoder, decoder }
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = io::Error;

    fn encode(&mut self, item: Frame, dst: &mut BytesMut) -> io::Result<()> {
        self.encoder.encode(item, dst)
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = io::Error;

    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<Frame>> {
        self.decoder.decode(src)
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> io::Result<Option<Frame>> {
        self.decoder.decode_eof(src)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::{error::Error, format::MAX_FRAMES, random};

    fn data(len: usize) -> Frame {
        Frame::Data(vec![7; len].into())
    }

    #[test]
    fn past_the_limit_of_a_stream_all_of_an_item_is_refused() {
        let key = Key::generate();
        let mut encoder = FrameEncoder::with_options(&key, &EncryptOptions::new().chunk_size(16).unwrap());
        let mut wire = BytesMut::new();
        encoder.encode(data(16), &mut wire).unwrap();
        encoder.stream.as_mut().unwrap().skip_to(16, MAX_FRAMES - 2);
        wire.clear();

        let error = encoder.encode(data(33), &mut wire).unwrap_err();
        assert_eq!(Error::from_io(&error), Some(Error::StreamTooLong));
        assert!(wire.is_empty());
        encoder.encode(data(32), &mut wire).unwrap();
        assert_eq!(wire.len(), 2 * 36);
        encoder.encode(Frame::End, &mut wire).unwrap();
        encoder.encode(data(33), &mut wire).unwrap();
    }

    #[test]
    fn without_randomness_no_stream_begins_and_a_retry_works() {
        let key = Key::generate();
        let mut encoder = FrameEncoder::new(&key);
        let mut wire = BytesMut::new();
        random::failing::set(true);
        let results = [encoder.encode(data(5), &mut wire), encoder.encode(Frame::End, &mut wire)];
        random::failing::set(false);
        assert!(results.iter().all(Result::is_err));
        assert!(wire.is_empty());

        encoder.encode(data(5), &mut wire).unwrap();
        encoder.encode(Frame::End, &mut wire).unwrap();
        assert_eq!(DecryptOptions::new().decrypt(&key, &wire).unwrap(), [7; 5]);
    }
}

//! What a stream says of itself to someone without its key.
//!
//! It reads the input and opens nothing, so nothing that it finds is authentic: it helps to find out what one has, and must
//! never be what a decision rests on.

use std::io;

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader, copy_buf, sink},
    task::coop,
};

use crate::{
    error::Error,
    format::{ChunkSize, HEADER_LEN, Header, NONCE_LEN, PRELUDE_LEN, Prelude, Tally, Trailer, VERSION, WORD_LEN, Word},
};

/// How much is read at a time, in bytes.
const READ_LEN: usize = 64 * 1024;

/// What was found in a stream without its key. **Nothing of it is authentic.**
///
/// Lengths and counts are those up to the end of the stream, or, if there is a [`problem`](Self::problem), up to there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// The version of the format.
    pub version: u32,
    /// The chunk size, in bytes.
    pub chunk_size: usize,
    /// The nonce of the stream, which tells it from every other: copies of one stream have the same.
    pub nonce: [u8; NONCE_LEN],
    /// How many whole data frames there are.
    pub frames: u64,
    /// How many bytes of plaintext they hold.
    pub plaintext_len: u64,
    /// How many bytes long the stream is.
    pub stream_len: u64,
    /// Whether every data frame but the last is full, which makes it cheap to read at any offset: so far as was seen, so of a
    /// header alone it says nothing.
    pub uniform: bool,
    /// What is wrong with the stream, as far as that shows without the key: it was cut, a frame word is impossible, or
    /// something follows the end.
    pub problem: Option<Error>,
}

/// Finds out what a stream says of itself without its key: it reads all of the stream, and looks at header and frame words.
///
/// It stops where something is wrong, or one byte after the end, but reads up to 64 KiB ahead: what it leaves of the input
/// is of no use.
///
/// If that finds no [`problem`](Inspection::problem), the stream may still be damaged, or forged: only reading it with its
/// key tells.
///
/// ```
/// use agcm::{Error, Key, inspect};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let stream = agcm::encrypt(&Key::generate(), &[7; 100_000]);
///
/// let found = inspect(&stream[..]).await?;
/// assert_eq!((found.chunk_size, found.frames, found.plaintext_len), (65_536, 2, 100_000));
/// assert_eq!(found.problem, None);
///
/// let found = inspect(&stream[..70_000]).await?;
/// assert_eq!(found.frames, 1);
/// assert_eq!(found.problem, Some(Error::Truncated { at: 70_000 }));
/// # Ok(())
/// # }
/// ```
///
/// Of a stream whose length is known the first 24 bytes are enough for a guess, which reads no terabytes:
///
/// ```
/// use agcm::{Key, geometry::Uniform, inspect};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let stream = agcm::encrypt(&Key::generate(), &[7; 100_000]);
/// let header = inspect(&stream[..24]).await?;
/// let layout = Uniform::from_stream_len(stream.len() as u64, header.chunk_size);
/// assert_eq!(layout.map(|layout| layout.plaintext_len()), Some(100_000));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// If there is no header of a stream that could be looked at: [`BadMagic`](Error::BadMagic),
/// [`UnsupportedVersion`](Error::UnsupportedVersion), [`InvalidChunkSize`](Error::InvalidChunkSize),
/// [`LegacyStream`](Error::LegacyStream), [`Truncated`](Error::Truncated). Or the reader's error.
pub async fn inspect(reader: impl AsyncRead + Unpin) -> io::Result<Inspection> {
    let mut reader = BufReader::with_capacity(READ_LEN, reader);
    let mut head = Vec::with_capacity(PRELUDE_LEN);
    (&mut reader).take(PRELUDE_LEN as u64).read_to_end(&mut head).await?;
    let cut = Error::Truncated { at: head.len() as u64 };
    let Header { nonce, chunk_size } = Header::parse(&head)?.ok_or(cut)?;
    let mut tally = Tally::new(chunk_size);
    let (stream_len, problem) = match Prelude::parse(&head, ChunkSize::MAX) {
        Ok(Some(_)) => walk(&mut reader, &mut tally).await?,
        Ok(None) => (head.len() as u64, Some(cut)),
        Err(Error::LegacyStream) => return Err(Error::LegacyStream.into()),
        Err(error) => (HEADER_LEN as u64, Some(error)),
    };
    let Trailer { total, frames, uniform } = tally.trailer();
    Ok(Inspection {
        version: VERSION,
        chunk_size: chunk_size.get(),
        nonce,
        frames,
        plaintext_len: total,
        stream_len,
        uniform,
        problem,
    })
}

/// Goes from frame word to frame word, until the end or until something is wrong. Returns how far it came, and what that was.
async fn walk(mut reader: impl AsyncBufRead + Unpin, tally: &mut Tally) -> io::Result<(u64, Option<Error>)> {
    let mut start = Vec::with_capacity(WORD_LEN);
    loop {
        // Over a reader that is never pending, this would not let others run.
        coop::consume_budget().await;
        let at = tally.end();
        start.clear();
        let read = (&mut reader).take(WORD_LEN as u64).read_to_end(&mut start).await?;
        if read < WORD_LEN {
            let at = at + read as u64;
            return Ok((at, Some(Error::Truncated { at })));
        }
        let word = match Word::parse(&start, tally.chunk_size()) {
            Ok(word) => word,
            Err(word) => return Ok((at, Some(Error::InvalidFrame { frame: tally.frames(), at, word }))),
        };
        if let Word::Data(len) = word {
            if let Err(error) = tally.admit(len, 1) {
                return Ok((at, Some(error)));
            }
        }
        let body = (word.frame_len() - WORD_LEN) as u64;
        let skipped = copy_buf(&mut (&mut reader).take(body), &mut sink()).await?;
        let end = at + WORD_LEN as u64 + skipped;
        if skipped < body {
            return Ok((end, Some(Error::Truncated { at: end })));
        }
        match word {
            Word::Data(len) => tally.add(len),
            Word::Final => {
                let more = !reader.fill_buf().await?.is_empty();
                return Ok((end, more.then_some(Error::TrailingData { at: end })));
            }
        }
    }
}

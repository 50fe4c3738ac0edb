//! What an answer of the inner store holds, opened frame by frame as it arrives.
//!
//! This must never give out a byte that was not authenticated at its own place, never end before all was given out that
//! was asked for, and never hold more than a frame and the piece of the answer that it lies in.

use std::{
    mem,
    ops::{Deref, DerefMut, Range},
    sync::Arc,
};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream, Fuse},
};
use object_store::{GetResult, GetResultPayload, path::Path};
use zeroize::Zeroize;

use super::{fault::Fault, work::work_on};
use crate::{
    aead::Body,
    by_offset::ByOffset,
    decrypt::{Decryptor, Step},
    error::Error,
    format::{ChunkSize, FINAL_FRAME_LEN, FRAME_OVERHEAD, PRELUDE_LEN, TAG_LEN, Tally, WORD_LEN},
    geometry::Uniform,
    key::KeyRing,
    observe,
    options::DecryptOptions,
};

/// Up to here a file is read in one go, in bytes.
const WHOLE_LEN: u64 = 1024 * 1024;

pub(super) type Pieces = BoxStream<'static, object_store::Result<Bytes>>;

/// The bytes of an answer, in the lengths that they are asked for.
struct Inflow {
    pieces: Fuse<Pieces>,
    piece: Bytes,
}

impl Inflow {
    fn new(answer: GetResult) -> Self {
        let len = answer.range.end.saturating_sub(answer.range.start);
        // What comes over a network may be longer than was said, and is never taken as a whole.
        let is_stream = matches!(answer.payload, GetResultPayload::Stream(_));
        let pieces = match !is_stream && len <= WHOLE_LEN {
            true => stream::once(answer.bytes()).boxed(),
            false => answer.into_stream(),
        };
        Self { pieces: pieces.fuse(), piece: Bytes::new() }
    }

    /// Whether there is another byte.
    async fn has_more(&mut self) -> Result<bool, Fault> {
        while self.piece.is_empty() {
            match self.pieces.next().await {
                Some(piece) => self.piece = piece?,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The next `len` bytes, or fewer if the answer ends before.
    async fn take(&mut self, len: usize) -> Result<Frame, Fault> {
        let mut taken = Frame(BytesMut::with_capacity(len));
        self.fill(&mut taken, len).await?;
        Ok(taken)
    }

    /// Takes bytes until there are `len` of them, or the answer ends.
    async fn fill(&mut self, taken: &mut Frame, len: usize) -> Result<(), Fault> {
        while taken.len() < len && self.has_more().await? {
            let n = self.piece.len().min(len - taken.len());
            taken.extend_from_slice(&self.piece[..n]);
            self.piece.advance(n);
        }
        Ok(())
    }

    /// Passes over `len` bytes.
    async fn skip(&mut self, mut len: u64) -> Result<(), Fault> {
        while len > 0 && self.has_more().await? {
            let n = usize::try_from(len).map_or(self.piece.len(), |len| len.min(self.piece.len()));
            self.piece.advance(n);
            len -= n as u64;
        }
        Ok(())
    }
}

/// The first `len` bytes of an answer, which has to have as many.
pub(super) async fn read(answer: GetResult, len: usize) -> Result<Bytes, Fault> {
    let read = Inflow::new(answer).take(len).await?;
    if read.len() < len {
        return Err(too_short());
    }
    Ok(Bytes::copy_from_slice(&read))
}

fn other_length() -> Fault {
    Fault::Words("it is not as long as the store has said that it is; read it anew".into())
}

fn too_short() -> Fault {
    let words = "the store has answered with fewer bytes than were asked for; try again, and if that does not help, \
                 compare its length with another copy";
    Fault::Words(words.into())
}

/// A frame, sealed or opened, in a buffer that is wiped unless it is given out.
struct Frame(BytesMut);

impl Frame {
    /// Gives out a part of it.
    fn give_out(mut self, part: Range<usize>, plaintext: &Range<usize>) -> Bytes {
        if part == *plaintext {
            return mem::take(&mut self.0).freeze().slice(part);
        }
        // A copy, so that what is beside it is neither kept in memory nor left there.
        Bytes::copy_from_slice(&self.0[part])
    }
}

impl Deref for Frame {
    type Target = BytesMut;

    fn deref(&self) -> &BytesMut {
        &self.0
    }
}

impl DerefMut for Frame {
    fn deref_mut(&mut self) -> &mut BytesMut {
        &mut self.0
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Something that can be pulled until it ends or fails.
trait Source: Send + Sized + 'static {
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Fault>> + Send;

    /// As a stream that says the same again after it has failed, and so never ends by failing.
    fn into_pieces(self, path: Path) -> Pieces {
        stream::unfold((self, None::<Fault>, path), |(mut source, mut failed, path)| async move {
            let fault = match &failed {
                Some(fault) => fault.again(),
                None => match source.next().await {
                    Ok(Some(piece)) => return Some((Ok(piece), (source, failed, path))),
                    Ok(None) => return None,
                    Err(fault) => fault,
                },
            };
            failed = Some(fault.again());
            Some((Err(fault.about(&path)), (source, failed, path)))
        })
        // `GetResult::bytes` asks once more after the end.
        .fuse()
        .boxed()
    }
}

/// A whole object, read from its first byte to its last.
pub(super) struct Whole {
    inflow: Inflow,
    /// It is away while a chunk is opened.
    decryptor: Option<Decryptor>,
    layout: Uniform,
    /// The place of the next frame.
    place: Tally,
    /// How much the last frame held, once one was not as long as it should be.
    odd: Option<usize>,
    /// The end was checked.
    over: bool,
}

/// A frame that is being opened.
struct Opening {
    decryptor: Decryptor,
    frame: Frame,
    step: Option<Result<Step, Error>>,
}

impl Whole {
    /// Reads what comes before the first frame, and checks it: this is a stream, under one of these keys, as this store
    /// writes them.
    pub(super) async fn start(
        answer: GetResult,
        keys: &KeyRing,
        options: &DecryptOptions,
        chunk_size: ChunkSize,
    ) -> Result<Self, Fault> {
        let len = answer.meta.size;
        let mut inflow = Inflow::new(answer);
        let mut decryptor = Decryptor::new(keys, options);
        let mut prelude = inflow.take(PRELUDE_LEN).await?;
        if let Step::Incomplete { .. } = decryptor.open_in_place(&mut prelude)? {
            decryptor.end_of_input(prelude.len())?;
        }
        check_chunk_size(decryptor.chunk_size().unwrap_or_default(), chunk_size)?;
        let layout = layout(len, chunk_size)?;
        Ok(Self { inflow, decryptor: Some(decryptor), layout, place: Tally::new(chunk_size), odd: None, over: false })
    }

    /// How long the plaintext is if the object is what it seems to be. The end of the pieces says that it was.
    pub(super) fn len(&self) -> u64 {
        self.layout.plaintext_len()
    }

    pub(super) fn into_pieces(self, path: Path) -> Pieces {
        Source::into_pieces(self, path)
    }

    /// The plaintext of the next frame, or `None` at the end.
    ///
    /// What a frame says of its own length decides what is wrong, not what the length of the object suggests: of one that was cut or
    /// has grown that is another layout. From the first frame on that does not fit, nothing is given out, and it ends in an
    /// error.
    async fn open_next(&mut self) -> Result<Option<Bytes>, Fault> {
        while !self.over {
            let left = self.len().saturating_sub(self.place.total());
            let chunk_size = self.layout.chunk_size();
            let expected = usize::try_from(left).unwrap_or(usize::MAX).min(chunk_size);
            let (mut decryptor, frame, step) = self.open_frame(expected).await?;
            match step {
                Step::Data { .. } if self.odd.is_some_and(|len| len < chunk_size) => return Err(irregular(chunk_size)),
                Step::Data { plaintext, .. } => {
                    self.place.add(plaintext.len());
                    self.decryptor = Some(decryptor);
                    if self.odd.is_none() && plaintext.len() == expected {
                        return Ok(Some(frame.give_out(plaintext.clone(), &plaintext)));
                    }
                    self.odd = Some(plaintext.len());
                    if self.place.end() > self.layout.stream_len() {
                        return Err(other_length());
                    }
                }
                _ => {
                    if self.inflow.has_more().await? {
                        // It says so, and where.
                        decryptor.open_in_place(&mut self.inflow.take(1).await?)?;
                    }
                    if self.place.total() != self.len() {
                        return Err(other_length());
                    }
                    self.over = true;
                }
            }
        }
        Ok(None)
    }

    /// Reads the next frame, as long as its word says that it is, and opens it. It probably holds `expected` bytes, and what is
    /// given out of it keeps no more memory than that.
    async fn open_frame(&mut self, expected: usize) -> Result<(Decryptor, Frame, Step), Fault> {
        let Some(mut decryptor) = self.decryptor.take() else {
            return Err(Fault::Words("it was given up while a chunk was opened".into()));
        };
        let mut frame = Frame(BytesMut::with_capacity(FINAL_FRAME_LEN.max(FRAME_OVERHEAD + expected)));
        let mut required = WORD_LEN;
        // First for the word, and then for all of it.
        for _ in 0..2 {
            self.inflow.fill(&mut frame, required).await?;
            if frame.len() < required {
                decryptor.end_of_input(frame.len())?;
            }
            let opening = Opening { decryptor, frame, step: None };
            let open = |opening: &mut Opening| opening.step = Some(opening.decryptor.open_in_place(&mut opening.frame));
            let opened = work_on(opening, required, |opening| opening.step.is_none(), open).await?;
            (decryptor, frame) = (opened.decryptor, opened.frame);
            match opened.step.transpose()? {
                Some(Step::Incomplete { required: more, .. }) => required = more,
                Some(step) => return Ok((decryptor, frame, step)),
                None => break,
            }
        }
        Err(Fault::Words("a frame did not say how long it is".into()))
    }
}

impl Source for Whole {
    async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        self.open_next().await
    }
}

/// Some frames of an object whose two ends were checked.
pub(super) struct Part {
    inflow: Inflow,
    stream: Arc<ByOffset>,
    /// The place of the next frame.
    place: Tally,
    /// What is still to be given out, for who takes it as pieces.
    rest: Range<u64>,
}

/// A frame that is being opened.
struct OpeningAt {
    stream: Arc<ByOffset>,
    place: Tally,
    frame: Frame,
    opened: Option<Result<usize, Error>>,
}

impl OpeningAt {
    fn open(&mut self) {
        self.opened = Some(self.try_open());
    }

    fn try_open(&mut self) -> Result<usize, Error> {
        let len = self.stream.whole_frame(&self.place, &self.frame)?;
        let (body, tag) = self.frame[WORD_LEN..].split_at_mut(len);
        self.stream.open_body(&self.place, Body::InPlace(body), &tag[..TAG_LEN])?;
        Ok(len)
    }
}

impl Part {
    /// `answer` holds the frames from the one on that holds the first byte of `range`.
    pub(super) fn new(answer: GetResult, stream: Arc<ByOffset>, range: Range<u64>) -> Result<Self, Fault> {
        let Some(place) = stream.find(range.start) else { return Err(irregular(stream.chunk_size())) };
        Ok(Self { inflow: Inflow::new(answer), stream, place, rest: range })
    }

    pub(super) fn into_pieces(self, path: Path) -> Pieces {
        Source::into_pieces(self, path)
    }

    /// Appends a range to `out` that begins no earlier than the next frame does.
    pub(super) async fn read(&mut self, range: Range<u64>, out: &mut Vec<u8>) -> Result<(), Fault> {
        let Some(first) = self.stream.find(range.start) else { return Err(irregular(self.stream.chunk_size())) };
        self.inflow.skip(first.end().saturating_sub(self.place.end())).await?;
        self.place = first;
        while self.place.total() < range.end {
            let start = self.place.total();
            let (frame, plaintext) = self.open_next().await?;
            out.extend_from_slice(&frame[within(&range, start, &plaintext)]);
        }
        Ok(())
    }

    /// The next frame, opened, and where its plaintext is in it.
    async fn open_next(&mut self) -> Result<(Frame, Range<usize>), Fault> {
        let len = self.stream.most_at(&self.place);
        let frame = self.inflow.take(FRAME_OVERHEAD + len).await?;
        if frame.len() < FRAME_OVERHEAD + len {
            return Err(too_short());
        }
        let opening = OpeningAt { stream: self.stream.clone(), place: self.place, frame, opened: None };
        let opening = work_on(opening, len, |opening| opening.opened.is_none(), OpeningAt::open).await?;
        let opened = opening.opened.transpose().inspect_err(|error| observe::range_failed(*error));
        let len = opened?.unwrap_or_default();
        self.place.add(len);
        Ok((opening.frame, WORD_LEN..WORD_LEN + len))
    }
}

impl Source for Part {
    async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let start = self.place.total();
        let (frame, plaintext) = self.open_next().await?;
        let piece = frame.give_out(within(&self.rest, start, &plaintext), &plaintext);
        self.rest.start += piece.len() as u64;
        Ok(Some(piece))
    }
}

/// The part of a frame that lies in `range`, if its plaintext begins at `start`, and lies in it where it is said.
fn within(range: &Range<u64>, start: u64, plaintext: &Range<usize>) -> Range<usize> {
    let len = plaintext.len();
    let index = |position: u64| usize::try_from(position.saturating_sub(start)).unwrap_or(len).min(len);
    plaintext.start + index(range.start)..plaintext.start + index(range.end)
}

/// The layout of an object of this length.
pub(super) fn layout(len: u64, chunk_size: ChunkSize) -> Result<Uniform, Fault> {
    Uniform::from_stream_len(len, chunk_size.get()).ok_or_else(|| {
        let words = format!(
            "no stream that this store writes is {len} bytes long, with chunks of {}; it was cut, or something else has \
             written it: look for another copy, or read it as a stream, by DecryptReader",
            chunk_size.get()
        );
        Fault::Explained(Error::Truncated { at: len }, words)
    })
}

pub(super) fn check_chunk_size(found: usize, chunk_size: ChunkSize) -> Result<(), Fault> {
    if found == chunk_size.get() {
        return Ok(());
    }
    Err(Fault::Words(format!(
        "it has chunks of {found} bytes, but those of this store have {}, from which it tells how long objects are; \
         read it through a store of that chunk size (StoreOptions::chunk_size), and let all that write here agree upon one",
        chunk_size.get()
    )))
}

pub(super) fn irregular(chunk_size: usize) -> Fault {
    Fault::Words(format!(
        "it is no uniform stream: some chunk that is not its last has fewer than {chunk_size} bytes, as flushes that cut \
         make them; read it as a stream, by DecryptReader, and put it anew"
    ))
}

//! The decrypting half of the core: frames in, plaintext out, no I/O.
//!
//! Every adapter that decrypts stands on [`Decryptor`]. It must never let a plaintext byte out before the tag over it was
//! checked, never call a stream whole before its final frame was, and never forget an error.

use std::{fmt, ops::Range, sync::Arc};

use crate::{
    aead::{Body, StreamKey},
    error::Error,
    format::{
        ChunkSize, FINAL_FRAME_LEN, FRAME_OVERHEAD, Kind, MAX_FRAMES, MAX_PLAINTEXT_LEN, PRELUDE_LEN, Prelude, TAG_LEN,
        Tally, WORD_LEN, Word,
    },
    key::KeyRing,
    observe::{Direction, Watch},
    options::DecryptOptions,
};

/// Decrypts one stream, frame by frame, without doing any I/O.
///
/// This is the core that the adapters of this crate share; use it where none of them fits, in synchronous code for example.
///
/// Give [`open`](Self::open) what has arrived of the stream, beginning where the last step ended, and do what the [`Step`]
/// says; when the input is over, ask [`end_of_input`](Self::end_of_input) whether the stream was. Each call does at most one
/// AEAD operation. After an error every call returns the same error.
///
/// What was released before an error is an authentic prefix of the plaintext, not the plaintext.
///
/// ```
/// use std::io::{self, Read, Write};
/// use agcm::{DecryptOptions, Decryptor, Error, Key, Step};
///
/// fn decrypt_from(mut input: impl Read, key: &Key, mut out: impl Write) -> io::Result<()> {
///     let mut decryptor = Decryptor::new(key, &DecryptOptions::new());
///     let mut buffer = Vec::new();
///     loop {
///         match decryptor.open_in_place(&mut buffer)? {
///             Step::Start { consumed } => drop(buffer.drain(..consumed)),
///             Step::Data { consumed, plaintext } => {
///                 out.write_all(&buffer[plaintext])?;
///                 buffer.drain(..consumed);
///             }
///             Step::End { .. } => return Ok(()),
///             Step::Incomplete { required, .. } => {
///                 let missing = (required - buffer.len()) as u64;
///                 if input.by_ref().take(missing).read_to_end(&mut buffer)? == 0 {
///                     decryptor.end_of_input(buffer.len())?;
///                 }
///             }
///         }
///     }
/// }
///
/// let key = Key::generate();
/// let stream = agcm::encrypt(&key, b"synchronous");
/// let mut plaintext = Vec::new();
/// decrypt_from(&stream[..], &key, &mut plaintext)?;
/// assert_eq!(plaintext, b"synchronous");
///
/// let cut = decrypt_from(&stream[..99], &key, io::sink()).unwrap_err();
/// assert_eq!(Error::from_io(&cut), Some(Error::Truncated { at: 99 }));
/// # Ok::<(), io::Error>(())
/// ```
pub struct Decryptor {
    state: State,
    /// Where the next step begins, in bytes from the start of the stream.
    at: u64,
    watch: Watch,
}

/// What [`Decryptor::open`] made of its input. Lengths are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The input is too short for a step: call again with more of the stream appended.
    Incomplete {
        /// How long the whole input must be for the next step, counting what is there. (That step may turn out to be no
        /// more than asking for more: a frame's length is known only when its first 4 bytes are.)
        required: usize,
        /// How long the whole input may be without holding a byte from behind the stream, which matters where something
        /// follows it. It saves a read to ask for this much, but wait only for what is required.
        allowed: usize,
    },
    /// The stream was started: key and context are right. No plaintext yet.
    Start {
        /// How much of the input was used up.
        consumed: usize,
    },
    /// A data frame was opened.
    Data {
        /// How much of the input was used up.
        consumed: usize,
        /// Where the plaintext is: in the input, if the frame was opened in place, or else in the output.
        plaintext: Range<usize>,
    },
    /// The final frame was checked: the stream is whole.
    End {
        /// How much of the input was used up; 0 if the stream had ended before.
        consumed: usize,
    },
}

enum State {
    Start { keys: KeyRing, options: DecryptOptions },
    Frames(Frames),
    End,
    Failed(Error),
}

struct Frames {
    key: Arc<StreamKey>,
    tally: Tally,
}

impl Decryptor {
    /// A decryptor of one stream. [`DecryptOptions::trailing`] does not matter here: the caller decides whether bytes after
    /// [`Step::End`] are given to [`open`](Self::open), which will call them [`Error::TrailingData`].
    #[must_use]
    pub fn new(keys: impl Into<KeyRing>, options: &DecryptOptions) -> Self {
        let state = State::Start { keys: keys.into(), options: options.clone() };
        Self { state, at: 0, watch: Watch::new(Direction::Decrypt) }
    }

    /// Takes the next step; the plaintext of a data frame is appended to `out`.
    ///
    /// `input` is what has arrived of the stream, from where the last step ended.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the stream, in the order that [the format](crate::format#what-a-reader-checks) states.
    /// `out` is then as it was, and holds no plaintext of a frame that failed, not even behind its end.
    pub fn open(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Step, Error> {
        let len = match self.look(input)? {
            Look::Step(step) => return Ok(step),
            Look::Data { len } => len,
        };
        let (body, tag) = input[WORD_LEN..].split_at(len);
        let start = out.len();
        out.extend_from_slice(body);
        if let Err(error) = self.open_data(len, Body::InPlace(&mut out[start..]), tag) {
            out.truncate(start);
            return Err(error);
        }
        Ok(Step::Data { consumed: FRAME_OVERHEAD + len, plaintext: start..start + len })
    }

    /// Takes the next step, opening a data frame where it lies: its plaintext is then in `input`. Nothing is copied.
    ///
    /// ```
    /// use agcm::{DecryptOptions, Decryptor, Key, Step};
    ///
    /// let key = Key::generate();
    /// let mut stream = agcm::encrypt(&key, b"in place");
    ///
    /// let mut decryptor = Decryptor::new(&key, &DecryptOptions::new());
    /// assert_eq!(decryptor.open_in_place(&mut stream)?, Step::Start { consumed: 80 });
    /// assert_eq!(decryptor.open_in_place(&mut stream[80..])?, Step::Data { consumed: 28, plaintext: 4..12 });
    /// assert_eq!(&stream[84..92], b"in place");
    /// assert_eq!(decryptor.open_in_place(&mut stream[108..])?, Step::End { consumed: 37 });
    /// # Ok::<(), agcm::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open); where the frame that failed was, there is no plaintext: its ciphertext, or zeroes.
    pub fn open_in_place(&mut self, input: &mut [u8]) -> Result<Step, Error> {
        let len = match self.look(input)? {
            Look::Step(step) => return Ok(step),
            Look::Data { len } => len,
        };
        let (body, tag) = input[WORD_LEN..].split_at_mut(len);
        self.open_data(len, Body::InPlace(body), tag)?;
        Ok(Step::Data { consumed: FRAME_OVERHEAD + len, plaintext: WORD_LEN..WORD_LEN + len })
    }

    /// Takes the next step, but opens no data frame: goes on behind it as if it were authentic. Whoever has deferred frames must
    /// open them all before anything that was said behind them counts, say [how far](Self::reached) they were, and
    /// [fail](Self::fail) the stream if one is bad.
    pub(crate) fn defer(&mut self, input: &[u8]) -> Result<Deferral, Error> {
        let len = match self.look(input)? {
            Look::Step(step) => return Ok(Deferral::Step(step)),
            Look::Data { len } => len,
        };
        let deferred = self.found();
        self.go_on_behind(len);
        Ok(Deferral::Data { consumed: FRAME_OVERHEAD + len, deferred })
    }

    /// Says that all deferred frames before this place were opened.
    pub(crate) fn reached(&mut self, place: &Deferred) {
        self.watch.reach(place.position, place.frame);
    }

    /// Says that all deferred frames were opened.
    pub(crate) fn reached_all(&mut self) {
        self.watch.reach_passed();
    }

    /// The place of the next frame, between start and end.
    pub(crate) fn place(&self) -> Option<Deferred> {
        let State::Frames(Frames { key, tally }) = &self.state else { return None };
        Some(Deferred {
            key: key.clone(),
            chunk_size: tally.chunk_size(),
            position: tally.total(),
            frame: tally.frames(),
            at: self.at,
        })
    }

    /// Goes on behind so many full chunks, which the caller has opened at [`place`](Self::place). Returns where that is, in
    /// bytes from the start of the stream.
    pub(crate) fn leap(&mut self, chunks: u64) -> u64 {
        if let State::Frames(Frames { tally, .. }) = &mut self.state {
            tally.add_full_chunks(chunks);
            self.at += chunks * (tally.chunk_size().get() + FRAME_OVERHEAD) as u64;
            self.watch.reach(tally.total(), tally.frames());
        }
        self.at
    }

    /// Says that no input comes after the `left` bytes that the last step did not use up.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`] unless the stream has ended, or the error that it failed with before.
    pub fn end_of_input(&mut self, left: usize) -> Result<(), Error> {
        match self.state {
            State::End => Ok(()),
            State::Failed(error) => Err(error),
            State::Start { .. } | State::Frames(_) => {
                Err(self.fail_behind(Error::Truncated { at: self.at + left as u64 }))
            }
        }
    }

    /// Whether the final frame was checked: all that was released is the whole plaintext.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// The chunk size of the stream in bytes, while its frames are being opened: after [`Step::Start`] and before
    /// [`Step::End`] or an error.
    #[must_use]
    pub fn chunk_size(&self) -> Option<usize> {
        match &self.state {
            State::Frames(frames) => Some(frames.tally.chunk_size().get()),
            State::Start { .. } | State::End | State::Failed(_) => None,
        }
    }

    /// The chunk size, once it may be believed: a data frame was opened, so its sender knows the key. Header and key frame alone
    /// can be replayed by anyone who saw them. (Not to be asked where frames are deferred.)
    pub(crate) fn trusted_chunk_size(&self) -> Option<usize> {
        match &self.state {
            State::Frames(frames) if frames.tally.frames() > 0 => self.chunk_size(),
            _ => None,
        }
    }

    /// The error that every call returns, if there was one.
    pub(crate) fn error(&self) -> Option<Error> {
        match self.state {
            State::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Does all of the next step but open a data frame, which is left to the caller: it knows where the plaintext goes.
    fn look(&mut self, input: &[u8]) -> Result<Look, Error> {
        self.try_look(input).map_err(|error| self.fail_behind(error))
    }

    /// | state  | input begins with      | then                                          |
    /// |--------|------------------------|-----------------------------------------------|
    /// | Start  | part of a prelude      | check that part, ask for the rest             |
    /// | Start  | a prelude              | find its key, go to Frames                    |
    /// | Frames | part of a frame        | check its word, ask for the rest              |
    /// | Frames | a data frame           | leave it to the caller                        |
    /// | Frames | a final frame          | check it against what was read, go to End     |
    /// | End    | nothing                | nothing: the stream is whole                  |
    /// | End    | anything               | trailing data                                 |
    /// | Failed | whatever               | the same error again                          |
    fn try_look(&mut self, input: &[u8]) -> Result<Look, Error> {
        match &self.state {
            State::Start { keys, options } => {
                let Some(prelude) = Prelude::parse(input, options.max_chunk_size)? else {
                    return Ok(Look::Step(Step::Incomplete { required: PRELUDE_LEN, allowed: PRELUDE_LEN + WORD_LEN }));
                };
                let key = StreamKey::find(keys, &prelude, options.context.as_bytes())?;
                let tally = Tally::new(prelude.header.chunk_size);
                self.watch.start(tally.chunk_size().get());
                self.state = State::Frames(Frames { key: Arc::new(key), tally });
                self.at = PRELUDE_LEN as u64;
                Ok(Look::Step(Step::Start { consumed: PRELUDE_LEN }))
            }
            State::Frames(frames) => {
                let Some(word) = input.get(..WORD_LEN) else {
                    return Ok(Look::Step(Step::Incomplete { required: WORD_LEN, allowed: WORD_LEN }));
                };
                let frame = frames.tally.frames();
                let word = Word::parse(word, frames.tally.chunk_size()).map_err(|word| Error::InvalidFrame {
                    frame,
                    at: self.at,
                    word,
                })?;
                if let Word::Data(len) = word {
                    frames.tally.admit(len, 1)?;
                }
                if input.len() < word.frame_len() {
                    // A data frame is never the last one, so the word behind it is the stream's as well.
                    let allowed = word.frame_len() + if word == Word::Final { 0 } else { WORD_LEN };
                    return Ok(Look::Step(Step::Incomplete { required: word.frame_len(), allowed }));
                }
                if let Word::Data(len) = word {
                    return Ok(Look::Data { len });
                }
                if !frames.is_described_by(&input[WORD_LEN..FINAL_FRAME_LEN]) {
                    return Err(Error::Corrupt { frame, at: self.at });
                }
                self.state = State::End;
                self.watch.finish();
                self.at += FINAL_FRAME_LEN as u64;
                Ok(Look::Step(Step::End { consumed: FINAL_FRAME_LEN }))
            }
            State::End if input.is_empty() => Ok(Look::Step(Step::End { consumed: 0 })),
            State::End => Err(Error::TrailingData { at: self.at }),
            State::Failed(error) => Err(*error),
        }
    }

    /// Opens the data frame of `len` bytes that `look` found, and moves on behind it. Its tag is at the front of `rest`.
    fn open_data(&mut self, len: usize, body: Body<'_>, rest: &[u8]) -> Result<(), Error> {
        let opened = self.found().open(body, &rest[..TAG_LEN], len);
        opened.map_err(|error| self.fail_behind(error))?;
        self.go_on_behind(len);
        if let State::Frames(Frames { tally, .. }) = &self.state {
            self.watch.reach(tally.total(), tally.frames());
        }
        Ok(())
    }

    /// The place of the data frame that `look` found.
    fn found(&self) -> Deferred {
        match self.place() {
            Some(place) => place,
            None => unreachable!("look finds data frames only between start and end"),
        }
    }

    /// Goes on behind a data frame of `len` plaintext bytes.
    fn go_on_behind(&mut self, len: usize) {
        if let State::Frames(Frames { tally, .. }) = &mut self.state {
            tally.add(len);
            self.at += (FRAME_OVERHEAD + len) as u64;
            self.watch.pass(tally.total(), tally.frames());
        }
    }

    /// From now on every step fails with `error`, which lies behind what was [reached](Self::reached). The stream key is wiped, as
    /// soon as no deferred frame needs it.
    pub(crate) fn fail(&mut self, error: Error) -> Error {
        self.watch.fail_here(error);
        self.state = State::Failed(error);
        error
    }

    /// As [`fail`](Self::fail), for an error that lies behind all deferred frames.
    fn fail_behind(&mut self, error: Error) -> Error {
        self.watch.fail(error);
        self.state = State::Failed(error);
        error
    }
}

impl Frames {
    /// Whether a final frame's body authenticates, and says of the stream what was found.
    fn is_described_by(&self, body: &[u8]) -> bool {
        self.key.open_trailer(body) == Some(self.tally.trailer())
    }
}

/// What [`Decryptor::defer`] made of its input.
pub(crate) enum Deferral {
    /// Any step but a data frame.
    Step(Step),
    /// A whole data frame, which is still to be opened.
    Data { consumed: usize, deferred: Deferred },
}

/// Where data frames stand in their stream that lie one behind the other, and are still to be opened.
///
/// It may go to another thread.
pub(crate) struct Deferred {
    key: Arc<StreamKey>,
    chunk_size: ChunkSize,
    position: u64,
    frame: u64,
    at: u64,
}

impl Deferred {
    /// What is to be said if the next frame is bad.
    pub(crate) fn error(&self) -> Error {
        Error::Corrupt { frame: self.frame, at: self.at }
    }

    /// Opens the first of these frames where it lies, and moves on behind it. Says where its plaintext is.
    pub(crate) fn open_in_place(&mut self, frames: &mut [u8]) -> Result<Range<usize>, Error> {
        let plaintext = self.plaintext(frames)?;
        let (body, tag) = frames[WORD_LEN..].split_at_mut(plaintext.len());
        self.open(Body::InPlace(body), &tag[..TAG_LEN], plaintext.len())?;
        Ok(plaintext)
    }

    /// Opens the first of these frames into the front of `out`, which has room for it, and moves on behind it. Says how long its
    /// plaintext is.
    pub(crate) fn open_into(&mut self, frames: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let len = self.plaintext(frames)?.len();
        let (from, tag) = frames[WORD_LEN..].split_at(len);
        self.open(Body::Into { from, to: &mut out[..len] }, &tag[..TAG_LEN], len)?;
        Ok(len)
    }

    /// Where the plaintext of the first of these frames is, or will be.
    pub(crate) fn plaintext(&self, frames: &[u8]) -> Result<Range<usize>, Error> {
        match Word::parse(&frames[..WORD_LEN], self.chunk_size) {
            Ok(Word::Data(len)) => Ok(WORD_LEN..WORD_LEN + len),
            _ => Err(self.error()),
        }
    }

    /// As [`open_into`](Self::open_into), for a frame that must hold a full chunk, as long as `out`.
    pub(crate) fn open_full_into(&mut self, frame: &[u8], out: &mut [u8]) -> Result<(), Error> {
        if self.plaintext(frame)?.len() != out.len() {
            return Err(self.error());
        }
        self.open_into(frame, out).map(drop)
    }

    /// The place behind so many full chunks.
    pub(crate) fn behind(&self, chunks: u64) -> Self {
        let len = self.chunk_size() as u64;
        Self {
            key: self.key.clone(),
            chunk_size: self.chunk_size,
            position: self.position + chunks * len,
            frame: self.frame + chunks,
            at: self.at + chunks * (len + FRAME_OVERHEAD as u64),
        }
    }

    /// How many more full chunks the limits of a stream allow.
    pub(crate) fn most_chunks(&self) -> u64 {
        let by_len = (MAX_PLAINTEXT_LEN - self.position) / self.chunk_size() as u64;
        by_len.min(MAX_FRAMES - self.frame)
    }

    /// Where the next frame begins, in bytes from the start of the stream.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// The chunk size of the stream, in bytes.
    pub(crate) fn chunk_size(&self) -> usize {
        self.chunk_size.get()
    }

    fn open(&mut self, body: Body<'_>, tag: &[u8], len: usize) -> Result<(), Error> {
        self.key.open(Kind::Data, self.position, body, tag).map_err(|_| self.error())?;
        self.position += len as u64;
        self.frame += 1;
        self.at += (FRAME_OVERHEAD + len) as u64;
        Ok(())
    }
}

/// What the next step is.
enum Look {
    Step(Step),
    /// A whole data frame, of this many plaintext bytes, that is still to be opened.
    Data {
        len: usize,
    },
}

impl fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Start { .. } => "start",
            State::Frames(_) => "frames",
            State::End => "end",
            State::Failed(_) => "failed",
        };
        f.debug_struct("Decryptor").field("state", &state).field("at", &self.at).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::{
        encrypt::Encryptor,
        format::{MAX_FRAMES, MAX_PLAINTEXT_LEN},
        key::Key,
        options::EncryptOptions,
    };

    /// Both sides of a stream of chunks of 16 that is about to reach its limits.
    fn about_to_end(total: u64, frames: u64) -> (Encryptor, Decryptor) {
        let (key, chunks_of_16) = (Key::generate(), EncryptOptions::new().chunk_size(16).unwrap());
        let (mut encryptor, mut prelude) = Encryptor::start(&key, &chunks_of_16).unwrap();
        let mut decryptor = Decryptor::new(&key, &DecryptOptions::new());
        decryptor.open_in_place(&mut prelude).unwrap();
        encryptor.skip_to(total, frames);
        let State::Frames(state) = &mut decryptor.state else { panic!("the prelude was opened") };
        state.tally = Tally::at(total, frames, state.tally.chunk_size());
        (encryptor, decryptor)
    }

    #[test]
    fn a_stream_may_reach_its_limits() {
        for (total, frames) in [(MAX_PLAINTEXT_LEN - 16, 5), (5 * 16, MAX_FRAMES - 1)] {
            let (mut encryptor, mut decryptor) = about_to_end(total, frames);
            let mut stream = Vec::new();
            encryptor.seal(&[7; 16], &mut stream).unwrap();
            assert_eq!(decryptor.open_in_place(&mut stream).unwrap(), Step::Data { consumed: 36, plaintext: 4..20 });
            assert_eq!(decryptor.open_in_place(&mut encryptor.finish()).unwrap(), Step::End { consumed: 37 });
        }
    }

    #[test]
    fn past_its_limits_the_word_of_a_frame_is_enough_to_refuse_it() {
        for (total, frames) in [(MAX_PLAINTEXT_LEN - 15, 5), (MAX_PLAINTEXT_LEN, 5), (5 * 16, MAX_FRAMES)] {
            let (_, mut decryptor) = about_to_end(total, frames);
            assert_eq!(decryptor.open_in_place(&mut Kind::Data.word(32)), Err(Error::StreamTooLong));
            assert_eq!(decryptor.open_in_place(&mut []), Err(Error::StreamTooLong));
        }
    }

    /// Where they fail a file is opened in order, so nothing else would show if they failed always.
    #[test]
    fn full_chunks_are_opened_wherever_they_are() {
        let (key, plaintext) = (Key::generate(), (0..90).collect::<Vec<u8>>());
        let stream = EncryptOptions::new().chunk_size(16).unwrap().encrypt(&key, &plaintext);
        let mut decryptor = Decryptor::new(&key, &DecryptOptions::new());
        assert!(decryptor.place().is_none());
        decryptor.open(&stream, &mut Vec::new()).unwrap();
        decryptor.open(&stream[80..], &mut Vec::new()).unwrap();
        let (place, mut chunk) = (decryptor.place().unwrap(), [0; 16]);
        for i in 0..4 {
            let mut there = place.behind(i as u64);
            let at = 80 + 36 * (1 + i);
            assert_eq!((there.at(), there.chunk_size()), (at as u64, 16));
            assert_eq!(there.error(), Error::Corrupt { frame: 1 + i as u64, at: at as u64 });
            there.open_full_into(&stream[at..at + 36], &mut chunk).unwrap();
            assert_eq!(chunk, plaintext[16 * (1 + i)..][..16]);
            // It has moved on.
            let after = place.behind(i as u64 + 1);
            assert_eq!((there.at(), there.error()), (after.at(), after.error()));
            assert_eq!(there.open_full_into(&stream[at..at + 36], &mut chunk), Err(after.error()));
        }
        // The last one is not full.
        let mut last = place.behind(4);
        assert_eq!(last.open_full_into(&stream[80 + 36 * 5..], &mut chunk), Err(last.error()));

        assert_eq!(decryptor.leap(2), 80 + 36 * 3);
        let after = decryptor.place().unwrap();
        assert_eq!((after.at(), after.error()), (place.behind(2).at(), place.behind(2).error()));
        let step = decryptor.open(&stream[80 + 36 * 3..], &mut Vec::new()).unwrap();
        assert_eq!(step, Step::Data { consumed: 36, plaintext: 0..16 });
    }

    #[test]
    fn no_more_full_chunks_than_the_limits_of_a_stream_allow() {
        for (total, frames, chunks) in [(MAX_PLAINTEXT_LEN - 40, 5, 2), (80, MAX_FRAMES - 3, 3), (0, 0, MAX_FRAMES)] {
            assert_eq!(about_to_end(total, frames).1.place().unwrap().most_chunks(), chunks);
        }
    }
}

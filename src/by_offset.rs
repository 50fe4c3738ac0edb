//! The core of the readers by offset: what the two ends of a stream say of it, where its frames are, and how to open one. No
//! I/O.
//!
//! [`ByOffset`] has checked the prelude and the final frame, so length and layout are authentic before a data frame is read.
//! Where those of a uniform stream are follows from that; those of an irregular one are walked, word by word, and
//! [`Index`] remembers some places. Words are not authenticated. They may mislead a walk, but never to plaintext that is not
//! the stream's: a frame opens at its own position and nowhere else.

use std::{fmt, io, ops::Range};

use crate::{
    aead::{Body, StreamKey},
    error::{Error, Explained},
    format::{
        FINAL_FRAME_LEN, FRAME_OVERHEAD, Kind, PRELUDE_LEN, Prelude, STREAM_OVERHEAD, TAG_LEN, TRAILER_LEN, Tally,
        Trailer, WORD_LEN, Word,
    },
    geometry,
    key::KeyRing,
    observe,
    options::DecryptOptions,
};

/// The least that is read at a time to find frame words in a stream, in bytes.
pub(crate) const WALK_LEN: usize = 4096;
/// The most.
pub(crate) const MAX_WALK_LEN: usize = 64 * 1024;

/// A stream whose two ends were checked, ready to open any of its frames.
///
/// A place in it is the [`Tally`] of the data frames before it.
pub(crate) struct ByOffset {
    key: StreamKey,
    trailer: Trailer,
    /// The place of the first data frame.
    start: Tally,
}

impl ByOffset {
    /// Which parts of a stream of `len` bytes [`open`](Self::open) needs: its first and its last bytes.
    pub(crate) fn ends(len: u64) -> [Range<u64>; 2] {
        let tail = if len < STREAM_OVERHEAD as u64 { len } else { len - FINAL_FRAME_LEN as u64 };
        [0..len.min(PRELUDE_LEN as u64), tail..len]
    }

    /// Checks the two ends of a stream of `len` bytes.
    ///
    /// A stream that is too short, or that does not end in a final frame's word, was cut. Where it does, the frame must
    /// authenticate and agree with the length.
    pub(crate) fn open(len: u64, ends: [&[u8]; 2], keys: &KeyRing, options: &DecryptOptions) -> Result<Self, Error> {
        let opened = Self::check(len, ends, keys, options);
        match &opened {
            Ok(Self { start, trailer, .. }) => {
                observe::reader_opened(start.chunk_size().get(), trailer.total, trailer.frames, trailer.uniform);
            }
            Err(error) => observe::reader_failed(*error),
        }
        opened
    }

    fn check(len: u64, [head, tail]: [&[u8]; 2], keys: &KeyRing, options: &DecryptOptions) -> Result<Self, Error> {
        let truncated = Error::Truncated { at: len };
        let prelude = Prelude::parse(head, options.max_chunk_size)?.ok_or(truncated)?;
        let key = StreamKey::find(keys, &prelude, options.context.as_bytes())?;
        let chunk_size = prelude.header.chunk_size;
        if len < STREAM_OVERHEAD as u64 || !tail.starts_with(&Kind::Final.word(TRAILER_LEN + TAG_LEN)) {
            return Err(truncated);
        }
        let chunk = chunk_size.get() as u64;
        let corrupt = Error::Corrupt {
            frame: (len - STREAM_OVERHEAD as u64).div_ceil(chunk + FRAME_OVERHEAD as u64),
            at: len - FINAL_FRAME_LEN as u64,
        };
        let trailer = key.open_trailer(&tail[WORD_LEN..]).ok_or(corrupt)?;
        let Trailer { total, frames, uniform } = trailer;
        // That this is the length also says that all is within the limits of a stream.
        let possible = geometry::stream_len(total, frames) == Some(len)
            && if uniform {
                frames == total.div_ceil(chunk)
            } else {
                // One frame at least is short and not the last.
                frames > 1 && total < frames * chunk
            };
        if !possible {
            return Err(corrupt);
        }
        Ok(Self { key, trailer, start: Tally::new(chunk_size) })
    }

    /// How many bytes of plaintext there are.
    pub(crate) fn total(&self) -> u64 {
        self.trailer.total
    }

    pub(crate) fn chunk_size(&self) -> usize {
        self.start.chunk_size().get()
    }

    pub(crate) fn is_uniform(&self) -> bool {
        self.trailer.uniform
    }

    /// The place of the first data frame.
    pub(crate) fn start(&self) -> Tally {
        self.start
    }

    /// Where the final frame begins.
    pub(crate) fn end_of_data(&self) -> u64 {
        self.start.end() + self.trailer.total + FRAME_OVERHEAD as u64 * self.trailer.frames
    }

    /// The longest plaintext that a frame of this stream can have, in bytes.
    pub(crate) fn longest(&self) -> usize {
        self.most_at(&self.start)
    }

    /// How much to read at a time to find frame words, with room for this much: where frames are small, it holds several.
    pub(crate) fn walk_len(&self, room: usize) -> usize {
        let average = self.end_of_data() / self.trailer.frames.max(1);
        let room = room.min(MAX_WALK_LEN);
        if average < room as u64 / 4 { room } else { WALK_LEN }
    }

    /// Where in the stream the plaintext up to `position` probably ends, with the frame that holds its last byte: a guess, for
    /// who has come from `first` to `place`.
    pub(crate) fn guess_end(&self, first: &Tally, place: &Tally, position: u64) -> u64 {
        // As dense as the stream is on the whole, or as it was on the way here, whichever is the longer.
        let missing = position.saturating_sub(place.total());
        let scale = |stream: u64, plaintext: u64| {
            let len = u128::from(missing) * u128::from(stream) / u128::from(plaintext.max(1));
            u64::try_from(len).unwrap_or(u64::MAX)
        };
        let data = self.end_of_data() - self.start.end();
        let on_the_whole = scale(data, self.trailer.total);
        let on_the_way = scale(place.end() - first.end(), place.total() - first.total());
        // And all of the last frame, which may begin with the last byte.
        let frame = data / self.trailer.frames.max(1) + FRAME_OVERHEAD as u64;
        let len = on_the_whole.max(on_the_way).saturating_add(frame);
        // But the stream need not go on as it was, and words can be forged: at most as much again as was there before.
        let chunk = (FRAME_OVERHEAD + self.chunk_size()) as u64;
        let most = missing + (place.end() - first.end()).max(chunk);
        // And no less than a walk would take: a guess that falls short by a little, again and again, is a read each time.
        let least = if place.frames() == first.frames() { 0 } else { WALK_LEN as u64 };
        self.end_of_data().min(place.end() + len.min(most).max(least))
    }

    /// The place of the frame that holds this byte of the plaintext, which has it; `None` if it has to be walked to.
    pub(crate) fn find(&self, position: u64) -> Option<Tally> {
        let chunk_size = self.start.chunk_size();
        self.is_uniform().then(|| Tally::of_full_chunks(chunk_size, position / chunk_size.get() as u64))
    }

    /// How many bytes of plaintext the frame at `place` holds; `None` if only its word can tell.
    pub(crate) fn len_at(&self, place: &Tally) -> Option<usize> {
        self.is_uniform().then(|| self.most_at(place))
    }

    /// How many bytes of plaintext the frame at `place` holds at most.
    pub(crate) fn most_at(&self, place: &Tally) -> usize {
        let chunk = self.start.chunk_size().get();
        usize::try_from(self.trailer.total - place.total()).map_or(chunk, |left| left.min(chunk))
    }

    /// Checks the word of the frame at `place`, and returns how many bytes of plaintext the frame holds.
    ///
    /// The word must be the one that the layout expects, or, in an irregular stream, leave as much plaintext as the frames behind
    /// it can hold; and with the last frame, all must be just what the final frame describes. So a walk never goes past that, and
    /// never comes to the end of the plaintext before the last frame.
    pub(crate) fn step(&self, place: &Tally, word: [u8; WORD_LEN]) -> Result<usize, Error> {
        let invalid = |word| Error::InvalidFrame { frame: place.frames(), at: place.end(), word };
        let Word::Data(len) = Word::parse(&word, self.start.chunk_size()).map_err(invalid)? else {
            return Err(invalid(u32::from_le_bytes(word)));
        };
        let next = place.after(len);
        let fits = match self.len_at(place) {
            Some(expected) => len == expected,
            None => self.may_be_left(&next),
        };
        if !fits {
            return Err(invalid(u32::from_le_bytes(word)));
        }
        if next.frames() == self.trailer.frames && next.trailer() != self.trailer {
            return Err(Error::Corrupt { frame: next.frames(), at: next.end() });
        }
        Ok(len)
    }

    /// Whether the frames behind `place` can hold all of the plaintext that is, if there are any.
    fn may_be_left(&self, place: &Tally) -> bool {
        let frames = self.trailer.frames.saturating_sub(place.frames());
        let most = frames * self.start.chunk_size().get() as u64;
        let left = self.trailer.total.checked_sub(place.total());
        left.is_some_and(|left| frames == 0 || (frames..=most).contains(&left))
    }

    /// Checks that `input` begins with all of the frame at `place`, and returns how many bytes of plaintext it holds.
    pub(crate) fn whole_frame(&self, place: &Tally, input: &[u8]) -> Result<usize, Error> {
        let corrupt = Error::Corrupt { frame: place.frames(), at: place.end() };
        let word = input.first_chunk().ok_or(corrupt)?;
        let len = self.step(place, *word)?;
        // It was walked past in these very bytes, so they are enough; but what a slip would cost here is a panic.
        if input.len() < FRAME_OVERHEAD + len { Err(corrupt) } else { Ok(len) }
    }

    /// Opens the body of the frame at `place`.
    pub(crate) fn open_body(&self, place: &Tally, body: Body<'_>, tag: &[u8]) -> Result<(), Error> {
        let corrupt = Error::Corrupt { frame: place.frames(), at: place.end() };
        self.key.open(Kind::Data, place.total(), body, tag).map_err(|_| corrupt)
    }
}

/// Adds to an error of [`ByOffset::open`] what it means there: that what was looked at is the end of the input, which may
/// not be that of the stream.
pub(crate) fn explain(error: Error) -> io::Error {
    let words = match error {
        Error::Truncated { at } if at >= STREAM_OVERHEAD as u64 => {
            "no stream ends where the input does (it was cut, or something follows the stream; reading it in order tells which)"
        }
        Error::Corrupt { .. } => {
            "the end of the input is damaged, or it is not the end of this stream, of this length (something was lost, added or \
             joined further up; reading it in order tells where)"
        }
        _ => return error.into(),
    };
    Explained::error(words.into(), error.into())
}

impl fmt::Debug for ByOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByOffset")
            .field("trailer", &self.trailer)
            .field("chunk_size", &self.start.chunk_size().get())
            .finish_non_exhaustive()
    }
}

/// Some places of an irregular stream, so that not every walk has to begin at its start.
///
/// It keeps every 2^k-th place that was walked past, and at most [`MAX_PLACES`]: when it is full, it forgets every other.
#[derive(Debug)]
pub(crate) struct Index {
    places: Vec<Tally>,
    /// How many frames lie between two places.
    stride: u64,
    /// A frame that ends at this byte of the plaintext was opened, so the walk to it was not misled.
    confirmed: u64,
}

/// 24 bytes each.
const MAX_PLACES: usize = 1024;

impl Index {
    pub(crate) fn new(start: Tally) -> Self {
        Self { places: vec![start], stride: 1, confirmed: 0 }
    }

    /// The last known place at or before this byte of the plaintext, and the first one behind it.
    pub(crate) fn around(&self, position: u64) -> (Tally, Option<Tally>) {
        // Never 0, for the first place is the start of the stream.
        let behind = self.places.partition_point(|place| place.total() <= position);
        (self.places[behind - 1], self.places.get(behind).copied())
    }

    /// Takes note of a place that was walked to. Where it contradicts what is known, that and all behind it is forgotten.
    pub(crate) fn note(&mut self, place: Tally) {
        let known = usize::try_from(place.frames() / self.stride).unwrap_or(usize::MAX);
        let known = self.places.get(known).filter(|known| known.frames() == place.frames());
        if known.is_some_and(|known| known.total() != place.total()) {
            self.forget_from(place.frames());
        }
        if self.is_next(&place) && self.places.len() == MAX_PLACES {
            let mut keep = false;
            self.places.retain(|_| {
                keep = !keep;
                keep
            });
            self.stride *= 2;
        }
        if self.is_next(&place) {
            self.places.push(place);
        }
    }

    fn is_next(&self, place: &Tally) -> bool {
        place.frames() == self.places.len() as u64 * self.stride
    }

    /// Takes note that a frame was opened, and where it ends.
    pub(crate) fn confirm(&mut self, end: &Tally) {
        self.confirmed = self.confirmed.max(end.total());
    }

    /// Forgets the places behind the last frame that was opened, because a word on the way may have been a wrong one: the
    /// next walk sees for itself. Where no frame can be, not even that is to be believed.
    pub(crate) fn doubt(&mut self, error: Error) {
        if let Error::InvalidFrame { frame, .. } = error {
            self.forget_from(frame);
        }
        // Never 0, for the first place is the start of the stream.
        let confirmed = self.places.partition_point(|place| place.total() <= self.confirmed);
        self.places.truncate(confirmed);
    }

    /// Forgets the places from this frame on, but never the start.
    fn forget_from(&mut self, frame: u64) {
        let before = self.places.partition_point(|place| place.frames() < frame);
        self.places.truncate(before.max(1));
        self.confirmed = self.confirmed.min(self.places.last().map_or(0, Tally::total));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::{encrypt::Encryptor, format::ChunkSize, key::Key, options::EncryptOptions};

    /// The places of a stream whose frames hold 3, 4, 3, 4 and so on bytes.
    fn places(frames: usize) -> Vec<Tally> {
        let mut place = Tally::new(ChunkSize::new(4).unwrap());
        let mut places = vec![place];
        for i in 0..frames {
            place.add(3 + i % 2);
            places.push(place);
        }
        places
    }

    /// A stream of chunks of 1000 bytes that holds 250 bytes a frame on the whole: 270 bytes of stream.
    fn stream() -> ByOffset {
        let key = Key::from_bytes([7; 32]);
        let options = EncryptOptions::new().chunk_size(1000).unwrap();
        let (encryptor, prelude) = Encryptor::start(&key, &options).unwrap();
        let end = encryptor.finish();
        let len = STREAM_OVERHEAD as u64;
        let stream = ByOffset::open(len, [&prelude, &end], &(&key).into(), &DecryptOptions::new()).unwrap();
        ByOffset { trailer: Trailer { total: 1_000_000, frames: 4000, uniform: false }, ..stream }
    }

    /// A place, and the one after so many frames of this length.
    fn way(frames: usize, len: usize) -> (Tally, Tally) {
        let mut first = stream().start();
        (0..5).for_each(|_| first.add(100));
        let mut place = first;
        (0..frames).for_each(|_| place.add(len));
        (first, place)
    }

    #[test]
    fn a_walk_reads_in_blocks_where_frames_are_small() {
        let mut stream = stream();
        let average = usize::try_from(stream.end_of_data() / 4000).unwrap();
        assert_eq!(average, 270);
        assert_eq!(stream.walk_len(4 * average + 4), 4 * average + 4);
        assert_eq!(stream.walk_len(4 * average + 3), WALK_LEN);
        assert_eq!(stream.walk_len(usize::MAX), MAX_WALK_LEN);
        stream.trailer.frames = 10;
        assert_eq!(stream.walk_len(usize::MAX), WALK_LEN);
    }

    #[test]
    fn a_guess_is_as_long_as_frames_were_and_not_much_longer_than_the_plaintext() {
        let stream = stream();
        let start = stream.start();
        // Nothing is known of the way: as dense as the whole stream, and one chunk more than there is plaintext.
        assert_eq!(stream.guess_end(&start, &start, 1000), start.end() + 1080 + 290);
        assert_eq!(stream.guess_end(&start, &start, 10_000), start.end() + 10_000 + 1020);
        // The frames on the way were longer than they are on the whole, or shorter.
        let (first, place) = way(500, 400);
        let guess = stream.guess_end(&first, &place, place.total() + 100_000);
        assert_eq!(guess, place.end() + 108_000 + 290);
        let (first, place) = way(200, 50);
        let guess = stream.guess_end(&first, &place, place.total() + 20_000);
        assert_eq!(guess, place.end() + 28_000 + 290);
        // They were so short that there would be more of the rest than of the plaintext and of the way.
        let (first, place) = way(100, 10);
        let guess = stream.guess_end(&first, &place, place.total() + 10_000);
        assert_eq!(guess, place.end() + 10_000 + 3000);
        // No less than a walk would take, and not beyond the data.
        assert_eq!(stream.guess_end(&first, &place, place.total() + 1), place.end() + WALK_LEN as u64);
        let (first, place) = way(3995, 250);
        assert_eq!(stream.guess_end(&first, &place, 1_000_000), stream.end_of_data());
    }

    #[test]
    fn the_index_is_bounded_and_never_far_behind() {
        let places = places(100_000);
        let mut index = Index::new(places[0]);
        for (walked, place) in places.iter().enumerate() {
            index.note(*place);
            assert!(index.places.len() <= MAX_PLACES);
            let stride = usize::try_from(index.stride).unwrap();
            assert!(stride <= (2 * walked / MAX_PLACES).max(1), "{stride} after {walked}");
            // Some position that was walked past.
            let wanted = places[walked * 7 / 9];
            let (nearest, behind) = index.around(wanted.total());
            assert!(nearest.total() <= wanted.total() && nearest.frames() + index.stride > wanted.frames());
            assert_eq!(nearest.total(), places[usize::try_from(nearest.frames()).unwrap()].total());
            assert!(behind.is_none_or(|behind| behind.frames() == nearest.frames() + index.stride));
        }
    }

    #[test]
    fn places_are_noted_in_order_and_without_gaps() {
        let places = places(20);
        let mut index = Index::new(places[0]);
        for i in [5, 1, 2, 2, 1, 7, 3, 0] {
            index.note(places[i]);
        }
        let noted: Vec<u64> = index.places.iter().map(Tally::frames).collect();
        assert_eq!(noted, [0, 1, 2, 3]);
    }

    #[test]
    fn doubt_keeps_what_was_confirmed() {
        let places = places(5000);
        let mut index = Index::new(places[0]);
        places.iter().for_each(|place| index.note(*place));
        index.confirm(&places[3000]);
        index.confirm(&places[20]);
        index.doubt(Error::Corrupt { frame: 7, at: 0 });
        assert_eq!(index.places.last().unwrap().frames(), 3000 / index.stride * index.stride);
        // And it goes on from there.
        places.iter().for_each(|place| index.note(*place));
        assert_eq!(index.places.last().unwrap().frames(), 5000 / index.stride * index.stride);

        let mut unconfirmed = Index::new(places[0]);
        places.iter().for_each(|place| unconfirmed.note(*place));
        unconfirmed.doubt(Error::Truncated { at: 0 });
        assert_eq!(unconfirmed.around(10_000).0.frames(), 0);
    }

    #[test]
    fn what_contradicts_the_index_wins_where_it_does_not_keep_every_place_too() {
        let places = places(5000);
        let mut index = Index::new(places[0]);
        places.iter().for_each(|place| index.note(*place));
        assert_eq!(index.stride, 8);
        index.note(places[2399].after(1));
        assert_eq!(index.places.last().map(Tally::frames), Some(2400));
    }

    #[test]
    fn what_contradicts_the_index_wins() {
        let places = places(20);
        let full = || {
            let mut index = Index::new(places[0]);
            places.iter().for_each(|place| index.note(*place));
            index.confirm(&places[20]);
            index
        };
        let frames = |index: &Index| index.places.len() - 1;
        let mut index = full();
        index.note(places[6].after(1));
        assert_eq!((frames(&index), index.confirmed), (7, places[6].total()));
        // No frame can be where one was thought to be; and at the start there always is one.
        let mut index = full();
        index.doubt(Error::InvalidFrame { frame: 9, at: 0, word: 0 });
        assert_eq!((frames(&index), index.confirmed), (8, places[8].total()));
        index.doubt(Error::InvalidFrame { frame: 0, at: 0, word: 0 });
        assert_eq!((frames(&index), index.confirmed), (0, 0));
    }
}

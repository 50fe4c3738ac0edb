//! `FrameEncoder` and `FrameDecoder`, alone and through `Framed`.

use agcm::{
    DecryptOptions, EncryptOptions, Encryptor, Error, Key, Trailing,
    codec::{Frame, FrameCodec, FrameDecoder, FrameEncoder, framed, framed_read, framed_write},
    decrypt,
};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt, TryStreamExt, executor::block_on};
use tokio::io::AsyncWriteExt;
use tokio_util::codec::{Decoder, Encoder, Framed, FramedRead, FramedWrite};

use crate::{
    encrypt_writer::frames,
    script::{Op, Reader, Script, Writer},
    vectors::plaintext,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

fn data(bytes: impl Into<Vec<u8>>) -> Frame {
    Frame::Data(Bytes::from(bytes.into()))
}

fn encode(encoder: &mut FrameEncoder, items: impl IntoIterator<Item = Frame>) -> Vec<u8> {
    let mut buffer = BytesMut::new();
    for item in items {
        encoder.encode(item, &mut buffer).unwrap();
    }
    buffer.to_vec()
}

fn chunks_of_16(key: &Key) -> FrameEncoder {
    FrameEncoder::with_options(key, &EncryptOptions::new().chunk_size(16).unwrap())
}

#[test]
fn each_item_is_written_at_once_and_never_merged() {
    let key = Key::generate();
    let mut encoder = chunks_of_16(&key);
    let mut buffer = BytesMut::new();
    encoder.encode(data(*b"a"), &mut buffer).unwrap();
    assert_eq!(buffer.len(), 80 + 21, "nothing is held back");
    encoder.encode(data(*b"bc"), &mut buffer).unwrap();
    assert_eq!(buffer.len(), 80 + 21 + 22);
    encoder.encode(Frame::End, &mut buffer).unwrap();
    assert_eq!(frames(&buffer), [1, 2]);
    assert_eq!(decrypt(&key, &buffer).unwrap(), b"abc");
}

#[test]
fn long_items_are_split() {
    let key = Key::generate();
    let stream = encode(&mut chunks_of_16(&key), [data(plaintext(50)), data(plaintext(16)), Frame::End]);
    assert_eq!(frames(&stream), [16, 16, 16, 2, 16]);
    assert_eq!(decrypt(&key, &stream).unwrap(), [plaintext(50), plaintext(16)].concat());
}

#[test]
fn empty_data_writes_nothing() {
    let key = Key::generate();
    let mut encoder = FrameEncoder::new(&key);
    assert_eq!(encode(&mut encoder, [data(*b""), data(*b"")]), b"");
    let stream = encode(&mut encoder, [data(*b"a"), data(*b""), Frame::End, data(*b"")]);
    assert_eq!(frames(&stream), [1]);
}

#[test]
fn every_stream_has_fresh_randomness() {
    let key = Key::generate();
    let mut encoder = FrameEncoder::new(&key);
    let [one, two] = [(); 2].map(|()| encode(&mut encoder, [data(*b"same"), Frame::End]));
    assert_ne!(one[8..20], two[8..20], "nonce");
    assert_ne!(one[28..48], two[28..48], "salt");
    assert_eq!(decrypt(&key, &one), decrypt(&key, &two));
}

#[test]
fn an_end_alone_is_an_empty_stream() {
    let key = Key::generate();
    let stream = encode(&mut FrameEncoder::new(&key), [Frame::End]);
    assert_eq!(decrypt(&key, &stream).unwrap(), b"");
    let mut input = BytesMut::from(&stream[..]);
    assert_eq!(FrameDecoder::new(&key).decode(&mut input).unwrap(), Some(Frame::End));
}

#[test]
fn several_streams_in_a_row_through_framed_read_and_write() {
    let key = Key::generate();
    let items = [data(*b"one"), data(plaintext(40)), Frame::End, Frame::End, data(plaintext(16)), Frame::End];
    let mut write = FramedWrite::new(Vec::new(), FrameEncoder::new(&key));
    block_on(async {
        for item in &items {
            write.feed(item.clone()).await.unwrap();
        }
        write.close().await.unwrap();
        let wire = write.into_inner();
        let read: Vec<Frame> = FramedRead::new(&wire[..], FrameDecoder::new(&key)).try_collect().await.unwrap();
        assert_eq!(read, items);
    });
}

#[tokio::test]
async fn both_directions_of_a_connection() {
    let key = Key::generate();
    let codec = |from: &str, to: &str| {
        FrameCodec::new(
            FrameEncoder::with_options(&key, &EncryptOptions::new().context(from).unwrap()),
            FrameDecoder::with_options(&key, &DecryptOptions::new().context(to).unwrap()),
        )
    };
    let (near, far) = tokio::io::duplex(64);
    let mut client = Framed::new(near, codec("client", "server"));
    let mut server = Framed::new(far, codec("server", "client"));

    let echo = tokio::spawn(async move {
        while let Some(frame) = server.next().await {
            server.send(frame.unwrap()).await.unwrap();
        }
    });
    for item in [data(plaintext(1000)), Frame::End, data(*b"x"), Frame::End] {
        client.send(item.clone()).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), item);
    }
    client.close().await.unwrap();
    echo.await.unwrap();
}

/// If it grew with what arrives, a frame would be moved many times over; but not on the word of somebody without the key.
#[test]
fn once_a_frame_was_authentic_there_is_room_for_all_of_the_next() {
    let key = Key::generate();
    let wire = encode(&mut FrameEncoder::new(&key), [data(plaintext(200_000)), Frame::End]);
    let mut decoder = FrameDecoder::new(&key);
    let mut first = BytesMut::from(&wire[..84]);
    assert_eq!(decoder.decode(&mut first).unwrap(), None);
    assert!(first.capacity() < 65_556);
    first.extend_from_slice(&wire[84..80 + 65_556 + 4]);
    assert!(decoder.decode(&mut first).unwrap().is_some());
    assert_eq!((decoder.decode(&mut first).unwrap(), first.len()), (None, 4));
    assert!(first.capacity() >= 65_556);
}

#[test]
fn a_connection_that_is_cut_shows_in_both_directions_together() {
    let key = Key::generate();
    let wire = encode(&mut FrameEncoder::new(&key), [data(*b"hello"), Frame::End]);
    for cut in [80, 105, wire.len() - 1] {
        let codec = FrameCodec::new(FrameEncoder::new(&key), FrameDecoder::new(&key));
        let result: Result<Vec<Frame>, _> = block_on(FramedRead::new(&wire[..cut], codec).try_collect());
        assert_eq!(Error::from_io(&result.unwrap_err()), Some(Error::Truncated { at: cut as u64 }));
    }
}

#[test]
fn a_stream_sent_back_to_its_sender_does_not_open() {
    let key = Key::generate();
    let mut encoder = FrameEncoder::with_options(&key, &EncryptOptions::new().context("client").unwrap());
    let mut decoder = FrameDecoder::with_options(&key, &DecryptOptions::new().context("server").unwrap());
    let mut wire = BytesMut::from(&encode(&mut encoder, [data(*b"hello"), Frame::End])[..]);
    let error = decoder.decode(&mut wire).unwrap_err();
    assert_eq!(Error::from_io(&error), Some(Error::KeyMismatch));
}

#[test]
fn the_input_may_end_between_streams_and_nowhere_else() {
    let key = Key::generate();
    let wire = encode(&mut FrameEncoder::new(&key), [data(*b"a"), Frame::End, data(*b"b"), Frame::End]);
    let middle = wire.len() / 2;
    for cut in 0..=wire.len() {
        let frames = FramedRead::new(&wire[..cut], FrameDecoder::new(&key));
        let result: Result<Vec<Frame>, _> = block_on(frames.try_collect());
        match result {
            Ok(frames) => {
                assert!([0, middle, wire.len()].contains(&cut), "cut at {cut}");
                assert_eq!(frames.len(), 2 * cut / middle);
            }
            Err(error) => {
                let at = (cut % middle) as u64;
                assert_eq!(Error::from_io(&error), Some(Error::Truncated { at }), "cut at {cut}");
            }
        }
    }
}

#[test]
fn with_reject_there_is_one_stream() {
    let key = Key::generate();
    let options = DecryptOptions::new().trailing(Trailing::Reject);
    let mut encoder = FrameEncoder::new(&key);
    let one = encode(&mut encoder, [data(*b"a"), Frame::End]);
    let two = [one.clone(), encode(&mut encoder, [Frame::End])].concat();

    let frames = FramedRead::new(&one[..], FrameDecoder::with_options(&key, &options));
    assert_eq!(block_on(frames.try_collect::<Vec<_>>()).unwrap(), [data(*b"a"), Frame::End]);

    let mut frames = FramedRead::new(&two[..], FrameDecoder::with_options(&key, &options));
    block_on(async {
        assert_eq!(frames.next().await.unwrap().unwrap(), data(*b"a"));
        assert_eq!(frames.next().await.unwrap().unwrap(), Frame::End);
        let error = frames.next().await.unwrap().unwrap_err();
        assert_eq!(Error::from_io(&error), Some(Error::TrailingData { at: one.len() as u64 }));
    });
}

#[test]
fn with_reject_there_is_at_least_one_stream() {
    let options = DecryptOptions::new().trailing(Trailing::Reject);
    let mut decoder = FrameDecoder::with_options(Key::generate(), &options);
    let error = decoder.decode_eof(&mut BytesMut::new()).unwrap_err();
    assert_eq!(Error::from_io(&error), Some(Error::Truncated { at: 0 }));
}

#[test]
fn a_buffer_does_not_grow_on_the_word_of_a_frame() {
    let key = Key::generate();
    let options = EncryptOptions::new().chunk_size(10 * 1024 * 1024).unwrap();
    let forged = [&Encryptor::start(&key, &options).unwrap().1[..], &[0x10, 0, 0xa0, 2]].concat();
    let mut decoder = FrameDecoder::new(&key);
    let mut input = BytesMut::from(&forged[..]);
    let before = input.capacity();
    assert_eq!(decoder.decode(&mut input).unwrap(), None);
    assert!(input.capacity() <= before);
}

/// Writes so many items of the same length and an end, and closes: the inner writer, and how large the buffer was at the end.
fn write_items(mut write: FramedWrite<Writer, FrameEncoder>, items: usize, len: usize) -> (Writer, usize) {
    let item = data(plaintext(len));
    block_on(async {
        for _ in 0..items {
            write.feed(item.clone()).await.unwrap();
        }
        write.feed(Frame::End).await.unwrap();
        write.close().await.unwrap();
    });
    let capacity = write.write_buffer().capacity();
    (write.into_inner(), capacity)
}

fn chunks_of(len: usize, key: &Key) -> FrameEncoder {
    FrameEncoder::with_options(key, &EncryptOptions::new().chunk_size(len).unwrap())
}

#[test]
fn four_frames_of_64_kib_are_one_write_and_one_flush() {
    let key = Key::generate();
    let (plain, _) = write_items(FramedWrite::new(Writer::default(), FrameEncoder::new(&key)), 64, 64 * KIB);
    assert_eq!((plain.writes.len(), plain.flushes), (65, 65), "so it is without");
    let (written, capacity) = write_items(framed_write(Writer::default(), FrameEncoder::new(&key)), 64, 64 * KIB);
    assert_eq!((written.writes.len(), written.flushes, written.closes), (17, 17, 1));
    assert_eq!(written.writes[..2], [80 + 4 * 65_556, 4 * 65_556]);
    assert_eq!(written.writes[16], 37);
    assert_eq!(frames(&written.data), [64 * KIB; 64]);
    assert!(capacity <= 2 * (256 + 64) * KIB, "{capacity}");
}

#[test]
fn short_items_make_up_256_kib_and_long_ones_are_written_one_by_one() {
    let key = Key::generate();
    let (plain, _) = write_items(FramedWrite::new(Writer::default(), chunks_of(KIB, &key)), 1024, KIB);
    assert_eq!(plain.writes.len(), 129, "so it is without");
    let (written, capacity) = write_items(framed_write(Writer::default(), chunks_of(KIB, &key)), 1024, KIB);
    let (last, full) = written.writes.split_last().unwrap();
    assert_eq!((full.len(), written.flushes), (4, 5));
    assert!(full.iter().all(|len| (256 * KIB..257 * KIB + 20).contains(len)), "{full:?}");
    assert!(*last < 256 * KIB);
    assert!(capacity <= 2 * 257 * KIB, "{capacity}");

    let long = framed_write(Writer::default(), chunks_of(10 * MIB, &key));
    let (written, capacity) = write_items(long, 3, 10 * MIB);
    assert_eq!(written.writes, [80 + 10 * MIB + 20, 10 * MIB + 20, 10 * MIB + 20, 37]);
    assert!(capacity <= 2 * (10 * MIB + 256 * KIB), "{capacity}");
}

#[test]
fn what_is_fed_is_held_until_it_is_flushed_sent_or_closed() {
    let key = Key::generate();
    let mut write = framed_write(Writer::default(), FrameEncoder::new(&key));
    block_on(async {
        write.feed(data(plaintext(100))).await.unwrap();
        write.feed(data(plaintext(64 * KIB))).await.unwrap();
        assert_eq!(write.get_ref().polls, 0, "there is room");
        write.flush().await.unwrap();
        assert_eq!((write.get_ref().data.len(), write.get_ref().flushes), (80 + 120 + 65_556, 1));
        write.send(data(*b"now")).await.unwrap();
        assert_eq!((write.get_ref().data.len(), write.get_ref().flushes), (80 + 120 + 65_556 + 23, 2));
        write.feed(Frame::End).await.unwrap();
        write.close().await.unwrap();
    });
    assert_eq!(write.get_ref().closes, 1);
    assert_eq!(decrypt(&key, &write.get_ref().data).unwrap().len(), 100 + 64 * KIB + 3);
}

/// A slow writer holds its sender back: no more is encoded than the boundary and an item.
#[test]
fn a_writer_that_takes_nothing_is_given_no_more_than_the_boundary() {
    let key = Key::generate();
    let mut write = framed_write(Writer::new(Script::repeat([Op::Stall])), FrameEncoder::new(&key));
    let item = data(plaintext(64 * KIB));
    let mut fed = 0;
    while crate::drive::poll_once(write.feed(item.clone())).is_ready() {
        fed += 1;
        assert!(fed < 100, "without end");
    }
    assert_eq!((fed, write.write_buffer().len()), (4, 80 + 4 * 65_556));
}

/// How often the inner reader was read until all frames were there or it was cut, and the largest the buffer was.
fn read_items(mut read: FramedRead<Reader<'_>, FrameDecoder>) -> (usize, usize) {
    let mut largest = read.read_buffer().capacity();
    block_on(async {
        while let Ok(Some(frame)) = read.try_next().await {
            drop(frame);
            largest = largest.max(read.read_buffer().capacity());
        }
    });
    (read.get_ref().polls, largest)
}

#[test]
fn a_read_brings_a_frame_of_64_kib_or_many_short_ones() {
    let key = Key::generate();
    // Reads for 1 MiB in chunks of this length: at least so many with `FramedRead` as it comes, at most so many here.
    for (chunk, least, most) in [(64 * KIB, 20, 17), (KIB, 128, 18), (100, 140, 21)] {
        let wire = EncryptOptions::new().chunk_size(chunk).unwrap().encrypt(&key, &plaintext(MIB));
        let reader = || Reader::new(&wire, Script::default());
        let (plain, _) = read_items(FramedRead::new(reader(), FrameDecoder::new(&key)));
        let (reads, largest) = read_items(framed_read(reader(), FrameDecoder::new(&key)));
        assert!(plain >= least && reads <= most, "{chunk}: {plain} and {reads}");
        assert_eq!(largest, 80 + 65_556 + 4, "it never has to grow");
    }
}

/// What is kept of it keeps its buffer, so there are more of them, and each is as large as the first.
#[test]
fn short_frames_arrive_many_at_a_time_while_all_of_them_are_kept() {
    let key = Key::generate();
    let wire = encode(&mut chunks_of(KIB, &key), [data(plaintext(MIB)), Frame::End]);
    let mut read = framed_read(Reader::new(&wire, Script::default()), FrameDecoder::new(&key));
    let kept: Vec<Frame> = block_on(read.by_ref().try_collect()).unwrap();
    assert_eq!(kept.len(), 1025);
    assert!(read.get_ref().polls <= 19, "{}", read.get_ref().polls);
}

#[test]
fn a_read_buffer_has_the_length_that_own_options_give_it_and_no_header() {
    let key = Key::generate();
    let none = || Reader::new(b"", Script::default());
    for (max, len) in [(4096, 8192), (32 * KIB, 80 + 32_788 + 4), (64 * KIB, 65_640), (10 * MIB, 65_640)] {
        let options = DecryptOptions::new().max_chunk_size(max).unwrap();
        let read = framed_read(none(), FrameDecoder::with_options(&key, &options));
        assert_eq!(read.read_buffer().capacity(), len);
    }
    // The start of a frame of 10 MiB that may be a replay, and then one that is none.
    let wire = EncryptOptions::new().chunk_size(10 * MIB).unwrap().encrypt(&key, &plaintext(20 * MIB));
    let (_, largest) =
        read_items(framed_read(Reader::new(&wire[..100 * KIB], Script::default()), FrameDecoder::new(&key)));
    assert!(largest <= 2 * 100 * KIB, "{largest}");
    let (reads, largest) = read_items(framed_read(Reader::new(&wire, Script::default()), FrameDecoder::new(&key)));
    assert!(reads < 20 && largest <= 2 * (10 * MIB + 104), "{reads} reads, {largest}");
}

#[tokio::test]
async fn both_directions_have_buffers_for_their_frames() {
    let key = Key::generate();
    let (near, far) = tokio::io::duplex(16 * MIB);
    let codec = || FrameCodec::new(FrameEncoder::new(&key), FrameDecoder::new(&key));
    let mut near = framed(near, codec());
    assert_eq!((near.read_buffer().capacity(), near.write_buffer().capacity()), (65_640, 8192));
    assert_eq!(near.backpressure_boundary(), 256 * KIB);
    for _ in 0..4 {
        near.feed(data(plaintext(64 * KIB))).await.unwrap();
    }
    assert_eq!(near.write_buffer().len(), 80 + 4 * 65_556, "all is held");
    near.feed(Frame::End).await.unwrap();
    assert_eq!(near.write_buffer().len(), 37, "four have left");
    near.close().await.unwrap();
    let received: Vec<Frame> = framed(far, codec()).try_collect().await.unwrap();
    assert_eq!(received.len(), 5);
}

#[test]
fn a_codec_that_failed_stays_failed() {
    let key = Key::generate();
    let mut encoder = FrameEncoder::new(&key);
    let mut wire = encode(&mut encoder, [data(*b"a"), data(*b"b"), Frame::End]);
    wire[90] ^= 1;
    // A perfectly good stream behind the bad one must not be reached.
    wire.extend(encode(&mut encoder, [data(*b"c"), Frame::End]));
    let mut decoder = FrameDecoder::new(&key);
    let mut input = BytesMut::from(&wire[..]);
    let expected = Some(Error::Corrupt { frame: 0, at: 80 });
    for _ in 0..5 {
        assert_eq!(Error::from_io(&decoder.decode(&mut input).unwrap_err()), expected);
        assert_eq!(Error::from_io(&decoder.decode_eof(&mut input).unwrap_err()), expected);
    }

    let mut frames = FramedRead::new(&wire[..], FrameDecoder::new(&key));
    block_on(async {
        assert!(frames.next().await.unwrap().is_err());
        assert!(frames.next().await.is_none_or(|frame| frame.is_err()), "nothing comes after an error");
    });
}

#[test]
fn what_was_read_ahead_is_in_the_parts() {
    let key = Key::generate();
    let wire = [agcm::encrypt(&key, b"a"), b"and then something else".to_vec()].concat();
    let mut frames = FramedRead::new(&wire[..], FrameDecoder::new(&key));
    block_on(async {
        assert_eq!(frames.next().await.unwrap().unwrap(), data(*b"a"));
        assert_eq!(frames.next().await.unwrap().unwrap(), Frame::End);
    });
    let parts = frames.into_parts();
    assert_eq!([&parts.read_buf[..], parts.io].concat(), b"and then something else");
}

#[test]
fn data_is_handed_out_without_a_copy() {
    let key = Key::generate();
    let mut wire = BytesMut::from(&agcm::encrypt(&key, &plaintext(1000))[..]);
    let range = wire.as_ptr_range();
    let Some(Frame::Data(data)) = FrameDecoder::new(&key).decode(&mut wire).unwrap() else { panic!("data first") };
    assert_eq!(data, plaintext(1000));
    assert!(range.contains(&data.as_ptr()));
}

#[tokio::test]
async fn a_writer_and_a_decoder_understand_each_other() {
    let key = Key::generate();
    let (near, far) = tokio::io::duplex(100);
    let sent = plaintext(300_000);
    let send = async {
        let mut writer = agcm::EncryptWriter::new(near, &key);
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let receive = async {
        let mut received = Vec::new();
        let mut frames = FramedRead::new(far, FrameDecoder::new(&key));
        while let Some(Frame::Data(data)) = frames.try_next().await.unwrap() {
            received.extend_from_slice(&data);
        }
        received
    };
    let ((), received) = tokio::join!(send, receive);
    assert!(received == sent);
}

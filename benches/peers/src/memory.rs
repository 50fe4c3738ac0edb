//! From memory to memory, on one core: every peer as its documentation would have it used, and no slower than need be.
//!
//! All get their input from warm memory, 64 KiB at a time where they take pieces, and leave their output in memory that they use
//! again, as far as they offer that. None writes anywhere.

use std::{
    hint::black_box,
    io::{BufRead, BufReader, Write},
    iter,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use aead_stream::{DecryptorBE32, EncryptorBE32, KeyInit};
use aes_gcm::Aes256Gcm;
use agcm::DecryptOptions;
use dryoc::classic::crypto_secretstream_xchacha20poly1305::{self as secretstream, State};
use futures_util::io::{AsyncReadExt, AsyncWriteExt};
use orion::aead::{
    SecretKey,
    streaming::{StreamOpener, StreamSealer, StreamTag},
};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use crate::common::{
    KIB, MIB, Results, Rounds, Run,
    bare::{self, TAG},
    ours::{self, Shape, sealing},
    timed,
};

const CHUNK: usize = 64 * KIB;
const STREAM: usize = 16 * MIB;
const BUDGET: Duration = Duration::from_secs(12);

type Sides<'a> = Vec<(&'static str, Run<'a>)>;

pub(crate) fn run(sio: &Path) {
    let runtime = Builder::new_current_thread().build().expect("a runtime can be built");
    let mut results = Results::new("peers");
    compare(&mut results, "encrypt", sealers(&runtime, sio));
    compare(&mut results, "decrypt", openers(&runtime, sio));
}

/// The first side is ours.
fn compare(results: &mut Results, group: &str, sides: Sides<'_>) {
    let (names, mut runs): (Vec<_>, Vec<_>) = sides.into_iter().unzip();
    let rounds = Rounds::take(STREAM, BUDGET, 5, &mut runs);
    println!("{group}: {} at {:.0} MiB/s; ours, by how much it is faster than", names[0], rounds.rate(0) / MIB as f64);
    for (i, name) in names.iter().enumerate() {
        let rates = json!({"ours": rounds.rate(0), "base": rounds.rate(i), "side": names[0]});
        results.add(group, name, rounds.ratio(0, i), rates);
    }
}

fn sealers<'a>(runtime: &'a Runtime, sio_program: &Path) -> Sides<'a> {
    let shape = Shape::new(CHUNK, STREAM);
    vec![
        ("agcm, EncryptWriter", ours::writer(runtime, sealing(CHUNK), shape, CHUNK)),
        ("bare AEAD of the same backend, in place", bare::seal(CHUNK, STREAM)),
        ("age, async", age_sealer(runtime)),
        ("aead-stream, in place in a buffer", aead_stream_sealer()),
        ("aead-stream, into a new Vec each", aead_stream_allocating_sealer()),
        ("dryoc, secretstream", dryoc_sealer()),
        ("orion, streaming", orion_sealer()),
        ("sio", sio(sio_program, "seal")),
        ("aws-lc-rs, bare, in place", aws_lc_sealer()),
    ]
}

fn openers<'a>(runtime: &'a Runtime, sio_program: &Path) -> Sides<'a> {
    let shape = Shape::new(CHUNK, STREAM);
    vec![
        ("agcm, DecryptReader, fill_buf", ours::buffered_reader(runtime, DecryptOptions::new(), shape)),
        ("agcm, DecryptReader, read", ours::reader(runtime, DecryptOptions::new(), shape)),
        ("bare AEAD of the same backend, in place", bare::open(CHUNK, STREAM)),
        ("age, async", age_opener(runtime)),
        ("aead-stream, in place in a buffer", aead_stream_opener()),
        ("aead-stream, into a new Vec each", aead_stream_allocating_opener()),
        ("dryoc, secretstream", dryoc_opener()),
        ("orion, streaming", orion_opener()),
        ("sio", sio(sio_program, "open")),
    ]
}

/// Chunks of a plaintext that is all the same; whether each is the last.
fn chunks(plaintext: &[u8]) -> impl Iterator<Item = (&[u8], bool)> {
    (1..=STREAM / CHUNK).map(move |i| (black_box(plaintext), i == STREAM / CHUNK))
}

/// Pieces of a sealed stream, each with its tag; whether each is the last.
fn pieces(stream: &[u8], len: usize) -> impl Iterator<Item = (&[u8], bool)> {
    let count = stream.len().div_ceil(len);
    stream.chunks(len).enumerate().map(move |(i, piece)| (black_box(piece), i + 1 == count))
}

fn age_sealer(runtime: &Runtime) -> Run<'_> {
    let recipient = age::x25519::Identity::generate().to_public();
    let plaintext = vec![0; CHUNK];
    Box::new(move || timed(|| runtime.block_on(seal_by_age(&recipient, &plaintext, futures_util::io::sink()))))
}

async fn seal_by_age(
    recipient: &age::x25519::Recipient,
    plaintext: &[u8],
    to: impl futures_util::io::AsyncWrite + Unpin,
) {
    let encryptor = age::Encryptor::with_recipients(iter::once(recipient as _)).expect("there is a recipient");
    let mut writer = encryptor.wrap_async_output(to).await.expect("memory takes everything");
    for (chunk, _) in chunks(plaintext) {
        writer.write_all(chunk).await.expect("memory takes everything");
    }
    writer.close().await.expect("memory can be closed");
}

fn age_opener(runtime: &Runtime) -> Run<'_> {
    let identity = age::x25519::Identity::generate();
    let mut stream = Vec::new();
    runtime.block_on(seal_by_age(&identity.to_public(), &vec![0; CHUNK], &mut stream));
    let mut plaintext = vec![0; CHUNK];
    Box::new(move || {
        timed(|| {
            runtime.block_on(async {
                let decryptor = age::Decryptor::new_async_buffered(&stream[..]).await.expect("this is an age file");
                let identities = iter::once(&identity as _);
                let mut reader = decryptor.decrypt_async(identities).expect("it is for this identity");
                while black_box(reader.read(&mut plaintext).await).expect("the stream is intact") > 0 {}
            });
        })
    })
}

const AEAD_STREAM_KEY: [u8; 32] = [1; 32];
const AEAD_STREAM_NONCE: [u8; 7] = [7; 7];

fn aead_stream_encryptor() -> EncryptorBE32<Aes256Gcm> {
    EncryptorBE32::from_aead(Aes256Gcm::new(&AEAD_STREAM_KEY.into()), &AEAD_STREAM_NONCE.into())
}

fn aead_stream_decryptor() -> DecryptorBE32<Aes256Gcm> {
    DecryptorBE32::from_aead(Aes256Gcm::new(&AEAD_STREAM_KEY.into()), &AEAD_STREAM_NONCE.into())
}

fn seal_by_aead_stream(plaintext: &[u8], mut to: impl FnMut(&[u8])) {
    let mut encryptor = Some(aead_stream_encryptor());
    let mut buffer = Vec::with_capacity(CHUNK + TAG);
    for (chunk, last) in chunks(plaintext) {
        buffer.clear();
        buffer.extend_from_slice(chunk);
        let sealed = match (&mut encryptor, last) {
            (Some(encryptor), false) => encryptor.encrypt_next_in_place(b"", &mut buffer),
            (encryptor, _) => encryptor.take().map_or(Ok(()), |it| it.encrypt_last_in_place(b"", &mut buffer)),
        };
        sealed.expect("a chunk can be sealed");
        to(&buffer);
    }
}

fn aead_stream_sealer() -> Run<'static> {
    let plaintext = vec![0; CHUNK];
    Box::new(move || {
        timed(|| {
            seal_by_aead_stream(&plaintext, |frame| {
                black_box(frame);
            })
        })
    })
}

fn aead_stream_allocating_sealer() -> Run<'static> {
    let plaintext = vec![0; CHUNK];
    Box::new(move || {
        timed(|| {
            let mut encryptor = Some(aead_stream_encryptor());
            for (chunk, last) in chunks(&plaintext) {
                let sealed = match (&mut encryptor, last) {
                    (Some(encryptor), false) => encryptor.encrypt_next(chunk),
                    (encryptor, _) => encryptor.take().expect("there is one last chunk").encrypt_last(chunk),
                };
                black_box(sealed.expect("a chunk can be sealed"));
            }
        })
    })
}

fn sealed_by_aead_stream() -> Vec<u8> {
    let mut stream = Vec::new();
    seal_by_aead_stream(&vec![0; CHUNK], |frame| stream.extend_from_slice(frame));
    stream
}

fn aead_stream_opener() -> Run<'static> {
    let stream = sealed_by_aead_stream();
    Box::new(move || {
        timed(|| {
            let mut decryptor = Some(aead_stream_decryptor());
            let mut buffer = Vec::with_capacity(CHUNK + TAG);
            for (piece, last) in pieces(&stream, CHUNK + TAG) {
                buffer.clear();
                buffer.extend_from_slice(piece);
                let opened = match (&mut decryptor, last) {
                    (Some(decryptor), false) => decryptor.decrypt_next_in_place(b"", &mut buffer),
                    (decryptor, _) => decryptor.take().map_or(Ok(()), |it| it.decrypt_last_in_place(b"", &mut buffer)),
                };
                opened.expect("the stream is intact");
                black_box(&buffer);
            }
        })
    })
}

fn aead_stream_allocating_opener() -> Run<'static> {
    let stream = sealed_by_aead_stream();
    Box::new(move || {
        timed(|| {
            let mut decryptor = Some(aead_stream_decryptor());
            for (piece, last) in pieces(&stream, CHUNK + TAG) {
                let opened = match (&mut decryptor, last) {
                    (Some(decryptor), false) => decryptor.decrypt_next(piece),
                    (decryptor, _) => decryptor.take().expect("there is one last chunk").decrypt_last(piece),
                };
                black_box(opened.expect("the stream is intact"));
            }
        })
    })
}

const DRYOC_KEY: [u8; 32] = [1; 32];
/// What a secretstream adds to a message: its tag, in both senses.
const DRYOC_OVERHEAD: usize = 17;
const DRYOC_MESSAGE: u8 = 0;
const DRYOC_FINAL: u8 = 3;

fn seal_by_dryoc(plaintext: &[u8], frame: &mut [u8], mut to: impl FnMut(&[u8])) -> secretstream::Header {
    let (mut state, mut header) = (State::new(), Default::default());
    secretstream::crypto_secretstream_xchacha20poly1305_init_push(&mut state, &mut header, &DRYOC_KEY);
    for (chunk, last) in chunks(plaintext) {
        let tag = if last { DRYOC_FINAL } else { DRYOC_MESSAGE };
        secretstream::crypto_secretstream_xchacha20poly1305_push(&mut state, frame, chunk, None, tag)
            .expect("a chunk can be sealed");
        to(frame);
    }
    header
}

fn dryoc_sealer() -> Run<'static> {
    let (plaintext, mut frame) = (vec![0; CHUNK], vec![0; CHUNK + DRYOC_OVERHEAD]);
    Box::new(move || {
        timed(|| {
            seal_by_dryoc(&plaintext, &mut frame, |frame| {
                black_box(frame);
            });
        })
    })
}

fn dryoc_opener() -> Run<'static> {
    let (mut stream, mut plaintext) = (Vec::new(), vec![0; CHUNK]);
    let header =
        seal_by_dryoc(&plaintext, &mut vec![0; CHUNK + DRYOC_OVERHEAD], |frame| stream.extend_from_slice(frame));
    Box::new(move || {
        timed(|| {
            let (mut state, mut tag) = (State::new(), 0);
            secretstream::crypto_secretstream_xchacha20poly1305_init_pull(&mut state, &header, &DRYOC_KEY);
            for (piece, last) in pieces(&stream, CHUNK + DRYOC_OVERHEAD) {
                secretstream::crypto_secretstream_xchacha20poly1305_pull(
                    &mut state,
                    &mut plaintext,
                    &mut tag,
                    piece,
                    None,
                )
                .expect("the stream is intact");
                assert_eq!(tag == DRYOC_FINAL, last);
                black_box(&plaintext);
            }
        })
    })
}

fn orion_tag(last: bool) -> StreamTag {
    if last { StreamTag::Finish } else { StreamTag::Message }
}

fn orion_sealer() -> Run<'static> {
    let (key, plaintext) = (SecretKey::generate().expect("there is randomness"), vec![0; CHUNK]);
    Box::new(move || {
        timed(|| {
            let (mut sealer, _) = StreamSealer::new(&key).expect("there is randomness");
            for (chunk, last) in chunks(&plaintext) {
                black_box(sealer.seal_chunk(chunk, &orion_tag(last)).expect("a chunk can be sealed"));
            }
        })
    })
}

fn orion_opener() -> Run<'static> {
    let (key, plaintext) = (SecretKey::generate().expect("there is randomness"), vec![0; CHUNK]);
    let (mut sealer, nonce) = StreamSealer::new(&key).expect("there is randomness");
    let frames: Vec<_> = chunks(&plaintext)
        .map(|(chunk, last)| sealer.seal_chunk(chunk, &orion_tag(last)).expect("a chunk can be sealed"))
        .collect();
    Box::new(move || {
        timed(|| {
            let mut opener = StreamOpener::new(&key, &nonce).expect("this is a nonce");
            for frame in &frames {
                black_box(opener.open_chunk(frame).expect("the stream is intact"));
            }
        })
    })
}

/// `sio` does it in another process, which takes its turns as the others do; it says how long one took.
fn sio(program: &Path, request: &'static str) -> Run<'static> {
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program of that name can be started");
    let mut requests = child.stdin.take().expect("it is a pipe");
    let mut answers = BufReader::new(child.stdout.take().expect("it is a pipe"));
    // Closing its standard input is what ends it.
    Box::new(move || {
        writeln!(requests, "{request}").expect("it is there");
        let mut answer = String::new();
        answers.read_line(&mut answer).expect("it is there");
        Duration::from_nanos(answer.trim().parse().expect("it answers in nanoseconds"))
    })
}

/// For the default build to see what the other backend could do; in that build it is the bare AEAD once more.
fn aws_lc_sealer() -> Run<'static> {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[1; 32]).expect("32 bytes are a key"));
    let mut frame = vec![0; CHUNK];
    Box::new(move || {
        timed(|| {
            for _ in 0..STREAM / CHUNK {
                let nonce = Nonce::assume_unique_for_key([7; 12]);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut frame);
                let _ = black_box(tag.expect("it can be sealed"));
            }
        })
    })
}

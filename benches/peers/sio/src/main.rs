//! Seals or opens one stream of 16 MiB for every line on standard input, and answers with the nanoseconds that
//! the processor worked for it.

use std::{
    hint::black_box,
    io::{Write, sink, stdin},
};

use rustix::time::{ClockId, clock_gettime};
use sio::{Aad, Close, DecWriter, EncWriter, Key, Nonce, ring::AES_256_GCM};

const CHUNK: usize = 64 * 1024;
const STREAM: usize = 16 * 1024 * 1024;

fn main() {
    let plaintext = vec![0; CHUNK];
    let mut stream = Vec::new();
    seal(&plaintext, &mut stream);
    for line in stdin().lines() {
        let line = line.expect("standard input is text");
        let start = processor_time();
        match line.as_str() {
            "seal" => seal(&plaintext, sink()),
            "open" => open(&stream),
            other => panic!("{other:?} is neither seal nor open"),
        }
        println!("{}", processor_time() - start);
    }
}

fn processor_time() -> i64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

fn key() -> Key<AES_256_GCM> {
    Key::new([1; Key::<AES_256_GCM>::SIZE])
}

fn nonce() -> Nonce<AES_256_GCM> {
    Nonce::new([7; Nonce::<AES_256_GCM>::SIZE])
}

fn seal(plaintext: &[u8], to: impl Write) {
    let mut writer = EncWriter::with_buffer_size(to, &key(), nonce(), Aad::empty(), CHUNK).expect("a size it takes");
    for _ in 0..STREAM / CHUNK {
        writer.write_all(black_box(plaintext)).expect("memory takes everything");
    }
    writer.close().expect("memory takes everything");
}

fn open(stream: &[u8]) {
    let mut writer =
        DecWriter::with_buffer_size(sink(), &key(), nonce(), Aad::empty(), CHUNK).expect("a size it takes");
    writer.write_all(black_box(stream)).expect("the stream is intact");
    writer.close().expect("the stream is whole");
}

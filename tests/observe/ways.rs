//! Every way to encrypt and to decrypt, to its end or in part.

use std::{future::Future, io, pin::Pin};

use agcm::{
    DecryptOptions, DecryptReader, DecryptWriter, Decryptor, EncryptOptions, EncryptReader, EncryptWriter, Encryptor,
    FileOptions, Key, Step,
    codec::{Frame, FrameDecoder, FrameEncoder, framed_read, framed_write},
};
use bytes::BytesMut;
use futures::{SinkExt, TryStreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::Decoder;

pub const CHUNK: usize = 1000;
pub const LEN: usize = 3500;
pub const FRAMES: usize = 4;

type Work<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;
pub type Encrypting = for<'a> fn(&'a Key, &'a EncryptOptions) -> Work<'a, Vec<u8>>;
pub type PartlyEncrypting = for<'a> fn(&'a Key, &'a EncryptOptions) -> Work<'a, ()>;
pub type Decrypting = for<'a> fn(&'a Key, &'a DecryptOptions, &'a [u8]) -> Work<'a, io::Result<()>>;
pub type PartlyDecrypting = for<'a> fn(&'a Key, &'a [u8]) -> Work<'a, ()>;

pub fn plaintext() -> Vec<u8> {
    b"PLAINTEXT-CANARY ".iter().copied().cycle().take(LEN).collect()
}

pub const ENCRYPTING: [(&str, Encrypting); 6] = [
    ("one-shot", |key, options| Box::pin(async move { options.encrypt(key, &plaintext()) })),
    ("core", |key, options| {
        Box::pin(async move {
            let (mut encryptor, prelude) = Encryptor::start(key, options).unwrap();
            let mut stream = prelude.to_vec();
            for chunk in plaintext().chunks(CHUNK) {
                encryptor.seal(chunk, &mut stream).unwrap();
            }
            stream.extend(encryptor.finish());
            stream
        })
    }),
    ("writer", |key, options| {
        Box::pin(async move {
            let mut writer = EncryptWriter::with_options(Vec::new(), key, options);
            writer.write_all(&plaintext()).await.unwrap();
            writer.shutdown().await.unwrap();
            // Once is enough.
            writer.shutdown().await.unwrap();
            writer.into_inner()
        })
    }),
    ("reader", |key, options| {
        Box::pin(async move {
            let (mut stream, plaintext) = (Vec::new(), plaintext());
            EncryptReader::with_options(&plaintext[..], key, options).read_to_end(&mut stream).await.unwrap();
            stream
        })
    }),
    ("codec", |key, options| {
        Box::pin(async move {
            let mut frames = framed_write(Vec::new(), FrameEncoder::with_options(key, options));
            frames.feed(Frame::Data(plaintext().into())).await.unwrap();
            frames.feed(Frame::End).await.unwrap();
            frames.close().await.unwrap();
            frames.into_inner()
        })
    }),
    ("file", |key, options| {
        Box::pin(async move {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            std::fs::write(path("PATH-CANARY"), plaintext()).unwrap();
            let files = FileOptions::new().encrypt_options(options.clone());
            files.encrypt_file(path("PATH-CANARY"), path("PATH-CANARY.agcm"), key).await.unwrap();
            std::fs::read(path("PATH-CANARY.agcm")).unwrap()
        })
    }),
];

/// Two chunks and some, of which two are sealed.
pub const PARTLY_ENCRYPTING: [(&str, PartlyEncrypting); 4] = [
    ("core", |key, options| {
        Box::pin(async move {
            let (mut encryptor, _) = Encryptor::start(key, options).unwrap();
            encryptor.seal(&[7; CHUNK], &mut Vec::new()).unwrap();
            encryptor.seal(&[7; CHUNK], &mut Vec::new()).unwrap();
        })
    }),
    ("writer", |key, options| {
        Box::pin(async move {
            let mut writer = EncryptWriter::with_options(Vec::new(), key, options);
            writer.write_all(&plaintext()[..2 * CHUNK + 500]).await.unwrap();
            writer.flush().await.unwrap();
        })
    }),
    ("reader", |key, options| {
        Box::pin(async move {
            let plaintext = plaintext();
            let mut reader = EncryptReader::with_options(&plaintext[..], key, options);
            reader.read_exact(&mut [0; 80 + 2 * (CHUNK + 20)]).await.unwrap();
        })
    }),
    ("codec", |key, options| {
        Box::pin(async move {
            let mut frames = framed_write(Vec::new(), FrameEncoder::with_options(key, options));
            frames.send(Frame::Data(plaintext()[..2 * CHUNK].to_vec().into())).await.unwrap();
        })
    }),
];

pub const DECRYPTING: [(&str, Decrypting); 8] = [
    ("one-shot", |key, options, stream| {
        Box::pin(async move { options.decrypt(key, stream).map(drop).map_err(Into::into) })
    }),
    ("core", |key, options, stream| {
        Box::pin(async move {
            let (mut decryptor, mut at) = (Decryptor::new(key, options), 0);
            loop {
                // In turns, so that both are seen.
                let in_place = decryptor.open_in_place(&mut stream[at..].to_vec())?;
                match in_place {
                    Step::Start { consumed } | Step::Data { consumed, .. } => at += consumed,
                    Step::End { consumed } => {
                        at += consumed;
                        break;
                    }
                    Step::Incomplete { .. } => return Ok(decryptor.end_of_input(stream.len() - at)?),
                }
                match decryptor.open(&stream[at..], &mut Vec::new())? {
                    Step::Start { consumed } | Step::Data { consumed, .. } => at += consumed,
                    Step::End { consumed } => {
                        at += consumed;
                        break;
                    }
                    Step::Incomplete { .. } => return Ok(decryptor.end_of_input(stream.len() - at)?),
                }
            }
            // Twice, to be told the same.
            for _ in 0..2 {
                let _ = decryptor.open(&stream[at..], &mut Vec::new());
            }
            decryptor.open(&stream[at..], &mut Vec::new()).map(drop).map_err(Into::into)
        })
    }),
    ("reader", |key, options, stream| {
        Box::pin(async move {
            let mut reader = DecryptReader::with_options(stream, key, options);
            let read = reader.read_to_end(&mut Vec::new()).await;
            assert_eq!(reader.read(&mut [0]).await.is_err(), read.is_err());
            read.map(drop)
        })
    }),
    // Not straight into the buffer of the caller.
    ("buffered reader", |key, options, stream| {
        Box::pin(async move {
            let mut reader = DecryptReader::with_options(stream, key, options);
            tokio::io::copy_buf(&mut reader, &mut tokio::io::sink()).await.map(drop)
        })
    }),
    ("writer", |key, options, stream| {
        Box::pin(async move {
            let mut writer = DecryptWriter::with_options(Vec::new(), key, options);
            writer.write_all(stream).await?;
            writer.shutdown().await
        })
    }),
    ("codec", |key, options, stream| {
        Box::pin(async move {
            let mut frames = framed_read(stream, FrameDecoder::with_options(key, options));
            while frames.try_next().await?.is_some() {}
            Ok(())
        })
    }),
    ("file", |key, options, stream| {
        Box::pin(async move {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            std::fs::write(path("PATH-CANARY.agcm"), stream).unwrap();
            let files = FileOptions::new().decrypt_options(options.clone());
            files.decrypt_file(path("PATH-CANARY.agcm"), path("PATH-CANARY"), key).await.map(drop)
        })
    }),
    ("file from a reader", |key, options, stream| {
        Box::pin(async move {
            let folder = tempfile::tempdir().unwrap();
            let files = FileOptions::new().decrypt_options(options.clone());
            files.decrypt_from(stream, folder.path().join("PATH-CANARY"), key).await.map(drop)
        })
    }),
];

/// One frame of several.
pub const PARTLY_DECRYPTING: [(&str, PartlyDecrypting); 4] = [
    ("core", |key, stream| {
        Box::pin(async move {
            let mut decryptor = Decryptor::new(key, &DecryptOptions::new());
            decryptor.open(stream, &mut Vec::new()).unwrap();
            decryptor.open(&stream[80..], &mut Vec::new()).unwrap();
        })
    }),
    ("reader", |key, stream| {
        Box::pin(async move {
            DecryptReader::new(stream, key).read_exact(&mut [0; CHUNK]).await.unwrap();
        })
    }),
    ("writer", |key, stream| {
        Box::pin(async move {
            let mut writer = DecryptWriter::new(Vec::new(), key);
            writer.write_all(&stream[..80 + CHUNK + 20 + 50]).await.unwrap();
            writer.flush().await.unwrap();
        })
    }),
    ("codec", |key, stream| {
        Box::pin(async move {
            let mut decoder = FrameDecoder::new(key);
            assert!(decoder.decode(&mut BytesMut::from(stream)).unwrap().is_some());
        })
    }),
];

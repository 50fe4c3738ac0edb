//! Any bytes, under a key and a context of the vectors: whatever opens a stream must do with them as the model does.
//!
//! The first byte is the number of a key and context, and the second that of a way to open the rest.

use std::sync::LazyLock;

use agcm::{DecryptOptions, Error, Key, KeyRing, inspect};
use futures::executor::block_on;

use crate::{
    model::Model,
    vectors,
    ways::{self, Way},
};

/// Keys and contexts: of the valid vectors, then of the invalid ones.
pub static VECTORS: LazyLock<Vec<([u8; 32], Vec<u8>)>> = LazyLock::new(|| {
    let valid = vectors::valid().into_iter().map(|vector| (vector.key, vector.context));
    let invalid = vectors::invalid().into_iter().map(|vector| (vector.key, vector.context));
    let mut all: Vec<_> = valid.chain(invalid).collect();
    all.sort();
    all.dedup();
    assert!(all.len() < 256, "a byte is enough to choose one");
    all
});

static WAYS: LazyLock<Vec<&'static (&'static str, Way)>> = LazyLock::new(|| ways::all().collect());

pub fn run(data: &[u8]) {
    let [vector, way, stream @ ..] = data else { return };
    let (key, context) = &VECTORS[usize::from(*vector) % VECTORS.len()];
    let (name, open) = WAYS[usize::from(*way) % WAYS.len()];
    let model = Model { context: context.clone(), ..Model::new(*key) };
    let options = DecryptOptions::new().context(context).unwrap();

    let (released, result) = open(&KeyRing::from(Key::from_bytes(*key)), &options, stream);
    assert_eq!((released, result), model.way(name, stream), "{name}");
    look(&model, stream);
}

/// What is found without the key agrees with what is found with it, as far as it can.
pub fn look(model: &Model, stream: &[u8]) {
    let found = block_on(inspect(stream)).map_err(|error| Error::from_io(&error).unwrap());
    let (released, result) = model.read(stream);
    if let Ok(found) = &found {
        assert!(found.plaintext_len >= released.len() as u64, "all that is authentic is there");
        assert!(found.stream_len <= stream.len() as u64, "no more is found than there is");
    }
    match result {
        Ok(end) => {
            let found = found.unwrap();
            let behind = (end < stream.len()).then_some(Error::TrailingData { at: end as u64 });
            assert_eq!((found.plaintext_len, found.stream_len), (released.len() as u64, end as u64));
            assert_eq!((found.problem, found.frames * 20 + 117), (behind, (end - released.len()) as u64));
        }
        Err(
            error @ (Error::BadMagic | Error::UnsupportedVersion(_) | Error::InvalidChunkSize(_) | Error::LegacyStream),
        ) => {
            assert_eq!(found, Err(error));
        }
        Err(error @ Error::Truncated { at: 0..24 }) => assert_eq!(found, Err(error)),
        Err(error @ (Error::Truncated { .. } | Error::InvalidFrame { .. })) => {
            assert_eq!(found.unwrap().problem, Some(error));
        }
        // What only somebody with the key can see, or with a limit.
        Err(Error::KeyMismatch | Error::Corrupt { .. } | Error::ChunkTooLarge { .. }) => {}
        Err(error) => panic!("the model does not say {error:?}"),
    }
}

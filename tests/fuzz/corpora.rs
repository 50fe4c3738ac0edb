//! What the fuzzers have found worth keeping, once more: each must pass, and none may be missing.

use std::{fs::File, io::Read, panic, path::Path};

use zip::ZipArchive;

/// Gives a target all that is in its archive.
fn replay(target: &str, run: fn(&[u8])) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora").join(target).with_extension("zip");
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut corpus = ZipArchive::new(file).unwrap();
    assert!(!corpus.is_empty(), "{} is empty", path.display());
    for i in 0..corpus.len() {
        let mut entry = corpus.by_index(i).unwrap();
        let (name, mut bytes) = (entry.name().to_owned(), Vec::new());
        entry.read_to_end(&mut bytes).unwrap();
        let passed = panic::catch_unwind(|| run(&bytes));
        assert!(passed.is_ok(), "{target} fails at {name} of {}", path.display());
    }
}

macro_rules! replay {
    ($($target:ident),*) => {$(
        #[test]
        fn $target() {
            replay(stringify!($target), crate::$target::run);
        }
    )*};
}

replay!(differential, geometry, key_file, legacy, mutated, raw, writer);
#[cfg(all(unix, feature = "passphrase"))]
replay!(key_store);

//! Streams of the Go library: refused by everything but `import`.

use std::{fs, path::PathBuf};

use serde_json::Value;

use crate::{
    folder::Folder,
    tool::{Run, agcm, assert_same, folder, folder_with_stream, plaintext, read},
};

fn vectors() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/legacy")
}

/// A folder with a stream of the Go library, `old`, and the key file of it, `old key`; and the length of its plaintext.
fn folders() -> Vec<(Folder, usize)> {
    let manifest: Value = serde_json::from_slice(&fs::read(vectors().join("manifest.json")).unwrap()).unwrap();
    let streams = manifest["streams"].as_array().unwrap();
    assert_eq!(streams.len(), 6);
    let folder = |stream: &Value| {
        let folder = folder();
        folder.write("old", fs::read(vectors().join(stream["file"].as_str().unwrap())).unwrap());
        folder.write("old-key", stream["key_hex"].as_str().unwrap());
        (folder, usize::try_from(stream["plaintext_len"].as_u64().unwrap()).unwrap())
    };
    streams.iter().map(folder).collect()
}

#[test]
fn streams_of_the_go_library_are_imported_under_a_new_key() {
    for (folder, len) in folders() {
        agcm(&folder, "import --from-go -k other -k old-key --to-key key old -o new").succeeds();
        assert_same(&agcm(&folder, "decrypt -k key new").succeeds(), &plaintext(len));
        folder.assert_holds(&["key", "new", "old", "old-key", "other"]);

        let line = "import --from-go -k old-key --to-key key --chunk-size 9 -c db";
        let stream = agcm(&folder, line).write_stdin(read(&folder, "old")).succeeds();
        assert_same(&agcm(&folder, "decrypt -k key -c db").write_stdin(stream.clone()).succeeds(), &plaintext(len));
        agcm(&folder, "decrypt -k old-key -c db").write_stdin(stream).fails(3);
    }
}

#[test]
fn nothing_is_imported_that_was_not_said_to_be_of_the_go_library() {
    for (folder, _) in folders() {
        let line = agcm(&folder, "import -k old-key --to-key key old -o new").is_misused();
        assert!(line.contains("--from-go"), "{line}");
        agcm(&folder, "import --from-go -k old-key old -o new").is_misused();
        folder.assert_holds(&["key", "old", "old-key", "other"]);
    }
}

#[test]
fn what_cannot_be_imported_leaves_nothing_behind() {
    let (folder, _) = folders().into_iter().find(|(_, len)| *len == 5000).unwrap();
    let old = read(&folder, "old");
    let line = agcm(&folder, "import --from-go -k other --to-key key old -o new").fails(3);
    assert!(line.contains("old"), "{line}");
    agcm(&folder, "import --from-go -k old-key --to-key missing old -o new").fails(1);
    agcm(&folder, "import --from-go -k old-key --to-key key missing -o new").fails(1);
    let mut corrupt = old.clone();
    *corrupt.last_mut().unwrap() ^= 1;
    for bad in [&old[..old.len() - 1], &old[..23], &corrupt, b"no stream", b""] {
        folder.write("bad", bad);
        let line = agcm(&folder, "import --from-go -k old-key --to-key key bad -o new").fails(4);
        assert!(line.contains("bad"), "{line}");
        agcm(&folder, "import --from-go -k old-key --to-key key").write_stdin(bad).fails(4);
    }
    folder.write("new", "precious");
    agcm(&folder, "import --from-go -k old-key --to-key key old -o new").fails(1);
    agcm(&folder, "import --from-go -f -k old-key --to-key key bad -o new").fails(4);
    assert_eq!(read(&folder, "new"), b"precious");
    agcm(&folder, "import --from-go -f -k old-key --to-key key old -o new").succeeds();
    folder.assert_holds(&["bad", "key", "new", "old", "old-key", "other"]);
}

#[test]
fn a_stream_of_this_format_is_not_imported() {
    let folder = folder_with_stream(1000);
    let line = agcm(&folder, "import --from-go -k key --to-key other sealed -o new").fails(4);
    assert!(line.contains("sealed"), "{line}");
    folder.assert_holds(&["key", "other", "plain", "sealed"]);
}

/// A bare header, which the library wrote for an empty input, could as well be a stream of this format that was cut.
#[test]
fn nothing_else_reads_a_stream_of_the_go_library() {
    for (folder, len) in folders() {
        for line in ["decrypt -k old-key old", "verify -k old-key old", "cat -k old-key --range .. old", "inspect old"]
        {
            let line = agcm(&folder, line).fails(4);
            assert!(line.contains("Harpocrates") && line.contains("old"), "{line}");
            assert!(len == 0 || line.contains("--from-go"), "it says what to do: {line}");
        }
        agcm(&folder, "rekey -k old-key --to-key key old").fails(4);
        folder.assert_holds(&["key", "old", "old-key", "other"]);
    }
}

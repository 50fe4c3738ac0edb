//! The guide: what the documentation of no single type can say.
//!
//! | I want | page |
//! |---|---|
//! | to know which chunk size to take, and what it costs | [`chunk_size`] |
//! | to make keys, keep them, change them, and not lose them | [`keys`] |
//! | to get my data back, now | [`restoring`] |
//! | to bring streams and code over from the Go library Harpocrates | [`from_go`] |
//! | to see in my logs what streams and files are doing | [`observability`] |
//! | to know whether this is the right tool at all | [`choosing`] |
//!
//! What every byte of a stream means is in [`format`](mod@crate::format).

// Pages only: nothing here may be code that somebody calls. The imports are for the links on the pages.

pub mod chunk_size {
    #![doc = include_str!("guide/chunk_size.md")]
    #![doc = include_str!("../benches/throughput.svg")]
    #[allow(unused_imports, reason = "for links")]
    use {super::*, crate::*};
}

pub mod keys {
    #![doc = include_str!("guide/keys.md")]
    #[allow(unused_imports, reason = "for links")]
    use {super::*, crate::*};
}

pub mod restoring {
    #![doc = include_str!("guide/restoring.md")]
    #[allow(unused_imports, reason = "for links")]
    use {super::*, crate::*};
}

pub mod from_go {
    #![doc = include_str!("guide/from_go.md")]
    #[allow(unused_imports, reason = "for links")]
    use {super::*, crate::*};
}

pub mod observability {
    #![doc = include_str!("guide/observability.md")]
}

pub mod choosing {
    #![doc = include_str!("guide/choosing.md")]
    #[allow(unused_imports, reason = "for links")]
    use {super::*, crate::*};
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io;

    use crate::{Error, SnapshotError, keystore::KeyStoreError};

    const RUNBOOK: &str = include_str!("guide/restoring.md");

    /// The names of the variants of an error, with an example of each. It does not compile while one is missing.
    macro_rules! variants {
        ($error:ident: $($name:ident $example:tt),* $(,)?) => {{
            // Of each, so that the compiler knows about new ones.
            let name = |error: &$error| match error {
                $($error::$name { .. } => stringify!($name),)*
            };
            [$(variants!(@ $error $name $example)),*].map(|error: $error| (name(&error), error.to_string()))
        }};
        (@ $error:ident $name:ident {}) => { $error::$name };
        (@ $error:ident $name:ident ($($value:expr),+)) => { $error::$name($($value),+) };
        (@ $error:ident $name:ident {$($field:ident: $value:expr),+}) => { $error::$name { $($field: $value),+ } };
    }

    /// What the page says under a heading.
    fn section(name: &str) -> &str {
        let heading = format!("\n## `{name}`\n");
        let (_, rest) = RUNBOOK.split_once(&heading).unwrap_or_else(|| panic!("{name} is missing in the runbook"));
        let end = rest.find("\n## ").unwrap_or(rest.len()).min(rest.find("\n# ").unwrap_or(rest.len()));
        &rest[..end]
    }

    /// Whether a text is one that was quoted, where `...` stands for anything.
    fn fits(quoted: &str, text: &str) -> bool {
        let mut parts = quoted.split("...");
        let mut rest = match text.strip_prefix(parts.next().unwrap_or_default()) {
            Some(rest) => rest,
            None => return false,
        };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.is_empty() || quoted.ends_with("...")
    }

    /// The cells of the rows of tables that begin with a name.
    fn row<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
        let row = page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} is missing"));
        row[name.len()..].split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect()
    }

    #[test]
    fn the_speed_on_the_page_about_chunk_sizes_is_what_was_measured() {
        let (_, measured) = include_str!("../benches/RESULTS.md").split_once("\n## Chunk sizes\n").unwrap();
        let page = include_str!("guide/chunk_size.md");
        for (adapter, way) in
            [("EncryptWriter", "EncryptWriter, written by the chunk"), ("DecryptReader", "DecryptReader, fill_buf")]
        {
            for backend in ["aes-gcm", "aws-lc-rs"] {
                let shown = row(page, &format!("| [`{adapter}`], `{backend}` |"));
                let found: Vec<_> = row(measured, &format!("| {way} | {backend} |"))
                    .into_iter()
                    .map(|cell| cell.split("**").nth(1).unwrap())
                    .collect();
                assert_eq!(shown, found, "{adapter}, {backend}");
                assert_eq!(shown.len(), 7);
            }
        }
    }

    #[test]
    fn pictures_can_stand_in_a_page_and_say_what_they_show() {
        for picture in [
            include_str!("guide/architecture.svg"),
            include_str!("guide/format.svg"),
            include_str!("../benches/throughput.svg"),
        ] {
            assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
            // An empty line would end the block of HTML, and the rest would be text.
            assert!(picture.lines().all(|line| !line.trim().is_empty()));
            for part in ["<title ", "<desc ", "role=\"img\"", "var(--main-color,", "(prefers-color-scheme:dark)"] {
                assert!(picture.contains(part), "{part}");
            }
        }
    }

    #[track_caller]
    fn assert_explained(name: &str, words: &str) {
        let section = section(name);
        assert!(section.contains("**Do"), "what to do about {name} is missing");
        let quoted = section.lines().find_map(|line| line.strip_prefix("> ")).unwrap_or_default();
        assert!(fits(quoted, words), "{name} is quoted as\n{quoted}\nand says\n{words}");
    }

    #[test]
    fn the_runbook_explains_every_error_of_a_stream_in_its_own_words() {
        let errors = variants!(Error:
            BadMagic {},
            UnsupportedVersion (2),
            InvalidChunkSize (16_777_216),
            ChunkTooLarge { chunk: 10_485_760, max: 1_048_576 },
            LegacyStream {},
            InvalidFrame { frame: 3, at: 196_748, word: 0xff00_0000 },
            KeyMismatch {},
            Corrupt { frame: 4, at: 262_304 },
            Truncated { at: 700_000 },
            TrailingData { at: 1_289_412 },
            StreamTooLong {},
            Finished {},
            InvalidKey {},
            ContextTooLong (70_000),
            RangeOutOfBounds { start: 0, end: 2_000_000, len: 1_288_895 },
            RangeTooLong { len: 70_000_000, max: crate::MAX_RANGE_LEN },
        );
        for (name, words) in errors {
            assert_explained(name, &words);
        }
    }

    #[test]
    fn the_runbook_explains_every_error_of_a_key_store_in_its_own_words() {
        let id = || "db-1".to_owned();
        let errors = variants!(KeyStoreError:
            NoSuchId ("db-2".to_owned()),
            IdTaken (id()),
            BadId { id: "../db".to_owned(), rule: "" },
            UnsafePermissions { path: "keys/db-1.key".into(), mode: 0o644 },
            NotAKey { id: id(), reason: "" },
            NoPassphrase (id()),
            WrongPassphrase (id()),
            Io (io::Error::other("")),
        );
        for (name, words) in errors {
            assert_explained(name, &words);
        }
    }

    #[test]
    fn the_runbook_explains_every_error_of_a_snapshot() {
        let errors = variants!(SnapshotError:
            Io (io::Error::other("")),
            Stream (Error::KeyMismatch),
            KeyStore (KeyStoreError::NoSuchId(String::new())),
            KeyLeft {
                id: "db-1".to_owned(),
                error: Box::new(Error::KeyMismatch.into()),
                removing: KeyStoreError::NoSuchId(String::new())
            },
        );
        for (name, words) in errors {
            if name == "KeyLeft" {
                assert_explained(name, &words);
            } else {
                assert!(!section(name).is_empty());
            }
        }
    }
}

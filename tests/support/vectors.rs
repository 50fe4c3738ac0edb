//! The vectors of `tests/vectors/v1.json`: streams made, valid and invalid, by a reference that shares no code with us.
//!
//! Used by the integration tests and, through `#[path]`, by the unit test that encrypts with the vectors' nonces and salts.

use serde_json::Value;

/// A stream that must open.
pub struct Valid {
    pub name: String,
    pub key: [u8; 32],
    pub nonce: [u8; 12],
    pub salt: [u8; 20],
    pub context: Vec<u8>,
    pub chunk_size: usize,
    /// The plaintext length of each data frame.
    pub frames: Vec<usize>,
    pub plaintext_len: usize,
    pub stream_len: usize,
    pub stream_sha256: [u8; 32],
    /// Absent where the stream is long.
    pub stream: Option<Vec<u8>>,
}

/// A stream that must fail, and the name of its error.
pub struct Invalid {
    pub name: String,
    pub error: String,
    pub key: [u8; 32],
    pub context: Vec<u8>,
    pub stream: Vec<u8>,
}

pub fn valid() -> Vec<Valid> {
    let vectors: Vec<Valid> = list("valid")
        .iter()
        .map(|v| Valid {
            name: text(v, "name"),
            key: array(v, "key"),
            nonce: array(v, "nonce"),
            salt: array(v, "salt"),
            context: hex(v, "context"),
            chunk_size: number(&v["chunk_size"]),
            frames: v["frames"].as_array().unwrap().iter().map(number).collect(),
            plaintext_len: number(&v["plaintext_len"]),
            stream_len: number(&v["stream_len"]),
            stream_sha256: array(v, "stream_sha256"),
            stream: v.get("stream").map(|_| hex(v, "stream")),
        })
        .collect();
    assert_eq!(vectors.len(), 32);
    vectors
}

pub fn invalid() -> Vec<Invalid> {
    let vectors: Vec<Invalid> = list("invalid")
        .iter()
        .map(|v| Invalid {
            name: text(v, "name"),
            error: text(v, "error"),
            key: array(v, "key"),
            context: hex(v, "context"),
            stream: hex(v, "stream"),
        })
        .collect();
    assert_eq!(vectors.len(), 70);
    vectors
}

/// The plaintext of every vector: byte i is (31 i + 7) mod 251.
pub fn plaintext(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * 31 + 7) % 251).unwrap()).collect()
}

fn list(name: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("../vectors/v1.json")).unwrap();
    file[name].as_array().unwrap().clone()
}

fn text(vector: &Value, field: &str) -> String {
    vector[field].as_str().unwrap().to_owned()
}

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

fn hex(vector: &Value, field: &str) -> Vec<u8> {
    base16ct::lower::decode_vec(vector[field].as_str().unwrap()).unwrap()
}

fn array<const N: usize>(vector: &Value, field: &str) -> [u8; N] {
    hex(vector, field).try_into().unwrap()
}

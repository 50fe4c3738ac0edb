//! Any bytes as what a key file holds, as text, and as raw bytes.

use std::str;

use agcm::{Error, Key};

pub fn run(data: &[u8]) {
    let content = Key::from_file_content(data);
    assert_eq!(content.as_ref().map(Key::expose_bytes), expected(data).as_ref().ok_or(&Error::InvalidKey));

    let raw: Option<[u8; 32]> = data.try_into().ok();
    assert_eq!(Key::try_from(data).ok().map(|key| *key.expose_bytes()), raw);

    if let Ok(text) = str::from_utf8(data) {
        let parsed = text.parse::<Key>();
        assert_eq!(parsed.as_ref().map(Key::expose_bytes), hex(data).as_ref().ok_or(&Error::InvalidKey));
        assert!(parsed.is_err() || parsed == content, "text without a newline is a file as well");
    }
    if let Ok(key) = content {
        let text = key.expose_hex();
        assert!(text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        assert!(text.parse::<Key>().unwrap() == key);
        assert!(Key::from_file_content(text.as_bytes()).unwrap() == key);
        assert_eq!(format!("{key:?}"), "Key(..)");
    }
}

/// 32 raw bytes, or 64 hex digits and at most one newline. Half a key in hex is no raw one.
fn expected(content: &[u8]) -> Option<[u8; 32]> {
    if let Ok(raw) = content.try_into() {
        return (!content.iter().all(u8::is_ascii_hexdigit)).then_some(raw);
    }
    [&b""[..], b"\n", b"\r\n"].into_iter().find_map(|end| hex(content.strip_suffix(end)?))
}

fn hex(digits: &[u8]) -> Option<[u8; 32]> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    let bytes: Option<Vec<u8>> =
        digits.chunks(2).map(|pair| u8::try_from(16 * value(pair[0])? + value(*pair.get(1)?)?).ok()).collect();
    bytes?.try_into().ok()
}

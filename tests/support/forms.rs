//! A secret in all the forms that a text may show it in.

/// How much of a secret in a row is too much, in bytes. In base64, and as it is, that would be found by chance in what is random.
const LEN: usize = 4;
const LONG_LEN: usize = 8;

/// Says how a text shows some of a secret; `None` if it does not.
pub fn shown<'a>(text: &[u8], secret: &'a [u8]) -> Option<(&'static str, &'a [u8])> {
    let has = |form: &[u8]| text.windows(form.len()).any(|window| window == form);
    let list = |bytes: &[u8], form: &dyn Fn(&u8) -> String, between: &str| {
        bytes.iter().map(form).collect::<Vec<_>>().join(between)
    };
    let texts = secret.windows(LEN).find_map(|bytes| {
        let forms = [
            ("hex", list(bytes, &|byte| format!("{byte:02x}"), "")),
            ("hex", list(bytes, &|byte| format!("{byte:02X}"), "")),
            ("numbers", list(bytes, &u8::to_string, ", ")),
            ("numbers", list(bytes, &u8::to_string, ",")),
            ("numbers", list(bytes, &u8::to_string, ",\n    ")),
            ("numbers in hex", list(bytes, &|byte| format!("{byte:02x}"), " ")),
            ("numbers in hex", list(bytes, &|byte| format!("{byte:02x}"), ":")),
            ("numbers in hex", list(bytes, &|byte| format!("{byte:x}"), ", ")),
            ("numbers in hex", list(bytes, &|byte| format!("{byte:#04x}"), ", ")),
            ("escapes", list(bytes, &|byte| format!("\\x{byte:02x}"), "")),
            ("escapes", list(bytes, &|byte| format!("\\x{byte:02X}"), "")),
        ];
        forms.iter().find(|(_, form)| has(form.as_bytes())).map(|(name, _)| (*name, bytes))
    });
    texts.or_else(|| {
        secret.windows(LONG_LEN).find_map(|bytes| {
            if has(bytes) {
                return Some(("bytes", bytes));
            }
            // Wherever it begins in a longer text: what whole groups of three bytes make is the same.
            let base64 = (0..3).any(|skipped| has(&base64(&bytes[skipped..])));
            base64.then_some(("base64", bytes))
        })
    })
}

/// Without padding; what is left of a byte at the end is left out.
fn base64(bytes: &[u8]) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks_exact(3)
        .flat_map(|three| {
            let bits = usize::from(three[0]) << 16 | usize::from(three[1]) << 8 | usize::from(three[2]);
            [18, 12, 6, 0].map(|shift| alphabet[bits >> shift & 63])
        })
        .collect()
}

#[test]
fn a_secret_is_seen_in_each_form() {
    let secret = [0xc4, 0xa1, 0xf0, 0x5d, 0x37, 0xbe, 0x82, 0xe9, 0x60, 0x11, 0xda, 0x4b];
    for text in [
        "the key is F05D37BE",
        "\"f05d37be\"",
        &format!("{:?}", &secret[3..7]),
        &format!("{:#?}", &secret[3..7]),
        &format!("{:x?}", &secret[3..7]),
        &format!("{:#04x?}", &secret[3..7]).replace(",\n    ", ", "),
        "c4:a1:f0:5d",
        "b\"\\xf0\\x5d\\x37\\xbe\"",
        "base64: xKHwXTe+gulgEdpL",
        "base64: AMSh8F03voLpYBHaSw==",
        "base64: AADEofBdN76C6WAR2ks=",
    ] {
        assert!(shown(text.as_bytes(), &secret).is_some(), "{text}");
    }
    assert!(shown(&secret, &secret).is_some());
    assert_eq!(shown(b"f05d37, a key of 32 bytes, [196, 161, 240], xKHw", &secret), None);
}

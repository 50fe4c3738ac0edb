//! Nothing that is told holds a key, what is derived from one, a context, a path or plaintext.

use agcm::{DecryptOptions, EncryptOptions, Key};
use hkdf::Hkdf;
use sha2::Sha256;

use crate::{
    recorder::{Log, alone},
    runtime,
    ways::{CHUNK, DECRYPTING, ENCRYPTING, PARTLY_DECRYPTING, PARTLY_ENCRYPTING},
};

const CONTEXT: &str = "CONTEXT-CANARY";

/// Bytes in every form that a field could show them in, by their first eight.
fn forms(bytes: &[u8]) -> Vec<String> {
    let hex = |upper: bool| bytes[..8].iter().map(move |b| if upper { format!("{b:02X}") } else { format!("{b:02x}") });
    let decimal = format!("{:?}", &bytes[..8]);
    vec![
        hex(false).collect(),
        hex(true).collect(),
        decimal.trim_matches(['[', ']']).into(),
        u64::from_le_bytes(bytes[..8].try_into().unwrap()).to_string(),
        u64::from_be_bytes(bytes[..8].try_into().unwrap()).to_string(),
    ]
}

/// Stream key and commitment, which the stream shows, as the format derives them.
fn derived(key: &Key, stream: &[u8]) -> Vec<u8> {
    let info = [b"AGCM-v1\0", &stream[..24], &stream[28..48], CONTEXT.as_bytes()].concat();
    let mut okm = vec![0; 64];
    Hkdf::<Sha256>::from_prk(key.expose_bytes()).unwrap().expand(&info, &mut okm).unwrap();
    assert_eq!(okm[32..], stream[48..80], "it is derived as the format says");
    okm
}

fn is_told(log: &Log, needle: &str) -> bool {
    let all = log.events.iter().chain(&log.spans);
    all.into_iter().any(|told| {
        let texts = told.fields.iter().flat_map(|(name, value)| [*name, value]).chain([&told.name[..]]);
        texts.into_iter().any(|text| text.contains(needle))
    })
}

#[test]
fn no_secret_is_told_at_any_level() {
    let alone = alone();
    let (runtime, key) = (runtime(), Key::generate());
    let encrypt = EncryptOptions::new().chunk_size(CHUNK).unwrap().context(CONTEXT).unwrap();
    let decrypt = DecryptOptions::new().context(CONTEXT).unwrap();
    let mut needles = forms(key.expose_bytes());
    needles.extend(["CANARY".into(), "CONTEXT".into(), "PLAINTEXT".into(), "PATH-".into()]);
    let log = alone.record(|| {
        runtime.block_on(async {
            for (_, way) in ENCRYPTING {
                let stream = way(&key, &encrypt).await;
                let okm = derived(&key, &stream);
                needles.extend(forms(&okm[..32]));
                // The nonces of frames begin with that of the header, and differ in their last bytes.
                needles.extend(forms(&stream[8..20]));
                let mut damaged = stream.clone();
                damaged[1500] ^= 1;
                for (_, way) in DECRYPTING {
                    way(&key, &decrypt, &stream).await.unwrap();
                    for wrong in [&stream[..2000], &damaged, &stream[1..]] {
                        way(&key, &decrypt, wrong).await.unwrap_err();
                    }
                    way(&key, &DecryptOptions::new(), &stream).await.unwrap_err();
                }
            }
            for (_, way) in PARTLY_ENCRYPTING {
                way(&key, &encrypt).await;
            }
            let stream = EncryptOptions::new().chunk_size(CHUNK).unwrap().encrypt(&key, &crate::plaintext());
            for (_, way) in PARTLY_DECRYPTING {
                way(&key, &stream).await;
            }
        });
    });
    assert!(log.events.len() > 300, "{}", log.events.len());
    for needle in &needles {
        assert!(!is_told(&log, needle), "{needle}");
    }
}

/// And they would be seen.
#[test]
fn what_is_told_would_be_found() {
    let alone = alone();
    let secret = [7, 200, 3, 4, 5, 6, 7, 8, 9];
    let log = alone.record(|| {
        tracing::trace!(secret = ?secret, "debug");
        tracing::trace!(le = u64::from_le_bytes(secret[..8].try_into().unwrap()), "number");
        tracing::trace!(be = u64::from_be_bytes(secret[..8].try_into().unwrap()), "number");
    });
    let forms = forms(&secret);
    assert_eq!(forms.iter().map(|form| is_told(&log, form)).collect::<Vec<_>>(), [false, false, true, true, true]);
    let log = alone.record(|| {
        tracing::trace_span!("07c8030405060708").in_scope(|| tracing::trace!("07C8030405060708"));
    });
    assert_eq!(forms.iter().map(|form| is_told(&log, form)).collect::<Vec<_>>(), [true, true, false, false, false]);
}

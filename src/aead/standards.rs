//! The backends that are compiled in, against the vectors of others: Wycheproof's and NIST's of AES-256-GCM, RFC 5869's of
//! HKDF-SHA-256.
//!
//! What the format uses goes through `Cipher` and `expand`, as in a stream. Associated data, and nonces that are not of 96 bits, the
//! format has not, so vectors with these go to the crate below: they are about the same code. No vector may be left out
//! silently, so all are counted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use wycheproof::{
    TestResult,
    aead::{TestName, TestSet},
};

use super::{
    body::{Body, Unauthentic},
    rust_crypto,
};
use crate::{
    format::{NONCE_LEN, TAG_LEN},
    key::Key,
};

type Nonce = [u8; NONCE_LEN];
type Tag = [u8; TAG_LEN];

/// What a backend has for the format, and its crate without that.
struct Backend {
    name: &'static str,
    seal: fn(&[u8; Key::LEN], Nonce, Body<'_>) -> Tag,
    open: fn(&[u8; Key::LEN], Nonce, Body<'_>, Tag) -> Result<(), Unauthentic>,
    expand: fn(&[u8; Key::LEN], &[&[u8]], &mut [u8]),
    /// `None` if the crate takes no such nonce.
    below: fn(&Vector) -> Option<Below>,
}

/// What came of a vector below `Cipher`.
struct Below {
    /// Ciphertext and tag of the vector's plaintext.
    sealed: Option<(Vec<u8>, Vec<u8>)>,
    /// The plaintext of the vector's ciphertext.
    opened: Option<Vec<u8>>,
}

const BACKENDS: &[Backend] = &[
    Backend {
        name: "RustCrypto",
        seal: |key, nonce, body| rust_crypto::Cipher::new(key).seal(nonce, body),
        open: |key, nonce, body, tag| rust_crypto::Cipher::new(key).open(nonce, body, tag),
        expand: rust_crypto::expand,
        below: below_rust_crypto::run,
    },
    #[cfg(feature = "aws-lc-rs")]
    Backend {
        name: "AWS-LC",
        seal: |key, nonce, body| super::aws_lc::Cipher::new(key).seal(nonce, body),
        open: |key, nonce, body, tag| super::aws_lc::Cipher::new(key).open(nonce, body, tag),
        expand: super::aws_lc::expand,
        below: below_aws_lc::run,
    },
];

struct Vector {
    name: String,
    key: [u8; Key::LEN],
    nonce: Vec<u8>,
    aad: Vec<u8>,
    /// `None` if nothing may be opened.
    plaintext: Option<Vec<u8>>,
    ciphertext: Vec<u8>,
    tag: Tag,
}

/// Vectors that were run, by what they went through, and by what they say: to be opened, to be refused.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    cipher: (usize, usize),
    below: (usize, usize),
    /// The crate takes no such nonce.
    not_taken: (usize, usize),
}

#[track_caller]
fn run(backend: &Backend, vectors: &[Vector]) -> Counts {
    let mut counts = Counts::default();
    for vector in vectors {
        let count = match (Nonce::try_from(&vector.nonce[..]), &vector.aad[..]) {
            (Ok(nonce), []) => {
                run_through_cipher(backend, vector, nonce);
                &mut counts.cipher
            }
            _ => match (backend.below)(vector) {
                Some(below) => {
                    let name = format!("{} of {}", vector.name, backend.name);
                    let sealed = vector.plaintext.is_some().then(|| (vector.ciphertext.clone(), vector.tag.to_vec()));
                    assert_eq!(below.sealed, sealed, "{name}");
                    assert_eq!(below.opened, vector.plaintext, "{name}");
                    &mut counts.below
                }
                None => &mut counts.not_taken,
            },
        };
        match vector.plaintext {
            Some(_) => count.0 += 1,
            None => count.1 += 1,
        }
    }
    counts
}

fn run_through_cipher(backend: &Backend, vector: &Vector, nonce: Nonce) {
    let Vector { key, ciphertext, tag, .. } = vector;
    let name = format!("{} of {}", vector.name, backend.name);
    let mut in_place = ciphertext.clone();
    let mut beside = vec![0; ciphertext.len()];
    let opened = (
        (backend.open)(key, nonce, Body::InPlace(&mut in_place), *tag),
        (backend.open)(key, nonce, Body::Into { from: ciphertext, to: &mut beside }, *tag),
    );
    let Some(plaintext) = &vector.plaintext else {
        assert!(matches!(opened, (Err(Unauthentic), Err(Unauthentic))), "{name}");
        return;
    };
    assert!(matches!(opened, (Ok(()), Ok(()))), "{name}");
    assert_eq!((&in_place, &beside), (plaintext, plaintext), "{name}");

    assert_eq!((backend.seal)(key, nonce, Body::InPlace(&mut in_place)), *tag, "{name}");
    assert_eq!((backend.seal)(key, nonce, Body::Into { from: plaintext, to: &mut beside }), *tag, "{name}");
    assert_eq!((&in_place, &beside), (ciphertext, ciphertext), "{name}");
}

#[test]
fn wycheproof_and_every_backend_agree() {
    let set = TestSet::load(TestName::AesGcm).unwrap();
    let groups = set.test_groups.iter().filter(|group| group.key_size == 256);
    let vectors: Vec<Vector> = groups
        .flat_map(|group| &group.tests)
        .map(|test| Vector {
            name: format!("test {} ({})", test.tc_id, test.comment),
            key: test.key[..].try_into().unwrap(),
            nonce: test.nonce.to_vec(),
            aad: test.aad.to_vec(),
            plaintext: match test.result {
                TestResult::Valid => Some(test.pt.to_vec()),
                TestResult::Invalid => None,
                TestResult::Acceptable => panic!("test {} leaves open what is right", test.tc_id),
            },
            ciphertext: test.ct.to_vec(),
            tag: test.tag[..].try_into().unwrap(),
        })
        .collect();
    assert_eq!((set.number_of_tests, vectors.len()), (316, 105));
    for backend in BACKENDS {
        // Nonces of no length are invalid, and AWS-LC takes only those of 96 bits.
        let expected = match backend.name {
            "AWS-LC" => Counts { cipher: (21, 27), below: (18, 0), not_taken: (37, 2) },
            _ => Counts { cipher: (21, 27), below: (55, 0), not_taken: (0, 2) },
        };
        assert_eq!(run(backend, &vectors), expected, "{}", backend.name);
    }
}

#[test]
fn nist_and_every_backend_agree() {
    for (file, expected) in [
        (
            include_str!("../../tests/vectors/nist/gcmEncryptExtIV256.txt"),
            Counts { cipher: (75, 0), below: (300, 0), not_taken: (0, 0) },
        ),
        (
            include_str!("../../tests/vectors/nist/gcmDecrypt256.txt"),
            Counts { cipher: (42, 33), below: (142, 158), not_taken: (0, 0) },
        ),
    ] {
        let vectors: Vec<Vector> = file.lines().filter(|line| !line.starts_with('#')).map(nist_vector).collect();
        for backend in BACKENDS {
            assert_eq!(run(backend, &vectors), expected, "{}", backend.name);
        }
    }
}

fn nist_vector(line: &str) -> Vector {
    let fields: Vec<&str> = line.split(',').collect();
    let [key, nonce, aad, plaintext, ciphertext, tag] = fields[..] else { panic!("{line}") };
    Vector {
        name: line.to_owned(),
        key: hex(key).try_into().unwrap(),
        nonce: hex(nonce),
        aad: hex(aad),
        plaintext: (plaintext != "FAIL").then(|| hex(plaintext)),
        ciphertext: hex(ciphertext),
        tag: hex(tag).try_into().unwrap(),
    }
}

/// Expand only: the key schedule has no Extract, for a key is uniformly random. So these start from PRK.
#[test]
fn rfc_5869_and_every_backend_agree() {
    // Appendices A.1 to A.3: PRK, info, OKM.
    let vectors = [
        (
            "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
            "f0f1f2f3f4f5f6f7f8f9".to_owned(),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
            (0xb0..=0xff).map(|byte: u8| format!("{byte:02x}")).collect(),
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09\
             da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
            String::new(),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ];
    for backend in BACKENDS {
        for (prk, info, okm) in &vectors {
            let (prk, info, expected) = (hex(prk).try_into().unwrap(), hex(info), hex(okm));
            let mut okm = vec![0; expected.len()];
            (backend.expand)(&prk, &[&info], &mut okm);
            assert_eq!(okm, expected, "{}", backend.name);
            // The key schedule hands over its info in parts.
            let (start, end) = info.split_at(info.len() / 3);
            okm.fill(0);
            (backend.expand)(&prk, &[start, &[], end], &mut okm);
            assert_eq!(okm, expected, "{}", backend.name);
        }
    }
}

fn hex(hex: &str) -> Vec<u8> {
    base16ct::lower::decode_vec(hex).unwrap()
}

mod below_rust_crypto {
    use aes_gcm::{
        AesGcm, KeyInit, Tag,
        aead::{AeadInOut, Nonce, array::ArraySize, consts},
        aes::Aes256,
    };

    use super::{Below, Vector};

    pub(super) fn run(vector: &Vector) -> Option<Below> {
        // The length of a nonce is part of the type.
        Some(match vector.nonce.len() {
            1 => sized::<consts::U1>(vector),
            2 => sized::<consts::U2>(vector),
            4 => sized::<consts::U4>(vector),
            6 => sized::<consts::U6>(vector),
            8 => sized::<consts::U8>(vector),
            10 => sized::<consts::U10>(vector),
            12 => sized::<consts::U12>(vector),
            15 => sized::<consts::U15>(vector),
            16 => sized::<consts::U16>(vector),
            20 => sized::<consts::U20>(vector),
            32 => sized::<consts::U32>(vector),
            64 => sized::<consts::U64>(vector),
            128 => sized::<consts::U128>(vector),
            257 => sized::<consts::U257>(vector),
            _ => return None,
        })
    }

    fn sized<N: ArraySize>(vector: &Vector) -> Below {
        let cipher = AesGcm::<Aes256, N>::new(&vector.key.into());
        let nonce: &Nonce<AesGcm<Aes256, N>> = vector.nonce[..].try_into().unwrap();
        let sealed = vector.plaintext.clone().map(|mut body| {
            let tag = cipher.encrypt_inout_detached(nonce, &vector.aad, (&mut body[..]).into()).unwrap();
            (body, tag.to_vec())
        });
        let mut body = vector.ciphertext.clone();
        let opened = cipher.decrypt_inout_detached(nonce, &vector.aad, (&mut body[..]).into(), &Tag::from(vector.tag));
        Below { sealed, opened: opened.ok().map(|()| body) }
    }
}

#[cfg(feature = "aws-lc-rs")]
mod below_aws_lc {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

    use super::{Below, Vector};

    pub(super) fn run(vector: &Vector) -> Option<Below> {
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &vector.key).unwrap());
        let nonce = || Nonce::try_assume_unique_for_key(&vector.nonce).ok();
        nonce()?;
        let sealed = vector.plaintext.clone().map(|mut body| {
            let tag = cipher.seal_in_place_separate_tag(nonce().unwrap(), Aad::from(&vector.aad), &mut body).unwrap();
            (body, tag.as_ref().to_vec())
        });
        let mut body = vector.ciphertext.clone();
        let aad = Aad::from(&vector.aad);
        let opened = cipher.open_in_place_separate_tag(nonce()?, aad, &vector.tag, &mut body).is_ok();
        Some(Below { sealed, opened: opened.then_some(body) })
    }
}

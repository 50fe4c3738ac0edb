//! What must not be found: keys in all the forms that work with them gives them, and marked plaintext.
//!
//! All of it is derived here once more, from the format and from the standards, so that nothing depends on how the library
//! does it.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        LazyLock, Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
    thread,
};

use aes_gcm::{
    KeyInit,
    aes::{Aes256, cipher::BlockCipherEncrypt},
};
use hkdf::Hkdf;
use sha2::{Sha256, block_api::compress256};

/// Sixteen bytes that a plaintext repeats and nothing else has: any 31 bytes of it hold them.
pub const MARK: [u8; 16] = *b"+plain-as-a-day+";

/// How much has to agree, in bytes.
const LEN: usize = 16;

/// Does some work with secrets on a stack of its own, which nothing that is tested ever runs on: what is not initialised there is
/// copied to the heap along with what is, and would be found.
pub fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    type Job = Box<dyn FnOnce() + Send>;
    static THREAD: LazyLock<Mutex<Sender<Job>>> = LazyLock::new(|| {
        let (jobs, queue) = channel::<Job>();
        thread::spawn(move || queue.into_iter().for_each(|job| job()));
        Mutex::new(jobs)
    });
    let (done, result) = channel();
    let job = Box::new(move || drop(done.send(catch_unwind(AssertUnwindSafe(work)))));
    THREAD.lock().unwrap_or_else(PoisonError::into_inner).send(job).unwrap();
    result.recv().unwrap().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Where something was found that must not be there.
pub struct Find {
    pub what: &'static str,
    pub at: usize,
}

/// All that is secret, to be looked for in one pass.
pub struct Needles {
    what: HashMap<[u8; LEN], &'static str>,
    /// Which two bytes a needle may begin with.
    begins: Vec<bool>,
    keys: Vec<[u8; 32]>,
    contexts: Vec<Vec<u8>>,
}

impl Needles {
    /// The mark, and all that is made of these keys whatever they encrypt.
    pub fn new(keys: &[[u8; 32]]) -> Self {
        let mut needles = Self {
            what: HashMap::new(),
            begins: vec![false; 1 << 16],
            keys: keys.to_vec(),
            contexts: vec![Vec::new()],
        };
        needles.add("plaintext", &MARK);
        keys.iter().for_each(|key| needles.add_key(key));
        needles
    }

    /// Streams may have this context.
    pub fn with_context(mut self, context: &[u8]) -> Self {
        self.contexts.push(context.to_vec());
        self
    }

    /// Looks for these bytes as well, in pieces of 16.
    pub fn add(&mut self, what: &'static str, bytes: &[u8]) {
        for piece in bytes.chunks_exact(LEN) {
            let piece: [u8; LEN] = piece.try_into().unwrap();
            assert_ne!(piece, [0; LEN], "zeroes are everywhere");
            // So are two of them, and one in 65 536 pieces that are random begins with them: that one is not looked for.
            if piece[..2] == [0, 0] {
                continue;
            }
            self.begins[usize::from(u16::from_le_bytes([piece[0], piece[1]]))] = true;
            self.what.insert(piece, what);
        }
    }

    fn add_words(&mut self, what: &'static str, words: &[u32]) {
        let little: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let big: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        self.add(what, &little);
        self.add(what, &big);
    }

    fn add_key(&mut self, key: &[u8; 32]) {
        self.add("key", key);
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        self.add("key in hex", hex.as_bytes());
        self.add("key in hex", hex.to_uppercase().as_bytes());
        // HMAC, which HKDF is made of: the padded key, and what SHA-256 makes of that, which is as good as the key.
        for (pad, padded, hashed) in [
            (0x36, "inner pad of the key", "state of SHA-256 behind the inner pad"),
            (0x5c, "outer pad of the key", "state of SHA-256 behind the outer pad"),
        ] {
            let mut block = [pad; 64];
            block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
            self.add(padded, &block[..32]);
            let mut state = [
                0x6a09_e667,
                0xbb67_ae85,
                0x3c6e_f372,
                0xa54f_f53a,
                0x510e_527f,
                0x9b05_688c,
                0x1f83_d9ab,
                0x5be0_cd19,
            ];
            compress256(&mut state, &[block]);
            self.add_words(hashed, &state);
        }
    }

    /// What AES-256-GCM makes of a key.
    pub fn add_cipher(&mut self, key: &[u8; 32]) {
        let round_keys = round_keys(key);
        self.add("stream key", &round_keys[..32]);
        self.add("round key", &round_keys[32..]);
        // The inverse cipher has the same, mixed; nothing needs it, but a backend may make it.
        for round_key in round_keys.chunks_exact(16).skip(1).take(13) {
            self.add("round key, to decrypt", &unmixed(round_key));
        }
        let mut hash_key = [0; 16].into();
        Aes256::new(key.into()).encrypt_block(&mut hash_key);
        let hash_key: [u8; 16] = hash_key.into();
        self.add("hash key", &hash_key);
        let reversed = u128::from_be_bytes(hash_key);
        // As POLYVAL has it, which is how GHASH is mostly computed.
        let multiplied = times_x(reversed);
        for number in [reversed, multiplied, multiplied.rotate_left(64), reversed.rotate_left(64)] {
            self.add("hash key", &number.to_le_bytes());
            self.add("hash key", &number.to_be_bytes());
        }
    }

    /// What the keys make of a stream, if it is one of theirs.
    pub fn add_stream(&mut self, stream: &[u8]) -> bool {
        let Some(([b'A', b'G', b'C', b'M', ..], salt, commitment)) = prelude(stream) else { return false };
        for key in self.keys.clone() {
            for context in self.contexts.clone() {
                let mut okm = [0; 64];
                let info = [b"AGCM-v1\0", &stream[..24], salt, &context].concat();
                Hkdf::<Sha256>::from_prk(&key).unwrap().expand(&info, &mut okm).unwrap();
                if okm[32..] == *commitment {
                    self.add_cipher(okm.first_chunk().unwrap());
                    return true;
                }
            }
        }
        false
    }

    /// All that is in these bytes.
    pub fn find<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = Find> + 'a {
        let starts = bytes.len().saturating_sub(LEN - 1);
        (0..starts).filter_map(move |at| {
            if !self.begins[usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))] {
                return None;
            }
            let piece: &[u8; LEN] = bytes[at..].first_chunk()?;
            self.what.get(piece).map(|what| Find { what, at })
        })
    }
}

/// In the field of POLYVAL (RFC 8452, section 3).
fn times_x(number: u128) -> u128 {
    number << 1 ^ if number >> 127 == 1 { 0xc2 << 120 | 1 } else { 0 }
}

/// Header, salt and commitment of a stream.
fn prelude(stream: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    (stream.len() >= 80).then(|| (&stream[..24], &stream[28..48], &stream[48..80]))
}

/// Where the round keys of any AES-256 key begin in these bytes, whoever made it.
pub fn schedules(bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let sbox = sbox();
    let starts = bytes.len().saturating_sub(39);
    (0..starts).filter(move |&at| {
        let byte = |i: usize| bytes[at + i];
        let mixed = |i: usize| byte(i) ^ sbox[usize::from(byte(28 + (i + 1) % 4))] ^ u8::from(i == 0);
        (0..4).all(|i| byte(32 + i) == mixed(i) && byte(36 + i) == mixed(i) ^ byte(4 + i))
    })
}

/// The S-box of AES (FIPS 197, section 5.1.1): the inverse, and a rotation.
fn sbox() -> [u8; 256] {
    let mut sbox = [0; 256];
    let (mut p, mut q) = (1u8, 1u8);
    loop {
        // p goes through all that has an inverse, times 3, and q is that inverse.
        p ^= times_2(p);
        q ^= q << 1;
        q ^= q << 2;
        q ^= q << 4;
        if q & 0x80 != 0 {
            q ^= 9;
        }
        sbox[usize::from(p)] = q ^ q.rotate_left(1) ^ q.rotate_left(2) ^ q.rotate_left(3) ^ q.rotate_left(4) ^ 0x63;
        if p == 1 {
            break;
        }
    }
    sbox[0] = 0x63;
    sbox
}

fn times_2(x: u8) -> u8 {
    x << 1 ^ if x & 0x80 == 0 { 0 } else { 0x1b }
}

/// All fifteen round keys, one after the other (FIPS 197, section 5.2).
pub fn round_keys(key: &[u8; 32]) -> Vec<u8> {
    let (sbox, mut constant) = (sbox(), 1);
    let mut bytes = key.to_vec();
    while bytes.len() < 240 {
        let mut word: [u8; 4] = *bytes.last_chunk().unwrap();
        if bytes.len() % 32 == 0 {
            word.rotate_left(1);
        }
        if bytes.len() % 16 == 0 {
            word = word.map(|byte| sbox[usize::from(byte)]);
        }
        if bytes.len() % 32 == 0 {
            word[0] ^= constant;
            constant = times_2(constant);
        }
        for byte in word {
            bytes.push(byte ^ bytes[bytes.len() - 32]);
        }
    }
    bytes
}

/// The inverse of MixColumns.
fn unmixed(block: &[u8]) -> Vec<u8> {
    let times = |x: u8, y: u8| {
        (0..4).fold(0, |sum, i| if y >> i & 1 == 1 { sum ^ (0..i).fold(x, |x, _| times_2(x)) } else { sum })
    };
    let column = |column: &[u8]| -> [u8; 4] {
        let row = |i: usize| (0..4).fold(0, |sum, j| sum ^ times(column[(i + j) % 4], [14, 11, 13, 9][j]));
        [row(0), row(1), row(2), row(3)]
    };
    block.chunks_exact(4).flat_map(column).collect()
}

#[test]
fn the_needles_are_those_of_the_standards() {
    let _alone = crate::freed::alone();
    let key: [u8; 32] = std::array::from_fn(|i| u8::try_from(i).unwrap());
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // FIPS 197, appendix C.3: the last round key; and the first that the equivalent inverse cipher mixes last.
    let round_keys = round_keys(&key);
    assert_eq!(hex(&round_keys[224..]), "24fc79ccbf0979e9371ac23c6d68de36");
    assert_eq!(hex(&unmixed(&round_keys[208..224])), "34f1d1ffbfceaa2ffce9e25f2558016e");
    assert_eq!(schedules(&[&[7; 100][..], &round_keys, &[0; 100]].concat()).collect::<Vec<_>>(), [100]);
    // RFC 8452, appendix A.
    let (from, to) = (0xd852_a62b_a975_8182_ed7d_38f9_4dc0_989c, 0x72a5_4c57_52eb_0305_dafa_71f2_9b81_3139);
    assert_eq!(times_x(from), to);
    let mut needles = Needles::new(&[]);
    needles.add_cipher(&key);
    let found: Vec<_> =
        needles.find(&[&round_keys[..], b"...", &MARK].concat()).map(|find| (find.what, find.at)).collect();
    assert_eq!(found.len(), 16);
    assert_eq!((found[0], found[2], found[15]), (("stream key", 0), ("round key", 32), ("plaintext", 243)));
}

#[test]
fn a_piece_that_begins_with_zeroes_is_passed_by() {
    let _alone = crate::freed::alone();
    let mut needles = Needles::new(&[]);
    let mut bytes: [u8; 2 * LEN] = std::array::from_fn(|i| u8::try_from(i).unwrap());
    bytes[1] = 0;
    needles.add("random", &bytes);
    assert_eq!(needles.find(&bytes).map(|find| find.at).collect::<Vec<_>>(), [LEN]);
}

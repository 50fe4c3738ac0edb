//! What a folder of keys may hold: any file in the place of a key, any id, any name of a file, any costs of a passphrase.
//!
//! Whoever can change a file must not be able to make a store use more memory or time than its limits, to get a key out of it
//! that was not put in, or to lead it out of its folder. Within its limits a file may ask for seconds of work, so what asks
//! for more than a little is looked at by the model only.

use std::{
    cell::RefCell,
    fs,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    str,
};

use agcm::{
    Key,
    keystore::{DirKeyStore, KeyStore, KeyStoreError, Passphrase},
};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::{choices::Choices, model::Model, reference::Reference};

const PASSPHRASE: &str = "correct horse battery staple";
/// The most memory times passes, in KiB, that is worth the time.
const AFFORDABLE: u64 = 64;

struct Home {
    runtime: Runtime,
    folder: TempDir,
}

thread_local! {
    static HOME: RefCell<Home> = RefCell::new(Home {
        runtime: Builder::new_current_thread().build().unwrap(),
        folder: new_folder(),
    });
}

fn new_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    folder
}

pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    HOME.with_borrow_mut(|home| {
        match choices.up_to(4) {
            0 => retrieves(home, choices.rest()),
            1 => retrieves(home, &wrapped(&mut choices)),
            2 => ids(home, &String::from_utf8_lossy(choices.rest())),
            3 => lists(home, &mut choices),
            _ => costs(&mut choices),
        };
    });
}

fn put(path: &Path, content: &[u8]) {
    use std::io::Write;
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.unwrap().write_all(content).unwrap();
}

/// What has to become of a file.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Key([u8; 32]),
    NotAKey,
    NoPassphrase,
    WrongPassphrase,
    /// To find out would take long.
    Dear,
}

fn retrieves(home: &mut Home, content: &[u8]) {
    let expected = [false, true].map(|with_passphrase| expected(content, with_passphrase));
    if expected.contains(&Found::Dear) {
        return;
    }
    put(&home.folder.path().join("id.key"), content);
    let store = DirKeyStore::new(home.folder.path());
    let stores = [store.clone(), store.passphrase(Passphrase::new(PASSPHRASE))];
    for (store, expected) in stores.iter().zip(expected) {
        let found = match home.runtime.block_on(store.retrieve("id")) {
            Ok(key) => Found::Key(*key.expose_bytes()),
            Err(KeyStoreError::NotAKey { .. }) => Found::NotAKey,
            Err(KeyStoreError::NoPassphrase(_)) => Found::NoPassphrase,
            Err(KeyStoreError::WrongPassphrase(_)) => Found::WrongPassphrase,
            Err(error) => panic!("{error:?}"),
        };
        assert_eq!(found, expected);
    }
}

fn expected(content: &[u8], with_passphrase: bool) -> Found {
    if content.len() >= 4096 {
        return Found::NotAKey;
    }
    let is_wrapped = content.starts_with(b"$argon2id$") || content.starts_with(b"$") && content.len() != 32;
    if !is_wrapped {
        let key = Key::from_file_content(content);
        return key.map_or(Found::NotAKey, |key| Found::Key(*key.expose_bytes()));
    }
    if !with_passphrase {
        return Found::NoPassphrase;
    }
    let Some(Wrapped { costs, salt, line, stream }) = parse(content) else { return Found::NotAKey };
    let [memory, passes, lanes] = costs;
    if !may_be_paid(costs) {
        return Found::NotAKey;
    }
    if u64::from(memory) * u64::from(passes) > AFFORDABLE || lanes > 8 {
        return Found::Dear;
    }
    let model = Model { context: line.into(), ..Model::new(derive(costs, &salt)) };
    match model.whole(stream) {
        (plaintext, Ok(())) => plaintext.try_into().map_or(Found::NotAKey, Found::Key),
        (_, Err(agcm::Error::KeyMismatch)) => Found::WrongPassphrase,
        (_, Err(_)) => Found::NotAKey,
    }
}

/// The parts of a wrapped key.
struct Wrapped<'a> {
    costs: [u32; 3],
    salt: [u8; 16],
    line: &'a str,
    stream: &'a [u8],
}

/// `$argon2id$v=19$m=8,t=1,p=1$` and 22 digits of base64, exactly; and what Argon2 allows.
fn parse(content: &[u8]) -> Option<Wrapped<'_>> {
    let end = content.iter().position(|byte| *byte == b'\n')?;
    let line = str::from_utf8(&content[..end]).ok()?;
    let (list, salt) = line.strip_prefix("$argon2id$v=19$")?.split_once('$')?;
    let mut list = list.split(',');
    let mut number = |name: &str| {
        let digits = list.next()?.strip_prefix(name)?;
        let number: u32 = digits.parse().ok()?;
        (number.to_string() == digits).then_some(number)
    };
    let costs = [number("m=")?, number("t=")?, number("p=")?];
    let salt = base64(salt)?;
    let is_over = list.next().is_none();
    let [memory, passes, lanes] = costs;
    let legal =
        passes >= 1 && (1..1 << 24).contains(&lanes) && memory >= 8 && u64::from(memory) >= 8 * u64::from(lanes);
    (is_over && legal).then_some(Wrapped { costs, salt, line, stream: &content[end + 1..] })
}

fn base64(digits: &str) -> Option<[u8; 16]> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if digits.len() != 22 {
        return None;
    }
    let mut bits = 0_u128;
    for digit in digits.bytes().take(21) {
        bits = bits << 6 | ALPHABET.iter().position(|of| *of == digit)? as u128;
    }
    // The last digit holds two bits of the salt, and four that are zero.
    let last = ALPHABET.iter().position(|of| Some(*of) == digits.bytes().last())? as u128;
    (last & 15 == 0).then(|| (bits << 2 | last >> 4).to_be_bytes())
}

fn may_be_paid([memory, passes, lanes]: [u32; 3]) -> bool {
    memory <= 1 << 20 && passes <= 64 && lanes <= 64 && u64::from(memory) * u64::from(passes) <= 1 << 22
}

fn derive([memory, passes, lanes]: [u32; 3], salt: &[u8]) -> [u8; 32] {
    let params = argon2::Params::new(memory, passes, lanes, Some(32)).unwrap();
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let mut key = [0; 32];
    argon2.hash_password_into(PASSPHRASE.as_bytes(), salt, &mut key).unwrap();
    key
}

/// Costs that are legal or not, and paid or not, by a little.
fn near_a_limit(choices: &mut Choices<'_>) -> [u32; 3] {
    let limits: [&[u32]; 3] = [&[8, 64, 512, 1 << 16, 1 << 20, 1 << 22], &[1, 2, 4, 64], &[1, 8, 64]];
    limits.map(|limits| match choices.up_to(3) {
        0 => choices.any(),
        1 => choices.one_of(limits).wrapping_sub(1),
        2 => choices.one_of(limits) + 1,
        _ => choices.one_of(limits),
    })
}

/// A key as a store would wrap it, or nearly so: cheaply, or it is not to be looked at.
fn wrapped(choices: &mut Choices<'_>) -> Vec<u8> {
    let cheap = choices.up_to(3) < 3;
    let costs = if cheap { [8 << choices.up_to(2), 1 + u32::from(choices.yes()), 1] } else { near_a_limit(choices) };
    let salt = *b"salt of 16 bytes";
    let [memory, passes, lanes] = costs;
    let line = format!("$argon2id$v=19$m={memory},t={passes},p={lanes}$c2FsdCBvZiAxNiBieXRlcw");
    let key = if cheap { derive(costs, &salt) } else { [0; 32] };
    let reference = Reference::new(&key, [1; 12], [2; 20], 65_536, line.as_bytes());
    let key = [7; 40];
    // Not every key that is wrapped is one.
    let key = &key[..choices.one_of(&[32, 31, 33, 0, 40])];
    let stream = reference.stream(if key.is_empty() { &[] } else { std::slice::from_ref(&key) });
    let mut content = [line.as_bytes(), b"\n", &stream].concat();
    for _ in 0..choices.up_to(3) {
        let at = choices.up_to(content.len());
        match choices.up_to(3) {
            0 => content.truncate(at),
            1 => drop(content.splice(at..at, choices.bytes(12).iter().copied())),
            2 => drop(content.drain(at..(at + choices.up_to(9)).min(content.len()))),
            _ if at < content.len() => content[at] = choices.any(),
            _ => {}
        }
    }
    content
}

fn is_id(id: &str) -> bool {
    let allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    !id.is_empty() && id.len() <= 200 && id.chars().all(|c| allowed.contains(c)) && !id.starts_with(['.', '-'])
}

/// An id leads to its own file or to none.
fn ids(home: &mut Home, id: &str) {
    let outer = new_folder();
    let path = outer.path().join("keys");
    fs::DirBuilder::new().create(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    // What an id that led elsewhere could find.
    for name in ["up.key", ".key", "keys.key"] {
        put(&outer.path().join(name), &[7; 32]);
    }
    let store = DirKeyStore::new(&path);
    let retrieved = home.runtime.block_on(store.retrieve(id));
    let removed = home.runtime.block_on(store.remove(id));
    if is_id(id) {
        assert!(matches!(retrieved, Err(KeyStoreError::NoSuchId(of)) if of == id));
        assert!(matches!(removed, Err(KeyStoreError::NoSuchId(of)) if of == id));
        put(&path.join(format!("{id}.key")), &[7; 32]);
        assert!(home.runtime.block_on(store.retrieve(id)).unwrap() == Key::from_bytes([7; 32]));
        let taken = home.runtime.block_on(store.store(id, &Key::from_bytes([8; 32])));
        assert!(matches!(taken, Err(KeyStoreError::IdTaken(of)) if of == id));
        assert_eq!(home.runtime.block_on(store.list()).unwrap(), [id]);
        home.runtime.block_on(store.remove(id)).unwrap();
    } else {
        let stored =
            home.runtime.block_on(store.store(id, &Key::from_bytes([8; 32]))).map(|()| Key::from_bytes([8; 32]));
        for result in [retrieved, removed.map(|()| Key::from_bytes([8; 32])), stored] {
            assert!(matches!(result, Err(KeyStoreError::BadId { id: of, .. }) if of == id));
        }
    }
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 4);
}

/// A list holds the ids of the keys that are there, whatever else is.
fn lists(home: &mut Home, choices: &mut Choices<'_>) {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    let folder = new_folder();
    let mut expected = Vec::new();
    for _ in 0..4 {
        let mut name = choices.bytes(210).to_vec();
        if choices.yes() {
            name.extend_from_slice(b".key");
        }
        let unusable = name.is_empty() || name.contains(&b'/') || name.contains(&0) || name == b"." || name == b"..";
        if unusable || name.len() > 255 {
            continue;
        }
        put(&folder.path().join(OsStr::from_bytes(&name)), b"whatever");
        let id = str::from_utf8(&name).ok().and_then(|name| name.strip_suffix(".key"));
        expected.extend(id.filter(|id| is_id(id)).map(str::to_owned));
    }
    expected.sort();
    expected.dedup();
    let store = DirKeyStore::new(folder.path());
    assert_eq!(home.runtime.block_on(store.list()).unwrap(), expected);
}

/// What would not be read again is not to be chosen.
fn costs(choices: &mut Choices<'_>) {
    let costs @ [memory, passes, lanes] = near_a_limit(choices);
    let legal = passes >= 1 && lanes >= 1 && memory >= 8 && u64::from(memory) >= 8 * u64::from(lanes);
    let chosen = Passphrase::new(PASSPHRASE).costs(memory, passes, lanes);
    assert_eq!(chosen.is_ok(), legal && may_be_paid(costs), "{costs:?}");
}

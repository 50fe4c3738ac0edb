//! What no format can tell by itself: that a whole stream is not the one that was asked for. A context tells.

use agcm::{DecryptOptions, EncryptOptions, Error, Key};

#[test]
fn a_whole_stream_in_the_place_of_another_opens_unless_its_context_differs() {
    let key = Key::generate();
    let [monday, tuesday] = [&b"all we had on monday"[..], b"all we had on tuesday"];
    let old = agcm::encrypt(&key, monday);
    let new = agcm::encrypt(&key, tuesday);
    assert_eq!(agcm::decrypt(&key, &new).unwrap(), tuesday);
    assert_eq!(
        agcm::decrypt(&key, &old).unwrap(),
        monday,
        "in the place of the new one: authentic, and not what was meant"
    );

    let sealed = EncryptOptions::new().context("db/monday").unwrap().encrypt(&key, monday);
    let of_tuesday = DecryptOptions::new().context("db/tuesday").unwrap();
    assert_eq!(of_tuesday.decrypt(&key, &sealed), Err(Error::KeyMismatch));
}

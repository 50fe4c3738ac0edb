//! Keys on a keychain: one that replaces what it is told to store, and may fail at any time.

use std::sync::Arc;

use agcm::{
    Key,
    keystore::{KeyStore, KeyStoreError, KeychainStore},
};
use keyring_core::{CredentialStore, Entry, Error, api::CredentialStoreApi, mock};

use crate::keystore::{assert_is_a_key_store, assert_one_of_many_wins, assert_shows_nothing_of};

const SERVICE: &str = "com.example.test";
/// The account of the entry that lists the ids.
const INDEX: &str = "agcm-ids";

fn keychain() -> Arc<CredentialStore> {
    mock::Store::new().unwrap()
}

/// A keychain that takes its time, so that what must not happen meanwhile would; and that takes no account without a name, as
/// that of macOS, for which it would be any account.
#[derive(Debug)]
struct Real(Arc<CredentialStore>);

impl CredentialStoreApi for Real {
    fn vendor(&self) -> String {
        self.0.vendor()
    }

    fn id(&self) -> String {
        self.0.id()
    }

    fn build(
        &self,
        service: &str,
        user: &str,
        modifiers: Option<&std::collections::HashMap<&str, &str>>,
    ) -> keyring_core::Result<Entry> {
        if service.is_empty() || user.is_empty() {
            return Err(Error::Invalid("user".to_owned(), "cannot be empty".to_owned()));
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
        self.0.build(service, user, modifiers)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

fn entry(keychain: &Arc<CredentialStore>, account: &str) -> Entry {
    keychain.build(SERVICE, account, None).unwrap()
}

/// Makes the next thing fail that is done with this entry.
fn fail_next(keychain: &Arc<CredentialStore>, account: &str, error: Error) {
    entry(keychain, account).as_any().downcast_ref::<mock::Cred>().unwrap().set_error(error);
}

fn key() -> Key {
    Key::from_bytes([0xc5; 32])
}

#[tokio::test]
async fn a_keychain_is_a_key_store_through_whatever_leads_to_it() {
    let keys = KeychainStore::with_store(SERVICE, keychain());
    assert_eq!(keys.list().await.unwrap(), [""; 0]);
    assert_is_a_key_store(&keys as &dyn KeyStore).await;
    assert_is_a_key_store(Arc::new(keys.clone()) as Arc<dyn KeyStore>).await;
    assert_is_a_key_store(Box::new(keys) as Box<dyn KeyStore>).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_store_under_one_id_one_wins_and_its_key_stays() {
    for _ in 0..2 {
        let keychain: Arc<CredentialStore> = Arc::new(Real(keychain()));
        let keys = || Arc::new(KeychainStore::with_store(SERVICE, keychain.clone())) as Arc<dyn KeyStore>;
        assert_one_of_many_wins(vec![keys(), keys()]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_id_is_lost_from_the_list_when_many_are_stored_and_removed() {
    let keys = KeychainStore::with_store(SERVICE, Arc::new(Real(keychain())));
    let tasks: Vec<_> = (10..30)
        .map(|i: u32| {
            let keys = keys.clone();
            tokio::spawn(async move {
                keys.store(&i.to_string(), &Key::generate()).await.unwrap();
                if i % 2 > 0 {
                    keys.remove(&i.to_string()).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let even: Vec<String> = (10..30).step_by(2).map(|i| i.to_string()).collect();
    assert_eq!(keys.list().await.unwrap(), even);
}

#[tokio::test]
async fn an_entry_is_the_32_bytes_of_the_key_under_its_id() {
    let keychain = keychain();
    let keys = KeychainStore::with_store(SERVICE, keychain.clone());
    keys.store("db-2", &key()).await.unwrap();
    keys.store("db-1", &key()).await.unwrap();
    assert_eq!(entry(&keychain, "db-1").get_secret().unwrap(), [0xc5; 32]);
    assert_eq!(entry(&keychain, INDEX).get_secret().unwrap(), b"db-1\ndb-2");
    keys.remove("db-1").await.unwrap();
    assert_eq!(entry(&keychain, INDEX).get_secret().unwrap(), b"db-2");
}

#[tokio::test]
async fn services_have_nothing_to_do_with_each_other() {
    let keychain = keychain();
    let one = KeychainStore::with_store("one", keychain.clone());
    let two = KeychainStore::with_store("two", keychain);
    one.store("db", &key()).await.unwrap();
    assert!(matches!(two.retrieve("db").await, Err(KeyStoreError::NoSuchId(_))));
    assert_eq!(two.list().await.unwrap(), [""; 0]);
    two.store("db", &Key::generate()).await.unwrap();
    two.remove("db").await.unwrap();
    assert_eq!(one.retrieve("db").await.unwrap(), key());
    assert_eq!(one.list().await.unwrap(), ["db"]);
}

#[tokio::test]
async fn ids_are_text_of_one_line_and_anything_else_is_none() {
    let keychain = keychain();
    let keys = KeychainStore::with_store(SERVICE, keychain.clone());
    let (longest, long) = ("ü".repeat(100), "ü".repeat(100) + "x");
    for bad in ["", "a\nb", "\n", "a\rb", "a\0", "\t", "a\u{7f}", "a\u{85}b", INDEX, "AGCM-Ids", &long] {
        for error in [
            keys.store(bad, &key()).await.unwrap_err(),
            keys.retrieve(bad).await.unwrap_err(),
            keys.remove(bad).await.unwrap_err(),
        ] {
            assert!(matches!(&error, KeyStoreError::BadId { id, .. } if id == bad), "{error:?}");
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
        }
    }
    assert!(matches!(entry(&keychain, INDEX).get_secret(), Err(Error::NoEntry)), "nothing was touched");

    let mut good =
        ["a", ".", "..", "../a", "a/b", "C:\\a", "-a", "two words", " ", "schlüssel", "a\u{2028}b", &longest];
    for id in good {
        keys.store(id, &key()).await.unwrap();
        assert_eq!(keys.retrieve(id).await.unwrap(), key());
    }
    good.sort_unstable();
    assert_eq!(keys.list().await.unwrap(), good);
}

#[tokio::test]
async fn an_entry_of_another_length_is_no_key_and_stays() {
    let keychain = keychain();
    let keys = KeychainStore::with_store(SERVICE, keychain.clone());
    for len in [0, 1, 31, 33, 64] {
        let secret = vec![0xc5; len];
        entry(&keychain, "db").set_secret(&secret).unwrap();
        let error = keys.retrieve("db").await.unwrap_err();
        assert!(matches!(&error, KeyStoreError::NotAKey { id, .. } if id == "db"), "{error:?}");
        assert_shows_nothing_of(0xc5, &format!("{error} {error:?}"));
        let error = keys.store("db", &key()).await.unwrap_err();
        assert!(matches!(error, KeyStoreError::IdTaken(_)), "{error:?}");
        assert_eq!(entry(&keychain, "db").get_secret().unwrap(), secret);
    }
}

#[tokio::test]
async fn a_key_that_is_missing_in_the_list_is_still_a_key() {
    let keychain = keychain();
    let keys = KeychainStore::with_store(SERVICE, keychain.clone());
    keys.store("db", &key()).await.unwrap();
    entry(&keychain, INDEX).delete_credential().unwrap();
    assert_eq!(keys.list().await.unwrap(), [""; 0]);
    assert_eq!(keys.retrieve("db").await.unwrap(), key());
    assert!(matches!(keys.store("db", &Key::generate()).await, Err(KeyStoreError::IdTaken(_))));
    keys.remove("db").await.unwrap();
    assert!(matches!(keys.retrieve("db").await, Err(KeyStoreError::NoSuchId(_))));
}

#[tokio::test]
async fn a_line_of_the_list_without_a_key_is_not_shown() {
    let keychain = keychain();
    let keys = KeychainStore::with_store(SERVICE, keychain.clone());
    keys.store("a", &key()).await.unwrap();
    keys.store("b", &key()).await.unwrap();
    entry(&keychain, "a").delete_credential().unwrap();
    assert_eq!(keys.list().await.unwrap(), ["b"]);
    assert!(matches!(keys.retrieve("a").await, Err(KeyStoreError::NoSuchId(_))));
    // Its id is free, and is listed once.
    keys.store("a", &key()).await.unwrap();
    assert_eq!(keys.list().await.unwrap(), ["a", "b"]);
    keys.remove("a").await.unwrap();
    assert_eq!(keys.list().await.unwrap(), ["b"]);
}

#[tokio::test]
async fn a_list_that_is_not_text_is_an_error_and_keys_are_still_retrieved() {
    let keychain = keychain();
    let keys = KeychainStore::with_store(SERVICE, keychain.clone());
    keys.store("db", &key()).await.unwrap();
    entry(&keychain, INDEX).set_secret(&[0xc5; 32]).unwrap();
    for error in [keys.list().await.unwrap_err(), keys.store("new", &key()).await.unwrap_err()] {
        assert!(matches!(error, KeyStoreError::Io(_)), "{error:?}");
        assert_shows_nothing_of(0xc5, &format!("{error} {error:?}"));
    }
    assert!(matches!(keys.retrieve("new").await, Err(KeyStoreError::NoSuchId(_))));
    assert_eq!(keys.retrieve("db").await.unwrap(), key());
}

/// Some of these hold what is stored, or quote it.
fn errors() -> Vec<Error> {
    let (bytes, hex) = (vec![0xc5; 32], "c5".repeat(32));
    let locked = || Box::new(std::io::Error::other("the screen is locked"));
    vec![
        Error::PlatformFailure(locked()),
        Error::NoStorageAccess(locked()),
        Error::BadEncoding(bytes.clone()),
        Error::BadDataFormat(bytes, hex.clone().into()),
        Error::BadStoreFormat(hex.clone()),
        Error::TooLong(hex.clone(), 2560),
        Error::Invalid(hex.clone(), hex),
        Error::Ambiguous(vec![entry(&keychain(), "db")]),
        Error::NoDefaultStore,
        Error::NotSupportedByStore("colours".to_owned()),
    ]
}

#[tokio::test]
async fn errors_of_a_keychain_show_nothing_of_a_key_and_change_nothing() {
    let keychain = keychain();
    let keys = KeychainStore::with_store(SERVICE, keychain.clone());
    keys.store("db", &key()).await.unwrap();
    let assert_harmless = |error: KeyStoreError, told: &str| {
        assert!(matches!(error, KeyStoreError::Io(_)), "{error:?}");
        assert_shows_nothing_of(0xc5, &format!("{error} {error:?} {error:#?}"));
        assert!(!error.to_string().contains(char::is_control), "{error}");
        if told.contains("locked") {
            assert!(error.to_string().contains("the screen is locked"), "{error}");
        }
    };
    for i in 0..errors().len() {
        let error = || errors().swap_remove(i);
        let told = error().to_string();
        for account in ["new", INDEX] {
            fail_next(&keychain, account, error());
            assert_harmless(keys.store("new", &key()).await.unwrap_err(), &told);
            assert!(matches!(keys.retrieve("new").await, Err(KeyStoreError::NoSuchId(_))));
        }
        fail_next(&keychain, "db", error());
        assert_harmless(keys.store("db", &key()).await.unwrap_err(), &told);
        fail_next(&keychain, "db", error());
        assert_harmless(keys.retrieve("db").await.unwrap_err(), &told);
        fail_next(&keychain, "db", error());
        assert_harmless(keys.remove("db").await.unwrap_err(), &told);
        for account in ["db", INDEX] {
            fail_next(&keychain, account, error());
            assert_harmless(keys.list().await.unwrap_err(), &told);
        }
        assert_eq!(keys.retrieve("db").await.unwrap(), key());
        assert_eq!(keys.list().await.unwrap(), ["db"]);
    }
}

#[tokio::test]
async fn a_store_on_a_keychain_shows_neither_keys_nor_ids() {
    let keys = KeychainStore::with_store(SERVICE, keychain());
    keys.store("quiet", &key()).await.unwrap();
    let debug = format!("{keys:?} {keys:#?}");
    assert!(debug.contains(SERVICE) && !debug.contains("quiet"), "{debug}");
    assert_shows_nothing_of(0xc5, &debug);
}

#[tokio::test]
async fn a_keychain_need_not_take_an_account_without_a_name() {
    assert_is_a_key_store(KeychainStore::with_store(SERVICE, Arc::new(Real(keychain())))).await;
}

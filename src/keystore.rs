//! Keys by id: where a key is kept while the data that it encrypts is elsewhere.
//!
//! [`KeyStore`] is the trait that a client of a key management service implements. [`DirKeyStore`] keeps keys in a folder,
#![cfg_attr(feature = "keyring", doc = "[`KeychainStore`] on the keychain of the operating system.")]
#![cfg_attr(
    not(feature = "keyring"),
    doc = "and with the feature `keyring` there is a store on the keychain of the operating system."
)]
//!
//! [The guide](crate::guide::keys) says which one is for what, and how a key management service fits in.
//!
//! A store must never replace a key: whatever it has encrypted would be lost. It must never tell about one id more than
//! whether it is there, whatever others there are, and no error may show a byte of a key.

mod dir;
#[cfg(feature = "keyring")]
mod keychain;
mod store;
#[cfg(feature = "passphrase")]
mod wrapping;

#[cfg(feature = "keyring")]
pub use keychain::KeychainStore;
#[cfg(feature = "passphrase")]
pub use wrapping::Passphrase;

pub use dir::DirKeyStore;
pub use store::{KeyStore, KeyStoreError};

//! Which implementation of AES-256-GCM is compiled in, and what the processor has for it: for logs, and for comparing speeds.

use std::{fmt, sync::OnceLock};

use crate::aead;

/// The implementation of AES-256-GCM and HKDF that is compiled in.
///
/// ```
/// let backend = agcm::backend();
/// println!("encrypting with {backend}"); // such as: aes-gcm (RustCrypto), CPU: aes pclmulqdq avx2
/// # assert!(backend.to_string().starts_with(backend.name()));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    name: &'static str,
    cpu_features: &'static [&'static str],
}

/// The backend that is compiled in. The feature `aws-lc-rs` chooses it.
///
/// ```
/// let expected = if cfg!(feature = "aws-lc-rs") { "aws-lc-rs" } else { "aes-gcm (RustCrypto)" };
/// assert!(agcm::backend().name().starts_with(expected));
/// ```
#[must_use]
pub fn backend() -> Backend {
    Backend { name: aead::backend_name(), cpu_features: cpu_features() }
}

impl Backend {
    /// Its name: `aes-gcm (RustCrypto)`, `aws-lc-rs`, or `aws-lc-rs (FIPS module)`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Those instructions for AES, GHASH and wide vectors that the processor has, in the words of the standard library. None
    /// where it cannot tell.
    ///
    /// A backend looks for itself, and need not make use of all of them.
    #[must_use]
    pub fn cpu_features(&self) -> &'static [&'static str] {
        self.cpu_features
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, CPU: ", self.name)?;
        match self.cpu_features {
            [] => f.write_str("nothing known"),
            features => f.write_str(&features.join(" ")),
        }
    }
}

/// The names of those features that are there.
#[cfg(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! detected {
    ($detected:ident: $($name:tt),*) => {
        [$((std::arch::$detected!($name), $name)),*]
            .into_iter()
            .filter_map(|(is_there, name)| is_there.then_some(name))
            .collect()
    };
}

fn cpu_features() -> &'static [&'static str] {
    static FEATURES: OnceLock<Vec<&'static str>> = OnceLock::new();
    FEATURES.get_or_init(detect)
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn detect() -> Vec<&'static str> {
    detected!(is_x86_feature_detected: "aes", "pclmulqdq", "vaes", "vpclmulqdq", "avx2", "avx512f")
}

#[cfg(target_arch = "aarch64")]
fn detect() -> Vec<&'static str> {
    detected!(is_aarch64_feature_detected: "aes", "pmull", "sha2", "sha3")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn detect() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shows_its_name_and_what_the_processor_has() {
        let show = |cpu_features| Backend { name: "some", cpu_features }.to_string();
        assert_eq!(show(&["aes", "avx2"]), "some, CPU: aes avx2");
        assert_eq!(show(&[]), "some, CPU: nothing known");
        assert_eq!(backend(), backend());
        let expected = if cfg!(feature = "aws-lc-rs") { "aws-lc-rs" } else { "aes-gcm" };
        assert!(backend().name().starts_with(expected));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn it_knows_what_the_processor_has() {
        let features = backend().cpu_features();
        assert_eq!(features.contains(&"aes"), std::arch::is_x86_feature_detected!("aes"));
        let known = ["aes", "pclmulqdq", "vaes", "vpclmulqdq", "avx2", "avx512f"];
        assert!(features.iter().all(|feature| known.contains(feature)), "{features:?}");
    }
}

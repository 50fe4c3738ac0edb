//! What is sealed or opened, whichever backend does it.

/// A frame did not authenticate. The buffer that it was to be opened in holds no plaintext of it: it is as it was, or zeroes.
#[derive(Debug)]
pub(crate) struct Unauthentic;

/// A frame's body that is to be sealed or opened, and where the result goes.
pub(crate) enum Body<'a> {
    InPlace(&'a mut [u8]),
    /// Both are of one length.
    Into {
        from: &'a [u8],
        to: &'a mut [u8],
    },
}

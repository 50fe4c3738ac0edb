//! Services and programs in which agcm works with others' crates, small enough to be read and real enough to be used:
//! each is a module here, with a program in `bin` that runs it, and tests that use it as its users would.

pub mod archive;
pub mod compress;
pub mod http;

//! Ours beside its peers: `peers memory SIO`, `peers tls`, `peers files FOLDER`.
//!
//! Each sets two or more sides to the same work, in turn, in one run. `benches/run` runs them, tells where the program of `sio` is, and makes a page of the results.

#[path = "../../common/mod.rs"]
mod common;
mod files;
mod memory;
mod tls;

use std::{env, path::Path, process::exit};

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["memory", sio] => memory::run(Path::new(sio)),
        ["tls"] => tls::run(),
        ["files", folder] => files::run(Path::new(folder)),
        _ => {
            eprintln!("usage: peers memory SIO | tls | files FOLDER");
            exit(2);
        }
    }
}

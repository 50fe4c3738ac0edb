//! Whole files: `encrypt_file` and `decrypt_file` beside a copy that is synced, and beside what sealing alone takes.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    thread::available_parallelism,
    time::Duration,
};

use agcm::{Key, decrypt_file, encrypt_file};
use serde_json::json;
use tokio::runtime::Builder;

use crate::common::{GIB, KIB, MIB, Results, Rounds, Run, bare, size, time_by_the_wall, timed};

const FILE: usize = GIB;
const ROUNDS: usize = 7;

pub(crate) fn run(folder: &Path) {
    time_by_the_wall();
    let kind = if folder.starts_with("/dev/shm") { "tmpfs" } else { "disk" };
    let folder = folder.join(format!("agcm-bench-{}", std::process::id()));
    fs::create_dir(&folder).expect("a folder can be made there");
    let plain = folder.join("plain");
    write_plaintext(&plain);
    let (sealed, key) = (folder.join("sealed"), Key::generate());

    let runtime = Builder::new_multi_thread().build().expect("a runtime can be built");
    runtime.block_on(encrypt_file(&plain, &sealed, &key)).expect("the file can be encrypted");

    let copy = |from: &'static str| -> Run<'_> {
        let (from, to) = (folder.join(from), folder.join("copy"));
        Box::new(move || {
            let time = timed(|| {
                fs::copy(&from, &to).expect("the file can be copied");
                File::open(&to).and_then(|file| file.sync_all()).expect("the copy can be synced");
            });
            settle(&to);
            time
        })
    };
    let encrypted: Run<'_> = Box::new(|| {
        let to = folder.join("ours");
        let time = timed(|| {
            runtime.block_on(encrypt_file(&plain, &to, &key)).expect("the file can be encrypted");
        });
        settle(&to);
        time
    });
    let decrypted: Run<'_> = Box::new(|| {
        let to = folder.join("ours");
        let time = timed(|| {
            runtime.block_on(decrypt_file(&sealed, &to, &key)).expect("the file can be decrypted");
        });
        settle(&to);
        time
    });

    let cores = available_parallelism().map_or(1, usize::from);
    let mut results = Results::new("files");
    let works = [
        ("encrypt_file", [encrypted, copy("plain"), bare::seal(64 * KIB, FILE)]),
        ("decrypt_file", [decrypted, copy("sealed"), bare::open(64 * KIB, FILE)]),
    ];
    for (name, mut sides) in works {
        let rounds = Rounds::take(FILE, Duration::ZERO, ROUNDS, &mut sides);
        let details = json!({
            "ours": rounds.rate(0), "copy": rounds.rate(1), "bare": rounds.rate(2), "cores": cores, "file": FILE,
            "over_copy": rounds.ratio(1, 0).median, "over_bare": rounds.ratio(2, 0).median,
        });
        let over_least = rounds.each(|seconds| seconds[0] / f64::max(seconds[1], seconds[2] / cores as f64));
        results.add(kind, &format!("{name}, {}", size(FILE)), over_least, details);
    }
    fs::remove_dir_all(&folder).expect("what was made can be removed");
}

/// Nothing that a file system could do away with.
fn write_plaintext(path: &Path) {
    let noise = agcm::encrypt(&Key::generate(), &vec![0; MIB]);
    let mut file = File::create_new(path).expect("a file can be made there");
    for _ in 0..FILE / MIB {
        file.write_all(&noise[..MIB]).expect("there is room for it");
    }
    file.sync_all().expect("the file can be synced");
}

/// The next one finds neither this file nor what is left of writing it. Not timed.
fn settle(path: &Path) {
    let folder = path.parent().expect("a file is in a folder");
    fs::remove_file(path).expect("what was made can be removed");
    File::open(folder).and_then(|folder| folder.sync_all()).expect("a folder can be synced");
}

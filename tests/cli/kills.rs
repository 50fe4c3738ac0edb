//! Killed at random moments: the target is the old file or the new one, whole, and never anything else.

use std::{
    env, fs,
    process::Stdio,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use agcm::Key;

use crate::tool::{KEY, Run, Running, agcm, assert_same, folder, partials, plain_agcm, plaintext, read, until};

const LEN: usize = 8 << 20;

/// A number from the environment.
fn set(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap())
}

/// Steele and Lea's SplitMix64: enough to choose moments.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_nanos((z ^ (z >> 31)) % u64::try_from(limit.as_nanos().max(1)).unwrap())
    }
}

/// `AGCM_KILLS` is how many runs are killed, `AGCM_SEED` chooses the same moments again.
#[test]
fn a_killed_run_leaves_the_old_target_or_the_new_one() {
    let kills = set("AGCM_KILLS").unwrap_or(20);
    let now = u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos());
    let seed = set("AGCM_SEED").unwrap_or(now);
    println!("AGCM_SEED={seed}");
    let mut dice = Dice(seed);

    let folder = folder();
    let (key, old, plain) = (KEY.parse::<Key>().unwrap(), b"the old one, and all of it", plaintext(LEN));
    folder.write("plain", &plain);
    let start = Instant::now();
    agcm(&folder, "encrypt -k key plain -o sealed").succeeds();
    let length = start.elapsed();

    let (mut interrupted, mut replaced) = (0, 0);
    for kill in 0..kills {
        folder.write("target", old);
        let encrypting = kill % 2 == 0;
        let line = if encrypting { "encrypt -f -k key plain -o target" } else { "decrypt -f -k key sealed -o target" };
        let mut running = Running::start(plain_agcm(&folder, line).stdin(Stdio::null()));
        // Half of them at any moment, from the start to some time after the end; half at one when something is being written.
        if kill % 4 < 2 {
            thread::sleep(dice.below(length * 3 / 2));
        } else {
            until("it writes, or has done so", || {
                partials(&folder) > 0 || read(&folder, "target") != old || running.child().try_wait().unwrap().is_some()
            });
            thread::sleep(dice.below(length / 2));
        }
        // It may have ended by itself.
        let _ = running.child().kill();
        drop(running);

        let found = read(&folder, "target");
        if found != old {
            replaced += 1;
            let found = if encrypting { agcm::decrypt(&key, &found).unwrap() } else { found };
            assert_same(&found, &plain);
        }
        // What it was writing is all that it may leave.
        interrupted += partials(&folder);
        for entry in fs::read_dir(folder.root()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "partial") {
                fs::remove_file(path).unwrap();
            }
        }
        folder.assert_holds(&["key", "other", "plain", "sealed", "target"]);
    }
    println!("of {kills} runs {interrupted} were killed as they wrote, and {replaced} had replaced the target");
    assert!(kills < 10 || interrupted > 0, "none of them was killed in the middle");
}

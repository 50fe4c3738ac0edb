//! No run shows a key, but for the one that makes it.

use crate::tool::{KEY, OTHER, agcm, checked, folder_with_stream, read};

#[test]
fn no_output_of_any_command_holds_a_key() {
    let folder = folder_with_stream(100_000);
    let raw = base16ct::lower::decode_vec(KEY).unwrap();
    let stream = read(&folder, "sealed");
    folder.write("cut", &stream[..90_000]);
    folder.write("raw", &raw);
    folder.write("upper", KEY.to_uppercase());
    folder.write("long", format!("{KEY}00\n"));
    folder.write("prefixed", format!("key: {KEY}\n"));
    folder.write("doubled", format!("{KEY}\n{OTHER}\n"));
    folder.write("raw-long", [&raw[..], b"!"].concat());
    let mut seen = [0; 2];
    for key in ["key", "raw", "upper", "long", "prefixed", "doubled", "raw-long", "other", "missing"] {
        for line in [
            "encrypt -k KEY plain",
            "encrypt -k KEY plain -o new -f",
            "encrypt -k KEY plain -o plain",
            "encrypt -k KEY --chunk-size 0 plain",
            "encrypt -k KEY --nonsense plain",
            "encrypt -k KEY -k KEY plain",
            "decrypt -k KEY sealed",
            "decrypt -k KEY sealed -o again -f",
            "decrypt -k KEY cut",
            "decrypt -k KEY cut -o again -f",
            "decrypt -k KEY plain",
            "decrypt -k KEY missing",
            "verify -k KEY sealed",
            "verify -k KEY -k other -c wrong sealed",
            "inspect KEY",
            "inspect --json sealed",
            "cat -k KEY --range ..10 sealed",
            "cat -k KEY --range 10..5 sealed",
            "rekey -k KEY --to-key other sealed -o rekeyed -f",
            "rekey -k other --to-key KEY sealed -o rekeyed -f",
            "import --from-go -k KEY --to-key other sealed",
            "import --from-go -k other --to-key KEY plain",
            "keys --keys KEY list",
            "snapshot encrypt --keys keys --id a --passphrase-file nowhere plain -o snap",
            "snapshot restore --keys KEY --id a sealed -o snap",
            "keygen -o KEY",
        ] {
            // Where a key file is written instead of read, there is one already.
            if line.starts_with("keygen") && key == "missing" {
                continue;
            }
            let output = checked(agcm(&folder, &line.replace("KEY", key)).output().unwrap());
            seen[usize::from(output.status.success())] += 1;
        }
    }
    for value in [KEY.to_owned(), KEY.to_uppercase(), format!("{KEY}0"), format!(" {KEY}"), KEY[1..].to_owned()] {
        for name in ["AGCM_KEY", "AGCM_PASSPHRASE"] {
            for line in [
                "encrypt plain",
                "decrypt sealed",
                "decrypt cut",
                "verify sealed",
                "--help",
                "encrypt --help",
                "decrypt",
            ] {
                let output = checked(agcm(&folder, line).env(name, &value).output().unwrap());
                seen[usize::from(output.status.success())] += 1;
            }
        }
    }
    assert!(seen.iter().all(|&runs| runs > 50), "of both kinds: {seen:?}");
}

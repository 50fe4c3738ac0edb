//! Valid streams, changed by somebody without the key, or with it: whatever opens a stream must do with them as the model does.

use crate::{
    choices::Choices,
    made::{self, Made},
    raw::look,
    reference::{Reference, word},
    vectors::plaintext,
    ways,
};

pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    let made = Made::choose(&mut choices, 1);
    let other = Made::choose(&mut choices, 2);
    let (keys, options, model) = made::reader(&mut choices, made.context);
    let ways: Vec<_> = ways::all().collect();
    let chosen = [0; 3].map(|_| choices.up_to(ways.len() - 1));
    let mut parts = made.parts.clone();
    let mut forged = false;
    for _ in 0..8 {
        if choices.are_over() {
            break;
        }
        if choices.up_to(3) == 3 {
            forged = true;
            forge(&mut choices, &made.reference, &mut parts);
        } else {
            change(&mut choices, &mut parts, &other.parts);
        }
    }
    let stream = parts.concat();

    for (name, open) in chosen.map(|i| ways[i]) {
        let (released, result) = open(&keys, &options, &stream);
        if !forged && !name.starts_with("frames") {
            assert!(plaintext(released.len()) == released, "{name}: a byte that was in no stream");
        }
        assert_eq!((released, result), model.way(name, &stream), "{name}");
    }
    look(&model, &stream);
}

/// What anyone can do who has two streams under one key.
pub fn change(choices: &mut Choices<'_>, parts: &mut Vec<Vec<u8>>, other: &[Vec<u8>]) {
    let part = choices.up_to(parts.len().saturating_sub(1));
    let Some(len) = parts.get(part).map(Vec::len) else { return parts.extend_from_slice(other) };
    let at = choices.up_to(len);
    match choices.up_to(11) {
        0 if at < len => parts[part][at] ^= 1 << choices.up_to(7),
        1 => parts[part].truncate(at),
        2 => drop(parts[part].splice(at..at, choices.bytes(60).iter().copied())),
        3 => {
            let end = (at + choices.up_to(60)).min(len);
            parts[part].drain(at..end);
        }
        4 => drop(parts.remove(part)),
        5 => {
            let twice = parts[part].clone();
            let to = choices.up_to(parts.len());
            parts.insert(to, twice);
        }
        6 => {
            let with = choices.up_to(parts.len() - 1);
            parts.swap(part, with);
        }
        7 => parts[part].clone_from(&other[choices.up_to(other.len() - 1)]),
        8 => parts.insert(part, other[choices.up_to(other.len() - 1)].clone()),
        9 => parts.extend_from_slice(other),
        // The word of a frame, or a field of the header.
        10 if len >= 4 => {
            let word = if choices.yes() {
                choices.any::<u32>().to_le_bytes()
            } else {
                word(choices.one_of(&[2, 3, 1, 0, 4]), choices.up_to(200))
            };
            let at = if len == 24 { 4 * (at / 4).min(5) } else { 0 };
            parts[part][at..at + 4].copy_from_slice(&word);
        }
        11 => parts.push(choices.bytes(60).to_vec()),
        _ => parts.truncate(part),
    }
}

/// What somebody can do who has the key, too.
fn forge(choices: &mut Choices<'_>, reference: &Reference, parts: &mut Vec<Vec<u8>>) {
    let part = choices.up_to(parts.len());
    let made = match choices.up_to(2) {
        0 => {
            let position = if choices.yes() { choices.any() } else { choices.up_to(200) as u64 };
            reference.data(position, choices.bytes(60))
        }
        1 => {
            let total = if choices.yes() { choices.any() } else { choices.up_to(600) as u64 };
            let frames = if choices.yes() { choices.any() } else { choices.up_to(15) as u64 };
            reference.end(total, frames, choices.one_of(&[1, 0, 2, 255]))
        }
        _ => reference.prelude(),
    };
    if choices.yes() && part < parts.len() { parts[part] = made } else { parts.insert(part, made) }
}

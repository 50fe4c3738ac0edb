//! Files that are made of what a reader gives, with faults behind it.

use std::{fs, path::Path};

use agcm::FileOptions;

use crate::{
    drive::Run,
    inject::number,
    readers::inner,
    specimen::{Model, Shape, Specimen, any_key},
};

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

/// Whether there is nothing but the file itself, if that.
fn has_no_other(dst: &Path) -> bool {
    fs::read_dir(dst.parent().unwrap()).unwrap().all(|entry| entry.unwrap().path() == *dst)
}

pub async fn encrypt_from(mut run: Run) {
    let Shape { len, .. } = Shape::any(&mut run.dice);
    let (plaintext, key) = (run.dice.bytes(len), any_key(&mut run.dice));
    let folder = tempfile::tempdir().unwrap();
    let dst = folder.path().join("new");
    let reader = inner(&mut run, plaintext.clone());
    match run.attempt(FileOptions::new().encrypt_from(reader, &dst, &key)).await {
        Some(Ok(n)) => {
            assert_eq!(n, len as u64);
            run.assert_all_reported();
            assert!(agcm::decrypt(&key, &fs::read(&dst).unwrap()).unwrap() == plaintext);
        }
        Some(Err(error)) => {
            assert!(number(&error).is_some(), "{error:?}");
            assert!(is_empty(folder.path()), "something was left behind");
        }
        None => run.wait_for("something was left behind", || has_no_other(&dst)),
    }
}

pub async fn decrypt_from(mut run: Run) {
    let specimen = Specimen::any(&mut run.dice);
    let (stream, how) = specimen.spoiled(&mut run.dice);
    let model = Model::of(&specimen.key, &stream, true);
    model.check(&specimen, how, true);
    let folder = tempfile::tempdir().unwrap();
    let dst = folder.path().join("new");
    let reader = inner(&mut run, stream);
    match run.attempt(FileOptions::new().decrypt_from(reader, &dst, &specimen.key)).await {
        Some(Ok(n)) => {
            assert_eq!(model.result, Ok(()), "a clean end of a bad stream");
            assert_eq!(n, model.released.len() as u64);
            run.assert_all_reported();
            assert!(fs::read(&dst).unwrap() == specimen.plaintext);
        }
        Some(Err(error)) => {
            assert!(number(&error).is_some() || model.result.err() == agcm::Error::from_io(&error), "{error:?}");
            assert!(is_empty(folder.path()), "something was left behind");
        }
        None => run.wait_for("something was left behind", || has_no_other(&dst)),
    }
}

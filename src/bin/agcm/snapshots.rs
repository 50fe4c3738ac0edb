//! The commands that work with a key store.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use agcm::{
    DecryptOptions, EncryptOptions, FileOptions,
    keystore::{DirKeyStore, KeyStore},
};

use crate::{
    args::{KeysCommand, Snapshot, SnapshotFiles, Store},
    bar::Bar,
    failure::Failure,
    guards::{keep_keys_from, needs_name},
    keys,
    streams::{Input, Output, Run},
};

pub(crate) async fn run(run: &Run, command: Snapshot) -> Result<(), Failure> {
    let bar = Bar::new(run.quiet);
    match command {
        Snapshot::Encrypt { store, chunk_size, snapshot } => {
            let keys = open(run, &store).await?;
            let options = EncryptOptions::new().chunk_size(chunk_size.chunk_size.0);
            let options = options.map_err(|error| Failure::usage(error.to_string()))?;
            let options = files(run, &bar, &store, &snapshot)?.encrypt_options(options);
            let new = store.keys.try_exists().is_ok_and(|exists| !exists);
            options.encrypt_snapshot(&snapshot.input, &snapshot.output, &keys, &store.id).await?;
            if new && !run.quiet {
                drop(bar);
                // Or the folder was mistyped, or is not mounted, and nobody will look for the key there. The snapshot is made,
                // even if nobody is left to tell.
                let _ = writeln!(io::stderr(), "agcm: {:?} is a new key store", store.keys);
            }
            Ok(())
        }
        Snapshot::Restore { store, snapshot } => {
            let keys = open(run, &store).await?;
            let options = files(run, &bar, &store, &snapshot)?;
            let restored = options.restore_snapshot(&snapshot.input, &snapshot.output, &keys, &store.id).await;
            restored.map_err(|error| Failure::from(error).about(&format!("restoring {:?}", snapshot.input)))?;
            Ok(())
        }
        Snapshot::Verify { store, input } => {
            needs_name(&input)?;
            let key = open(run, &store).await?.retrieve(&store.id).await?;
            let options = run.file_options(false).progress(bar.callback());
            let options = options.decrypt_options(DecryptOptions::new().context(&store.id)?);
            let len = options.verify_file(&input, key).await?;
            drop(bar);
            run.print_whole(&Input::File(input), len).await
        }
    }
}

pub(crate) async fn keys(run: &Run, folder: Option<PathBuf>, command: KeysCommand) -> Result<(), Failure> {
    let folder = folder.ok_or_else(|| Failure::usage("which key store? give its folder with --keys DIR"))?;
    match command {
        KeysCommand::List => {
            let ids = DirKeyStore::new(folder).list().await?;
            run.print(ids.iter().map(|id| format!("{id}\n")).collect::<String>()).await
        }
        KeysCommand::Export { id, passphrase_file, output } => {
            let output = Output::new(output);
            if let Output::File(path) = &output {
                // In the store it would be one more of its keys, and in the clear.
                keep_keys_from(path, [&folder].into_iter().chain(&passphrase_file))?;
            }
            let store = run.unless_cancelled(keys::store(&folder, passphrase_file.as_deref())).await?;
            let key = run.unless_cancelled(async { Ok(store.retrieve(&id).await?) }).await?;
            keys::write(run, &key, output).await
        }
        KeysCommand::Remove { id } => Ok(DirKeyStore::new(folder).remove(&id).await?),
    }
}

/// Opens the key store. The passphrase may come out of a pipe that keeps one waiting.
async fn open(run: &Run, store: &Store) -> Result<DirKeyStore, Failure> {
    run.unless_cancelled(keys::store(&store.keys, store.passphrase_file.as_deref())).await
}

fn files(run: &Run, bar: &Bar, store: &Store, snapshot: &SnapshotFiles) -> Result<FileOptions, Failure> {
    needs_name(&snapshot.input)?;
    needs_name(&snapshot.output)?;
    keep_keys_from(&snapshot.output, [&store.keys].into_iter().chain(&store.passphrase_file))?;
    Ok(run.file_options(snapshot.force.force).progress(bar.callback()))
}

//! What each command does.

use std::{ffi::OsString, io, path::PathBuf};

use agcm::{
    DecryptOptions, DecryptReader, EncryptOptions, EncryptReader, Error, Inspection, Key, KeyRing, PositionedFile,
    ProgressReader, RangeReader, Trailing, inspect, legacy::GoReader,
};
use clap::CommandFactory;
use tokio::io::{AsyncRead, BufReader, copy_buf, sink};
use tokio_util::io::StreamReader;

use crate::{
    args::{Arguments, ByteRange, Command, Size},
    bar::Bar,
    bench,
    failure::{Failure, unless_forced},
    guards::{keep_keys_from, needs_name},
    keys, snapshots,
    streams::{Input, Named, Output, Run},
    terminal::binary_to_terminal,
};

type Result<T = ()> = std::result::Result<T, Failure>;

pub(crate) async fn run(run: &Run, command: Command) -> Result {
    match command {
        Command::Keygen { output } => keys::write(run, &Key::generate(), Output::new(output)).await,
        Command::Encrypt { key, context, chunk_size, force, jobs, files } => {
            let options = jobs.seal(encrypt_options(chunk_size.chunk_size, context.context)?);
            let (input, output) = (Input::new(files.input.input), Output::new(files.output));
            output.spares(&input, &key.key)?;
            let key = run.unless_cancelled(keys::one(key.key.as_deref())).await?;
            encrypt(run, key, options, force.force, input, output).await
        }
        Command::Decrypt { keys, context, force, jobs, files } => {
            let options = jobs.open(decrypt_options(context.context)?);
            let (input, output) = (Input::new(files.input.input), Output::new(files.output));
            output.spares(&input, &keys.keys)?;
            decrypt(run, run.unless_cancelled(keys::ring(&keys.keys)).await?, options, force.force, input, output).await
        }
        Command::Verify { keys, context, jobs, input } => {
            let options = jobs.open(decrypt_options(context.context)?);
            verify(run, run.unless_cancelled(keys::ring(&keys.keys)).await?, options, Input::new(input.input)).await
        }
        Command::Inspect { json, input } => look(run, json, Input::new(input.input)).await,
        Command::Rekey { keys, to, context, force, input, output } => {
            let (old, new) = run.unless_cancelled(keys::both(&keys.keys, &to.to_key)).await?;
            let output = output.unwrap_or_else(|| input.clone());
            [&input, &output].into_iter().try_for_each(|path| needs_name(path))?;
            keep_keys_from(&output, keys.keys.iter().chain([&to.to_key]))?;
            let bar = Bar::new(run.quiet);
            let options = run.file_options(force.force).progress(bar.callback());
            let options = options.decrypt_options(decrypt_options(context.context)?);
            options.rekey_file(&input, &output, old, &new).await.map_err(unless_forced)?;
            Ok(())
        }
        Command::Cat { keys, context, range, force, input } => {
            let options = decrypt_options(context.context)?;
            cat(run, run.unless_cancelled(keys::ring(&keys.keys)).await?, options, range, force.force, input).await
        }
        Command::Import { from_go: _, keys, to, context, chunk_size, force, files } => {
            let options = encrypt_options(chunk_size.chunk_size, context.context)?;
            let (old, new) = run.unless_cancelled(keys::both(&keys.keys, &to.to_key)).await?;
            let (input, output) = (Input::new(files.input.input), Output::new(files.output));
            output.spares(&input, keys.keys.iter().chain([&to.to_key]))?;
            import(run, old, new, options, force.force, input, output).await
        }
        Command::Snapshot(command) => snapshots::run(run, command).await,
        Command::Keys { keys, command } => snapshots::keys(run, keys, command).await,
        Command::Bench { jobs, input } => bench::run(run, &jobs, input).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "agcm", &mut script);
            run.print(script).await
        }
        Command::Man => {
            let mut page = Vec::new();
            manual(&mut page)?;
            run.print(page).await
        }
    }
}

async fn encrypt(run: &Run, key: Key, options: EncryptOptions, force: bool, input: Input, output: Output) -> Result {
    if !force && output.is_terminal() {
        return Err(binary_to_terminal());
    }
    let bar = Bar::new(run.quiet || output.is_terminal());
    let files = run.file_options(force).encrypt_options(options.clone()).progress(bar.callback());
    if let (Input::File(input), Output::File(output)) = (&input, &output) {
        files.encrypt_file(input, output, &key).await.map_err(unless_forced)?;
        return Ok(());
    }
    match output {
        // The files count by themselves.
        Output::File(output) => {
            let (reader, len) = open(run, &input).await?;
            let reader = ProgressReader::new(Named::new(reader, &input), len, bar.callback());
            let options = run.file_options(force).encrypt_options(options);
            let encrypted = options.encrypt_from(reader, output, &key).await;
            encrypted.map_err(|error| of_input_or_output(&input, error))?;
            Ok(())
        }
        output => {
            let (reader, len) = open_direct(run, &input).await?;
            let reader = ProgressReader::new(reader, len, bar.callback());
            run.copy(EncryptReader::with_options(reader, &key, &options), &input, &output, force).await
        }
    }
}

async fn decrypt(
    run: &Run,
    keys: KeyRing,
    options: DecryptOptions,
    force: bool,
    input: Input,
    output: Output,
) -> Result {
    let bar = Bar::new(run.quiet || output.is_terminal());
    let files = run.file_options(force).decrypt_options(options.clone());
    if let (Input::File(input), Output::File(output)) = (&input, &output) {
        files.progress(bar.callback()).decrypt_file(input, output, keys).await.map_err(unless_forced)?;
        return Ok(());
    }
    match output {
        Output::File(output) => {
            let (reader, len) = open(run, &input).await?;
            let reader = ProgressReader::new(Named::new(reader, &input), len, bar.callback());
            let decrypted = files.decrypt_from(reader, output, keys).await;
            decrypted.map_err(|error| of_input_or_output(&input, error))?;
            Ok(())
        }
        output => {
            let (reader, len) = open_direct(run, &input).await?;
            let reader = ProgressReader::new(reader, len, bar.callback());
            run.copy(DecryptReader::with_options(reader, keys, &options), &input, &output, force).await
        }
    }
}

async fn verify(run: &Run, keys: KeyRing, options: DecryptOptions, input: Input) -> Result {
    let bar = Bar::new(run.quiet);
    let len = if let Input::File(input) = &input {
        run.file_options(false).decrypt_options(options).progress(bar.callback()).verify_file(input, keys).await?
    } else {
        let (reader, len) = open(run, &input).await?;
        let reader = ProgressReader::new(reader, len, bar.callback());
        let mut reader = DecryptReader::with_options(reader, keys, &options);
        let read = async {
            copy_buf(&mut reader, &mut sink()).await.map_err(|error| Failure::from(error).about(&input.name()))
        };
        run.unless_cancelled(read).await?
    };
    drop(bar);
    run.print_whole(&input, len).await
}

/// Says which input it was that holds no good stream. What else is wrong, with the output or with reading, says so by itself.
fn of_input_or_output(input: &Input, error: io::Error) -> Failure {
    if Error::from_io(&error).is_some() { Failure::from(error).about(&input.name()) } else { unless_forced(error) }
}

/// Opens it, or says which one could not be opened. A pipe may keep one waiting for its other end.
async fn open(run: &Run, input: &Input) -> Result<(impl AsyncRead + Unpin + use<>, Option<u64>)> {
    let open =
        async { input.open().await.map_err(|error| Failure::from(error).about(&format!("opening {}", input.name()))) };
    run.unless_cancelled(open).await
}

/// As [`open`], for [`Run::copy`], which reads on a thread that may block.
async fn open_direct(run: &Run, input: &Input) -> Result<(impl AsyncRead + Send + Unpin + use<>, Option<u64>)> {
    let input = input.clone();
    let open =
        move || input.open_direct().map_err(|error| Failure::from(error).about(&format!("opening {}", input.name())));
    run.in_thread(open).await
}

async fn look(run: &Run, json: bool, input: Input) -> Result {
    let found = run
        .unless_cancelled(async {
            let (reader, _) = open(run, &input).await?;
            inspect(reader).await.map_err(|error| Failure::from(error).about(&input.name()))
        })
        .await?;
    run.print(if json { as_json(&found) } else { as_text(&found) }).await?;
    match found.problem {
        Some(problem) => Err(Failure::from(problem).about(&input.name())),
        None => Ok(()),
    }
}

fn as_text(found: &Inspection) -> String {
    let overhead = found.stream_len.saturating_sub(found.plaintext_len);
    format!(
        "format        AGCM, version {}\n\
         chunk size    {} bytes ({})\n\
         nonce         {}\n\
         chunks        {}{}\n\
         plaintext     {} bytes\n\
         stream        {} bytes ({overhead} more)\n\
         {}\n",
        found.version,
        found.chunk_size,
        Size(found.chunk_size),
        hex(&found.nonce),
        found.frames,
        if found.uniform { ", all full but the last (quick to read at any offset)" } else { ", some cut short" },
        found.plaintext_len,
        found.stream_len,
        match found.problem {
            None => "It looks whole. Only its key can tell whether it is: agcm verify.",
            Some(_) => "These are the figures up to where something is wrong.",
        },
    )
}

fn as_json(found: &Inspection) -> String {
    let problem = found.problem.map(|problem| {
        let name: String = format!("{problem:?}").chars().take_while(char::is_ascii_alphanumeric).collect();
        serde_json::json!({ "error": name, "message": problem.to_string() })
    });
    let line = serde_json::json!({
        "version": found.version,
        "chunk_size": found.chunk_size,
        "nonce": hex(&found.nonce),
        "chunks": found.frames,
        "plaintext_len": found.plaintext_len,
        "stream_len": found.stream_len,
        "uniform": found.uniform,
        "problem": problem,
    });
    format!("{line}\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn cat(
    run: &Run,
    keys: KeyRing,
    options: DecryptOptions,
    range: ByteRange,
    force: bool,
    input: PathBuf,
) -> Result {
    needs_name(&input)?;
    let input = Input::File(input);
    let Input::File(path) = &input else { unreachable!("it was made a file") };
    let opening = |error| Failure::from(error).about(&input.name());
    let open = async { PositionedFile::open(path).await.map_err(Failure::from) };
    let file = run.unless_cancelled(open).await?;
    let reader = RangeReader::open_with_options(file, keys, &options).await.map_err(opening)?;
    let stream = reader.stream(range.of(reader.len())).map_err(|error| Failure::from(error).about(&input.name()))?;
    run.copy(StreamReader::new(stream), &input, &Output::Stdout, force).await
}

async fn import(
    run: &Run,
    old: KeyRing,
    new: Key,
    options: EncryptOptions,
    force: bool,
    input: Input,
    output: Output,
) -> Result {
    if !force && output.is_terminal() {
        return Err(binary_to_terminal());
    }
    let bar = Bar::new(run.quiet || output.is_terminal());
    let (reader, len) = open(run, &input).await?;
    let reader = BufReader::new(ProgressReader::new(reader, len, bar.callback()));
    let plaintext = GoReader::new(reader, old);
    match output {
        Output::File(output) => {
            let plaintext = Named::new(plaintext, &input);
            let imported = run.file_options(force).encrypt_options(options).encrypt_from(plaintext, output, &new).await;
            imported.map_err(|error| of_input_or_output(&input, error))?;
            Ok(())
        }
        output => run.copy(EncryptReader::with_options(plaintext, &new, &options), &input, &output, force).await,
    }
}

fn encrypt_options(chunk_size: Size, context: Option<OsString>) -> Result<EncryptOptions> {
    let options = EncryptOptions::new().chunk_size(chunk_size.0).map_err(|error| Failure::usage(error.to_string()))?;
    match context {
        Some(context) => Ok(options.context(context.as_encoded_bytes())?),
        None => Ok(options),
    }
}

/// Standard input, too, is meant to be one stream: `cat a b | agcm decrypt` must not lose the second.
fn decrypt_options(context: Option<OsString>) -> Result<DecryptOptions> {
    let options = DecryptOptions::new().trailing(Trailing::Reject);
    match context {
        Some(context) => Ok(options.context(context.as_encoded_bytes())?),
        None => Ok(options),
    }
}

/// The page of the command, and one of each of its commands behind it, and of theirs.
fn manual(page: &mut Vec<u8>) -> io::Result<()> {
    let mut command = Arguments::command();
    command.build();
    manual_of(&command, page)
}

fn manual_of(command: &clap::Command, page: &mut Vec<u8>) -> io::Result<()> {
    clap_mangen::Man::new(command.clone()).render(page)?;
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        manual_of(command, page)?;
    }
    Ok(())
}

//! Where a command reads and writes: files, pipes, terminals.
//!
//! Binary data must never get to a terminal unless it was forced, and a file is never written but through the library, which
//! publishes it whole or not at all.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use agcm::{Error, FileOptions};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf},
    runtime::Handle,
    task::spawn_blocking,
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    direct::Direct,
    failure::Failure,
    guards::{is_one_file, keep_keys_from},
    terminal::{Text, binary_to_terminal, is_terminal},
};

/// How much is read from a file at a time, in bytes.
const READ_LEN: usize = 1024 * 1024;

/// What a command reads.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    Stdin,
    /// An ordinary file, or what is to be looked for as one.
    File(PathBuf),
    /// A pipe, a device.
    Special(PathBuf),
}

impl Input {
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        match path {
            None => Self::Stdin,
            Some(path) if path.as_os_str() == "-" || path.as_os_str() == "/dev/stdin" => Self::Stdin,
            Some(path) if is_special(&path) => Self::Special(path),
            Some(path) => Self::File(path),
        }
    }

    /// What it is called in an error.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Stdin => "standard input".to_owned(),
            Self::File(path) | Self::Special(path) => format!("{path:?}"),
        }
    }

    /// Opens it to be read in order; says how long it is, if that is known.
    pub(crate) async fn open(&self) -> io::Result<(Pin<Box<dyn AsyncRead + Send>>, Option<u64>)> {
        let (Self::File(path) | Self::Special(path)) = self else {
            return Ok((Box::pin(tokio::io::stdin()), None));
        };
        let file = tokio::fs::File::open(path).await?;
        let metadata = file.metadata().await?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let len = metadata.is_file().then_some(metadata.len());
        Ok((Box::pin(BufReader::with_capacity(READ_LEN, file)), len))
    }

    /// As [`open`](Self::open), for a thread that may block.
    pub(crate) fn open_direct(&self) -> io::Result<(Box<dyn AsyncRead + Send + Unpin>, Option<u64>)> {
        let (Self::File(path) | Self::Special(path)) = self else { return Ok((Box::new(Direct(stdin()?)), None)) };
        let file = fs::File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let len = metadata.is_file().then_some(metadata.len());
        Ok((Box::new(Direct(file)), len))
    }
}

/// A reader whose errors say which input it is: of what they come back in, they may be a part only.
#[derive(Debug)]
pub(crate) struct Named<R> {
    reader: R,
    name: String,
}

impl<R> Named<R> {
    pub(crate) fn new(reader: R, input: &Input) -> Self {
        Self { reader, name: input.name() }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Named<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { reader, name } = &mut *self;
        let poll = Pin::new(reader).poll_read(cx, buf);
        poll.map_err(|error| match Error::from_io(&error) {
            // What a stream did is told by whoever made it, with a status of its own.
            Some(_) => error,
            None => io::Error::new(error.kind(), format!("{name}: {error}")),
        })
    }
}

/// What a command writes.
#[derive(Debug, Clone)]
pub(crate) enum Output {
    Stdout,
    /// A file that appears when it is complete.
    File(PathBuf),
    /// A pipe, a device.
    Special(PathBuf),
}

impl Output {
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        match path {
            None => Self::Stdout,
            // Where that leads to a file, it is not to be replaced.
            Some(path) if path.as_os_str() == "-" || path.as_os_str() == "/dev/stdout" => Self::Stdout,
            Some(path) if is_special(&path) => Self::Special(path),
            Some(path) => Self::File(path),
        }
    }

    /// Refuses to replace what is read, or one of these keys.
    pub(crate) fn spares<'a>(&self, input: &Input, keys: impl IntoIterator<Item = &'a PathBuf>) -> Result<(), Failure> {
        let Self::File(path) = self else { return Ok(()) };
        let source = match input {
            Input::Stdin => Path::new("/dev/stdin"),
            Input::File(path) | Input::Special(path) => path,
        };
        if is_one_file(path, source)? {
            return Err(Failure::usage(format!(
                "{path:?} is what is read, and must not be replaced; choose another name"
            )));
        }
        keep_keys_from(path, keys)
    }

    pub(crate) fn is_terminal(&self) -> bool {
        match self {
            Self::Stdout => io::stdout().is_terminal(),
            Self::File(_) => false,
            Self::Special(path) => is_terminal(path),
        }
    }

    /// Opens it, for a thread that may block.
    fn open_direct(&self) -> io::Result<Box<dyn AsyncWrite + Send + Unpin>> {
        Ok(match self {
            Self::Stdout => Box::new(Direct(stdout()?)),
            Self::File(path) | Self::Special(path) => Box::new(Direct(fs::OpenOptions::new().write(true).open(path)?)),
        })
    }
}

/// Standard input as a file: that reads as much at a time as it is asked for, where the standard library's has a small buffer.
#[cfg(unix)]
fn stdin() -> io::Result<fs::File> {
    use std::os::fd::AsFd;
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

#[cfg(not(unix))]
fn stdin() -> io::Result<io::Stdin> {
    Ok(io::stdin())
}

/// Standard output as a file, not as the standard library's: that keeps what follows the last newline, and at the end of the process
/// waits until it can be written, even if nobody reads and the command was told to stop.
#[cfg(unix)]
fn stdout() -> io::Result<fs::File> {
    use std::os::fd::AsFd;
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

#[cfg(not(unix))]
fn stdout() -> io::Result<io::Stdout> {
    Ok(io::stdout())
}

/// Whether there is something that is neither file nor folder.
fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir())
}

/// How the commands of this run do their work.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) cancel: CancellationToken,
    pub(crate) quiet: bool,
}

impl Run {
    pub(crate) fn file_options(&self, force: bool) -> FileOptions {
        FileOptions::new().overwrite(force).cancel_on(self.cancel.clone())
    }

    /// Copies all that `reader` has to an output that is no file.
    ///
    /// To a terminal only text goes, unless it is forced.
    pub(crate) async fn copy(
        &self,
        reader: impl AsyncBufRead + Send + 'static,
        source: &Input,
        output: &Output,
        force: bool,
    ) -> Result<(), Failure> {
        let mut text = (!force && output.is_terminal()).then(Text::default);
        let (source, output) = (source.clone(), output.clone());
        let copy = async move {
            let mut reader = std::pin::pin!(reader);
            let writing = |error: io::Error| Failure::from(error).about("writing the output");
            let mut writer = output.open_direct().map_err(writing)?;
            let copied = loop {
                let bytes = match reader.fill_buf().await {
                    Ok([]) => break Ok(()),
                    Ok(bytes) => bytes,
                    Err(error) => break Err(Failure::from(error).about(&source.name())),
                };
                if text.as_mut().is_some_and(|text| !text.goes_on(bytes)) {
                    break Err(binary_to_terminal());
                }
                writer.write_all(bytes).await.map_err(writing)?;
                let len = bytes.len();
                reader.as_mut().consume(len);
            };
            // Standard output is not flushed by being shut down; and what came before a fault is to arrive, too.
            let flushed = writer.flush().await.map_err(writing);
            copied.and(flushed)?;
            writer.shutdown().await.map_err(writing)
        };
        self.in_thread(move || Handle::current().block_on(copy)).await
    }

    /// Does work that blocks. If it is not wanted any more, it is left to itself, until the process ends.
    pub(crate) async fn in_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let work = spawn_blocking(work);
        let result = async { work.await.unwrap_or_else(|error| Err(Failure::other(error.to_string()))) };
        self.unless_cancelled(result).await
    }

    /// Says that an input was authenticated to its end.
    pub(crate) async fn print_whole(&self, input: &Input, len: u64) -> Result<(), Failure> {
        if self.quiet {
            return Ok(());
        }
        self.print(format!("{}: whole and authentic, {len} bytes of plaintext\n", input.name())).await
    }

    /// Writes to standard output, whatever that is: whoever reads it may keep one waiting.
    pub(crate) async fn print(&self, bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
        let writing = |error: io::Error| Failure::from(error).about("writing the output");
        let bytes = Zeroizing::new(bytes.as_ref().to_vec());
        let print = move || {
            let mut stdout = stdout().map_err(writing)?;
            stdout.write_all(&bytes).map_err(writing)?;
            stdout.flush().map_err(writing)
        };
        self.in_thread(print).await
    }

    /// Drops work that is not wanted any more.
    pub(crate) async fn unless_cancelled<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let result = self.cancel.run_until_cancelled(work).await;
        result.unwrap_or_else(|| Err(Failure::other("stopped")))
    }
}

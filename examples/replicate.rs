//! Snapshots that one process replicates to another over one connection: each a stream with its name, acknowledged when it is
//! safely in place there; and what a cut connection has left undone is done by the next.
//!
//! ```text
//! cargo run --example replicate
//! ```
//!
//! This program is the sender, and starts itself once more as the receiver. What they say:
//!
//! ```text
//! both:      32 random bytes, in the clear
//! receiver:  a frame for each name that it has, End
//! sender:    for each that is missing: a frame with the name, the plaintext in frames, End
//! receiver:  for each: a frame with the name; how much has arrived, again and again, in frames of 8 bytes; End once it
//!            is in place
//! ```
//!
//! Each stream is bound by its context to its direction and to the random bytes of both sides. So whoever has recorded one
//! connection can play it to nobody later: a side that is there has drawn new bytes, and what was said under others does not
//! open. Within one connection a whole stream could still be left out or played twice; so each says which snapshot it is
//! about.
//!
//! A name needs no format of its own: items of a `Sink` are never merged, so the first frame is the name and nothing else. It
//! is authentic and secret, as is all that goes over the connection.

use std::{
    cell::Cell,
    collections::BTreeSet,
    env, fs,
    io::{self, BufRead, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::pin,
    process::{Child, Command, Stdio},
    time::Duration,
};

use agcm::{
    DEFAULT_CHUNK_SIZE, DecryptOptions, DecryptReader, EncryptOptions, Error, FileOptions, Key,
    codec::{Frame, FrameCodec, FrameDecoder, FrameEncoder, framed},
};
use futures::{Sink, SinkExt, Stream, StreamExt, TryStreamExt, stream};
use rand::{TryRng, rngs::SysRng};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt, copy, sink},
    join,
    net::{TcpListener, TcpSocket, TcpStream},
    time::sleep,
    try_join,
};
use tokio_util::{
    codec::Framed,
    io::{InspectReader, ReaderStream, StreamReader},
};

type Connection = Framed<TcpStream, FrameCodec>;

const MIB: usize = 1024 * 1024;
const SNAPSHOTS: [(&str, usize); 4] = [("customers", 3 * MIB), ("empty", 0), ("orders", 16 * MIB), ("stock", MIB / 2)];

/// One key for the connection, and one for what lies on disk.
struct Keys {
    wire: Key,
    disk: Key,
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Sender,
    Receiver,
}

/// A connection whose streams open on this connection and in their direction only: neither can somebody send one side its own
/// streams back, nor what the other side has said on another day.
async fn connect(mut socket: TcpStream, wire: &Key, side: Side) -> io::Result<Connection> {
    let (mut own, mut other) = ([0; 32], [0; 32]);
    SysRng.try_fill_bytes(&mut own).map_err(io::Error::other)?;
    socket.write_all(&own).await?;
    // They need not be secret, and whoever changes them has kept the two sides apart, no more.
    socket.read_exact(&mut other).await?;
    let (sender, receiver) = if side == Side::Sender { (own, other) } else { (other, own) };
    let to_sender = [&b"to sender"[..], &sender, &receiver].concat();
    let to_receiver = [&b"to receiver"[..], &sender, &receiver].concat();
    let (sending, receiving) = if side == Side::Sender { (to_receiver, to_sender) } else { (to_sender, to_receiver) };
    let encoder = FrameEncoder::with_options(wire, &EncryptOptions::new().context(sending)?);
    let decoder = FrameDecoder::with_options(wire, &DecryptOptions::new().context(receiving)?);
    Ok(framed(socket, FrameCodec::new(encoder, decoder)))
}

/// The receiver: serves connections until one has come to its end.
async fn receive(folder: &Path) -> io::Result<()> {
    // Keys come through a pipe: arguments and environment can be seen by others.
    let mut lines = io::stdin().lines();
    let mut key = || lines.next().ok_or_else(gone)??.parse().map_err(io::Error::from);
    let keys = Keys { wire: key()?, disk: key()? };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (socket, _) = listener.accept().await?;
        match serve(socket, folder, &keys).await {
            Ok(()) => return Ok(()),
            Err(error) => eprintln!("receiver: {error}"),
        }
    }
}

async fn serve(socket: TcpStream, folder: &Path, keys: &Keys) -> io::Result<()> {
    let mut connection = connect(socket, &keys.wire, Side::Receiver).await?;
    for name in names(folder)? {
        connection.feed(Frame::Data(name.into())).await?;
    }
    connection.send(Frame::End).await?;
    while let Some(frame) = connection.try_next().await? {
        let Frame::Data(name) = frame else { return Err(io::Error::other("a stream has no name")) };
        let path = folder.join(checked(&name)?);
        connection.feed(Frame::Data(name)).await?;
        let plaintext = stream::try_unfold((&mut connection, 0_u64), |(connection, arrived)| async move {
            match connection.try_next().await? {
                Some(Frame::Data(data)) => {
                    sleep(Duration::from_millis(1)).await; // a slow disk
                    let arrived = arrived + data.len() as u64;
                    connection.send(Frame::Data(arrived.to_le_bytes().to_vec().into())).await?;
                    Ok(Some((data, (connection, arrived))))
                }
                // No other end is one: whatever else happens is an error, and there will be no file.
                Some(Frame::End) => Ok(None),
                None => Err(gone()),
            }
        });
        // Sealed, synced and renamed: when this returns, the snapshot is safe; if it fails, there is none.
        FileOptions::new().encrypt_from(StreamReader::new(plaintext), &path, &keys.disk).await?;
        connection.send(Frame::End).await?;
    }
    Ok(())
}

/// A name that leads nowhere but into the folder, however much its sender may be trusted.
fn checked(name: &[u8]) -> io::Result<&str> {
    let name = std::str::from_utf8(name).map_err(io::Error::other)?;
    let is_only_a_name = Path::new(name).file_name() == Some(name.as_ref());
    is_only_a_name.then_some(name).ok_or_else(|| io::Error::other("that is no name of a snapshot"))
}

/// A clean end of the connection, but not where one may be.
fn gone() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

fn names(folder: &Path) -> io::Result<BTreeSet<String>> {
    fs::read_dir(folder)?.map(|entry| entry?.file_name().into_string().map_err(|_| gone())).collect()
}

/// The sender: sends what the receiver has not. After `cut` bytes the cable is pulled.
async fn replicate(address: SocketAddr, folder: &Path, keys: &Keys, cut: usize) -> io::Result<Vec<String>> {
    let connection = connect(socket()?.connect(address).await?, &keys.wire, Side::Sender).await?;
    let (mut sink, mut answers) = connection.split();

    let (mut missing, mut sent) = (names(folder)?, Vec::new());
    while let Frame::Data(name) = answers.try_next().await?.ok_or_else(gone)? {
        missing.remove(&*String::from_utf8_lossy(&name));
    }
    for name in missing {
        let path = folder.join(&name);
        let under_way = UnderWay::default();
        let send = send(&mut sink, &name, &path, &keys.disk, &under_way, cut);
        let ((), ()) = try_join!(send, acknowledged(&mut answers, &name, &under_way))?;
        let (len, most) = (under_way.fed.get() / 1024, under_way.most.get() / 1024);
        println!("{name}: {len} KiB are in place; at most {most} KiB were under way");
        assert!(most < 4096, "the receiver is slower, and the sender has waited for it");
        sent.push(name);
    }
    sink.close().await?;
    Ok(sent)
}

/// With small buffers, so that it shows who has to wait.
fn socket() -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_send_buffer_size(64 * 1024)?;
    socket.set_recv_buffer_size(64 * 1024)?;
    Ok(socket)
}

/// How much of a snapshot was given to the connection, and how much of that has arrived.
#[derive(Default)]
struct UnderWay {
    fed: Cell<u64>,
    arrived: Cell<u64>,
    most: Cell<u64>,
}

async fn send(
    mut sink: impl Sink<Frame, Error = io::Error> + Unpin,
    name: &str,
    path: &Path,
    disk: &Key,
    under_way: &UnderWay,
    cut: usize,
) -> io::Result<()> {
    sink.feed(Frame::Data(name.to_owned().into())).await?;
    let plaintext = DecryptReader::new(File::open(path).await?, disk);
    let mut pieces = ReaderStream::with_capacity(plaintext, DEFAULT_CHUNK_SIZE);
    while let Some(piece) = pieces.try_next().await? {
        let fed = under_way.fed.get() + piece.len() as u64;
        // It waits here for as long as the receiver makes it wait.
        sink.feed(Frame::Data(piece)).await?;
        under_way.fed.set(fed);
        under_way.most.set(under_way.most.get().max(fed - under_way.arrived.get()));
        if fed >= cut as u64 {
            return Err(io::Error::other("the cable was pulled"));
        }
    }
    // Only now, that the end of the file says that what was read is whole.
    sink.feed(Frame::End).await?;
    sink.flush().await
}

/// Waits until this snapshot, and no other, is in place.
async fn acknowledged(
    answers: impl Stream<Item = io::Result<Frame>>,
    name: &str,
    under_way: &UnderWay,
) -> io::Result<()> {
    let mut answers = pin!(answers);
    match answers.try_next().await?.ok_or_else(gone)? {
        Frame::Data(bytes) if bytes == name => {}
        _ => return Err(io::Error::other("another snapshot was acknowledged")),
    }
    loop {
        match answers.try_next().await?.ok_or_else(gone)? {
            Frame::Data(bytes) => {
                let arrived = u64::from_le_bytes(bytes[..].try_into().map_err(io::Error::other)?);
                if arrived > under_way.fed.get() {
                    return Err(io::Error::other("more was acknowledged than was sent"));
                }
                under_way.arrived.set(arrived);
            }
            Frame::End => return Ok(()),
        }
    }
}

/// Somebody on the way who has no key: lets one connection through, and remembers what the receiver said.
async fn record(listener: TcpListener, receiver: SocketAddr) -> io::Result<Vec<u8>> {
    let (near, far) = (listener.accept().await?.0, socket()?.connect(receiver).await?);
    let (mut from_sender, mut to_sender) = near.into_split();
    let (from_receiver, mut to_receiver) = far.into_split();
    let mut tape = Vec::new();
    let there = async {
        copy(&mut from_sender, &mut to_receiver).await?;
        to_receiver.shutdown().await
    };
    let back = async {
        let mut from_receiver = InspectReader::new(from_receiver, |bytes| tape.extend_from_slice(bytes));
        copy(&mut from_receiver, &mut to_sender).await?;
        to_sender.shutdown().await
    };
    try_join!(there, back)?;
    Ok(tape)
}

/// And says the same once more, to a sender whose receiver is not even there.
async fn play(listener: TcpListener, tape: &[u8]) -> io::Result<()> {
    let (mut from_sender, mut to_sender) = listener.accept().await?.0.into_split();
    to_sender.write_all(tape).await?;
    copy(&mut from_sender, &mut sink()).await?;
    Ok(())
}

fn listen() -> io::Result<(TcpListener, SocketAddr)> {
    let socket = socket()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let listener = socket.listen(1)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// A process that does not outlive this one.
struct Receiver(Child);

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Receiver {
    fn start(folder: &Path, keys: &Keys) -> io::Result<(Self, SocketAddr)> {
        let mut command = Command::new(env::current_exe()?);
        let command = command.arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut receiver = Self(command.spawn()?);
        let (stdin, stdout) = (receiver.0.stdin.take(), receiver.0.stdout.take());
        let hex = |key: &Key| key.expose_bytes().map(|byte| format!("{byte:02x}")).concat();
        writeln!(stdin.ok_or_else(gone)?, "{}\n{}", hex(&keys.wire), hex(&keys.disk))?;
        let mut address = String::new();
        io::BufReader::new(stdout.ok_or_else(gone)?).read_line(&mut address)?;
        Ok((receiver, address.trim_end().parse().map_err(io::Error::other)?))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    if let Some(folder) = env::args_os().nth(1) {
        return receive(&PathBuf::from(folder)).await;
    }
    let folder = tempfile::tempdir()?;
    let (here, there) = (folder.path().join("here"), folder.path().join("there"));
    [&here, &there].into_iter().try_for_each(fs::create_dir)?;
    let keys = Keys { wire: Key::generate(), disk: Key::generate() };
    let plaintext = |name: &str, len| name.bytes().cycle().take(len).collect::<Vec<u8>>();
    for (name, len) in SNAPSHOTS {
        FileOptions::new().encrypt_from(&plaintext(name, len)[..], here.join(name), &keys.disk).await?;
    }
    let (mut receiver, address) = Receiver::start(&there, &keys)?;

    let first = replicate(address, &here, &keys, 5 * MIB).await;
    println!("sender: {}", first.err().ok_or_else(|| io::Error::other("it was not cut"))?);
    let (listener, on_the_way) = listen()?;
    let (sent, tape) = try_join!(replicate(on_the_way, &here, &keys, usize::MAX), record(listener, address))?;
    assert!(receiver.0.wait()?.success());

    assert_eq!(sent, ["orders", "stock"], "the others had been acknowledged");
    assert!(names(&there)?.into_iter().eq(SNAPSHOTS.map(|(name, _)| name)), "and there is nothing else");
    for (name, len) in SNAPSHOTS {
        let stream = fs::read(there.join(name))?;
        assert!(agcm::decrypt(&keys.disk, &stream)? == plaintext(name, len), "{name}");
    }
    println!("all {} snapshots are there, whole", SNAPSHOTS.len());

    let (listener, on_the_way) = listen()?;
    let (played, _) = join!(replicate(on_the_way, &here, &keys, usize::MAX), play(listener, &tape));
    let refused = played.err().ok_or_else(|| io::Error::other("what was recorded was taken for an answer"))?;
    assert_eq!(Error::from_io(&refused), Some(Error::KeyMismatch));
    println!("what the receiver said was played once more, and refused: {refused}");

    let (one, more) = (Frame::Data("one".into()), Frame::Data(1_u64.to_le_bytes().to_vec().into()));
    for (answer, refusal) in [
        ([one.clone(), more.clone(), Frame::End], Some("more was acknowledged than was sent")),
        ([Frame::Data("two".into()), more.clone(), Frame::End], Some("another snapshot was acknowledged")),
        ([more, one.clone(), Frame::End], Some("another snapshot was acknowledged")),
        ([one, Frame::End, Frame::End], None),
    ] {
        let result = acknowledged(stream::iter(answer.map(Ok)), "one", &UnderWay::default()).await;
        assert_eq!(result.err().map(|error| error.to_string()).as_deref(), refusal);
    }
    Ok(())
}

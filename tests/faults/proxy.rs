//! Connections over loopback, through a proxy that forwards in pieces, pauses, cuts, resets, or never goes on.
//!
//! The reader must have an end only of a stream that has come whole. Of one that was cut it has all the frames that came, and
//! `Truncated`. Whoever waits for what never comes can give up, and leaves nothing behind that waits.

use std::{future::Future, io, net::SocketAddr, thread, time::Duration};

use agcm::{DecryptOptions, DecryptReader, EncryptOptions, EncryptWriter, Error, Key, Trailing};
use futures::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    RUNS,
    inject::Dice,
    number,
    specimen::{Model, Specimen, any_key},
};

/// Nothing here takes a second.
const PATIENCE: Duration = Duration::from_secs(20);
/// For how long somebody waits who will give up.
const A_WHILE: Duration = Duration::from_millis(200);

/// What becomes of a connection after so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It ends, for the reader. The writer is listened to until it has finished, or not even that.
    Cut { listen_on: bool },
    /// Both ends are reset.
    Reset,
    /// Nothing comes for some milliseconds.
    Pause(u64),
    /// Nothing comes any more, and the connection stays.
    Stall,
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    after: usize,
    fault: Fault,
    /// No more than this is forwarded at a time.
    piece: usize,
}

/// What a proxy has forwarded; and a word from it when it has come to its fault.
struct Proxy {
    address: SocketAddr,
    forwarded: JoinHandle<Vec<u8>>,
    came_to_it: CancellationToken,
}

impl Proxy {
    async fn start(to: SocketAddr, plan: Plan, mut dice: Dice) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // So that a writer has to wait as soon as nothing is forwarded.
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let came_to_it = CancellationToken::new();
        let there = came_to_it.clone();
        let forwarded = tokio::spawn(async move {
            let (up, _) = listener.accept().await.unwrap();
            let down = TcpStream::connect(to).await.unwrap();
            let mut forwarded = Vec::new();
            // An error here is that an end has gone, which is for those who test it to judge.
            let _ = forward(up, down, plan, &mut dice, &mut forwarded, there).await;
            forwarded
        });
        Self { address, forwarded, came_to_it }
    }

    /// All it has forwarded, when it has ended.
    async fn forwarded(self) -> Vec<u8> {
        in_time(self.forwarded).await.unwrap()
    }
}

async fn forward(
    mut up: TcpStream,
    mut down: TcpStream,
    plan: Plan,
    dice: &mut Dice,
    forwarded: &mut Vec<u8>,
    there: CancellationToken,
) -> io::Result<()> {
    down.set_nodelay(true)?;
    let mut buf = vec![0; plan.piece];
    loop {
        let left = plan.after.checked_sub(forwarded.len()).filter(|_| !there.is_cancelled());
        if left == Some(0) {
            there.cancel();
            match plan.fault {
                Fault::Pause(millis) => sleep(Duration::from_millis(millis)).await,
                Fault::Cut { listen_on } => {
                    down.shutdown().await?;
                    while listen_on && up.read(&mut buf).await? > 0 {}
                    return Ok(());
                }
                Fault::Reset => {
                    for end in [up, down] {
                        reset(end)?;
                    }
                    return Ok(());
                }
                Fault::Stall => {
                    // Until the reader has gone, of whom nothing is expected but that.
                    let _ = down.read(&mut buf).await;
                    return Ok(());
                }
            }
            continue;
        }
        let most = 1 + dice.below(plan.piece);
        let most = left.map_or(most, |left| left.min(most));
        let n = up.read(&mut buf[..most]).await?;
        if n == 0 {
            return down.shutdown().await;
        }
        down.write_all(&buf[..n]).await?;
        forwarded.extend_from_slice(&buf[..n]);
        if dice.percent(20) {
            tokio::task::yield_now().await;
        }
    }
}

#[allow(deprecated, reason = "the one that took its place is younger than the oldest Tokio that we build with")]
fn reset(connection: TcpStream) -> io::Result<()> {
    connection.set_linger(Some(Duration::ZERO))
}

async fn in_time<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("it hangs")
}

/// A connection whose writer has to wait as soon as nobody reads.
async fn connect(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(4096).unwrap();
    socket.connect(to).await.unwrap()
}

/// Where the reader is, and the proxy before it.
async fn path(plan: Plan, dice: &mut Dice) -> (TcpListener, Proxy) {
    let reader = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(reader.local_addr().unwrap(), plan, dice.others()).await;
    (reader, proxy)
}

/// Writes in pieces with a flush now and then, and finishes.
async fn send(
    writer: &mut EncryptWriter<impl tokio::io::AsyncWrite + Unpin>,
    plaintext: &[u8],
    dice: &mut Dice,
) -> io::Result<()> {
    let mut rest = plaintext;
    let piece = 1 + dice.below(plaintext.len() + 1);
    while !rest.is_empty() {
        let most = rest.len().min(1 + dice.below(piece));
        let n = writer.write(&rest[..most]).await?;
        rest = &rest[n..];
        if dice.percent(10) {
            writer.flush().await?;
        }
    }
    writer.finish().await
}

/// What comes before the end or the error.
async fn receive(reader: &mut (impl tokio::io::AsyncRead + Unpin), dice: &mut Dice) -> (Vec<u8>, io::Result<()>) {
    let mut plaintext = Vec::new();
    let mut buf = vec![0; 1 + dice.pick(&[10, 1000, 100_000])];
    loop {
        let len = 1 + dice.below(buf.len());
        match reader.read(&mut buf[..len]).await {
            Ok(0) => return (plaintext, Ok(())),
            Ok(n) => plaintext.extend_from_slice(&buf[..n]),
            Err(error) => return (plaintext, Err(error)),
        }
    }
}

/// One stream over one connection, and what its reader must have of it.
async fn connection(plaintext: &[u8], chunk: usize, plan: Plan, dice: &mut Dice) {
    let key = any_key(dice);
    let (listener, proxy) = path(plan, dice).await;
    let address = proxy.address;
    let options = EncryptOptions::new().chunk_size(chunk).unwrap().workers(1 + dice.below(3));
    let reject = dice.percent(50);
    let trailing = if reject { Trailing::Reject } else { Trailing::Leave };
    let decrypt = DecryptOptions::new().workers(1 + dice.below(3)).trailing(trailing);

    let (mut dice_there, mut dice_here) = (dice.others(), dice.others());
    let writing = async {
        let mut writer = EncryptWriter::with_options(connect(address).await, &key, &options);
        let mut result = send(&mut writer, plaintext, &mut dice_here).await;
        if result.is_ok() {
            result = writer.shutdown().await;
        }
        if result.is_err() {
            writer.finish().await.expect_err("a connection that has failed is none to finish a stream on");
            writer.shutdown().await.unwrap_err();
        }
        result
    };
    let reading = async {
        let (connection, _) = listener.accept().await.unwrap();
        let mut reader = DecryptReader::with_options(connection, &key, &decrypt);
        let (received, result) = receive(&mut reader, &mut dice_there).await;
        if let Some(error) = result.as_ref().err().and_then(Error::from_io) {
            let again = reader.read(&mut [0; 9]).await.unwrap_err();
            assert_eq!(Error::from_io(&again), Some(error), "it is sticky");
        }
        (received, result)
    };
    let (sent, (received, result)) = in_time(async { tokio::join!(writing, reading) }).await;
    let forwarded = proxy.forwarded().await;

    let model = Model::of(&key, &forwarded, reject);
    let is_whole = model.result.is_ok();
    assert!(plaintext.starts_with(&model.released) && (!is_whole || model.released == plaintext));
    let error = result.as_ref().err();
    match plan.fault {
        Fault::Reset if forwarded.len() == plan.after => {
            // What has come and was not read by then may be lost.
            assert!(model.released.starts_with(&received), "plaintext that is not authentic");
            assert!(error.is_some() || is_whole && received == plaintext, "a clean end of a bad stream");
            if let Some(error) = error {
                let is_cut = matches!(Error::from_io(error), Some(Error::Truncated { .. }));
                assert!(is_cut || error.kind() == io::ErrorKind::ConnectionReset, "{error:?}");
            }
        }
        _ => {
            assert!(received == model.released, "all that is authentic, and nothing else");
            assert_eq!(error.map(|error| Error::from_io(error).unwrap()), model.result.err(), "{result:?}");
        }
    }
    // A writer cannot know what became of its last bytes. But where it was listened to, it has finished.
    if matches!(plan.fault, Fault::Pause(_) | Fault::Cut { listen_on: true }) {
        sent.unwrap();
    }
}

#[tokio::test]
async fn connections_stand_faults() {
    let (first, runs) = match number("AGCM_FAULT_SEED") {
        Some(seed) => (seed, 1),
        None => (number("AGCM_FAULT_FIRST").unwrap_or(0), number("AGCM_FAULTS").unwrap_or(RUNS) / 20),
    };
    for seed in first..first + runs {
        let mut dice = Dice::new(seed);
        let specimen = Specimen::any(&mut dice);
        let len = 117 + specimen.plaintext.len() + 20 * specimen.plaintext.len().div_ceil(specimen.chunk);
        let fault = match dice.below(6) {
            0 | 1 => Fault::Cut { listen_on: dice.percent(50) },
            2 => Fault::Reset,
            _ => Fault::Pause(dice.below(4) as u64),
        };
        let plan = Plan { after: dice.below(len + 10), fault, piece: dice.pick(&[100, 5000, 100_000]).max(len / 200) };
        let failing = Failing(seed);
        connection(&specimen.plaintext, specimen.chunk, plan, &mut dice).await;
        drop(failing);
    }
}

/// Tells the seed of a connection that fails.
struct Failing(u64);

impl Drop for Failing {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("this seed fails: AGCM_FAULT_SEED={} cargo test --test faults proxy -- --nocapture", self.0);
        }
    }
}

/// Every place in a short stream where something begins or ends, and those beside it.
fn places() -> Vec<usize> {
    let frames = [80, 116, 152].map(|frame| [frame, frame + 4, frame + 20]);
    let places =
        [0, 4, 8, 20, 24, 28, 48, 80].into_iter().chain(frames.into_iter().flatten()).chain([179, 183, 200, 216]);
    let mut places: Vec<usize> = places.flat_map(|place: usize| place.saturating_sub(1)..place + 2).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.last(), Some(&217));
    places
}

#[tokio::test]
async fn a_connection_that_is_cut_anywhere_gives_what_came_and_an_error() {
    let mut dice = Dice::new(1);
    let plaintext = dice.bytes(39);
    for after in places() {
        for listen_on in [true, false] {
            let plan = Plan { after, fault: Fault::Cut { listen_on }, piece: 30 };
            connection(&plaintext, 16, plan, &mut dice).await;
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_reset_anywhere_has_no_clean_end() {
    let mut dice = Dice::new(2);
    let plaintext = dice.bytes(39);
    for after in places() {
        connection(&plaintext, 16, Plan { after, fault: Fault::Reset, piece: 30 }, &mut dice).await;
    }
}

#[tokio::test]
async fn a_connection_that_stalls_for_ever_can_be_given_up_at_both_ends() {
    in_time(join_all([0, 24, 80, 100, 116, 40_000].map(stall))).await;
}

async fn stall(after: usize) {
    let mut dice = Dice::new(after as u64);
    let key = any_key(&mut dice);
    // More than two workers take in.
    let plaintext = dice.bytes(6_000_000);
    let (listener, proxy) = path(Plan { after, fault: Fault::Stall, piece: 5000 }, &mut dice).await;
    let (mut dice_there, mut dice_here) = (dice.others(), dice.others());
    let writing = async {
        let options = EncryptOptions::new().chunk_size(16_000).unwrap().workers(1 + dice_here.below(2));
        let mut writer = EncryptWriter::with_options(connect(proxy.address).await, &key, &options);
        let mut at = 0;
        loop {
            // What was forwarded last may still be on its way, so it counts only from then on.
            let is_over = proxy.came_to_it.is_cancelled();
            match timeout(A_WHILE, writer.write(&plaintext[at..])).await {
                Ok(n) => at += n.unwrap(),
                Err(_) if is_over => break,
                Err(_) => {}
            }
        }
        assert!(at < plaintext.len(), "nobody takes it any more");
        timeout(A_WHILE, writer.shutdown()).await.unwrap_err();
        writer
    };
    let reading = async {
        let (connection, _) = listener.accept().await.unwrap();
        let mut reader = DecryptReader::new(connection, &key);
        let (mut received, mut buf) = (Vec::new(), vec![0; 1 + dice_there.below(5000)]);
        // While nothing comes, it is given up over and over, and goes on.
        loop {
            let is_over = proxy.came_to_it.is_cancelled();
            match timeout(A_WHILE, reader.read(&mut buf)).await {
                Ok(n) => {
                    let n = n.unwrap();
                    assert!(n > 0, "a clean end of a bad stream");
                    received.extend_from_slice(&buf[..n]);
                }
                Err(_) if is_over => return (received, reader),
                Err(_) => {}
            }
        }
    };
    // Both have given up before one of them goes.
    let ((received, reader), writer) = tokio::join!(reading, writing);
    drop((reader, writer));
    let forwarded = proxy.forwarded().await;
    assert_eq!(forwarded.len(), after);
    let model = Model::of(&key, &forwarded, false);
    assert!(received == model.released, "all that came whole, although nothing more comes");
    assert!(plaintext.starts_with(&received));
}

#[tokio::test]
async fn a_connection_that_is_half_closed_carries_the_answer() {
    for is_cut in [false, true] {
        let mut dice = Dice::new(4);
        let key = any_key(&mut dice);
        let plaintext = dice.bytes(39);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let asking = async {
            let connection = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let options = EncryptOptions::new().chunk_size(16).unwrap();
            if is_cut {
                let stream = options.encrypt(&key, &plaintext);
                let mut connection = connection;
                connection.write_all(&stream[..100]).await.unwrap();
                connection.shutdown().await.unwrap();
                return receive(&mut DecryptReader::new(connection, &key), &mut Dice::new(0)).await;
            }
            let mut writer = EncryptWriter::with_options(connection, &key, &options);
            send(&mut writer, &plaintext, &mut Dice::new(0)).await.unwrap();
            writer.shutdown().await.unwrap();
            receive(&mut DecryptReader::new(writer.into_inner(), &key), &mut Dice::new(0)).await
        };
        let answering = async {
            let (connection, _) = listener.accept().await.unwrap();
            let options = DecryptOptions::new().trailing(Trailing::Reject);
            let mut reader = DecryptReader::with_options(connection, &key, &options);
            let (received, result) = receive(&mut reader, &mut Dice::new(0)).await;
            let mut writer = EncryptWriter::new(reader.into_inner(), &key);
            writer.write_all(if result.is_ok() { &b"thanks"[..] } else { b"again, please" }).await.unwrap();
            writer.shutdown().await.unwrap();
            (received, result)
        };
        let ((answer, end), (received, result)) = in_time(async { tokio::join!(asking, answering) }).await;
        end.unwrap();
        if is_cut {
            let error = Error::from_io(&result.unwrap_err());
            assert_eq!(
                (answer, received, error),
                (b"again, please".into(), vec![], Some(Error::Truncated { at: 100 }))
            );
        } else {
            result.unwrap();
            assert_eq!((answer, received), (b"thanks".into(), plaintext));
        }
    }
}

#[tokio::test]
async fn of_several_streams_on_a_connection_those_before_the_cut_are_whole() {
    let mut dice = Dice::new(3);
    let key: Key = any_key(&mut dice);
    // 117 + 100 + 4 * 20 = 297 bytes each, with chunks of 30.
    let plaintexts: Vec<Vec<u8>> = (0..3).map(|_| dice.bytes(100)).collect();
    for after in [0, 296, 297, 298, 296 + 24, 297 + 80, 297 + 130, 297 + 180, 593, 594, 595, 700, 890, 891] {
        for fault in [Fault::Cut { listen_on: true }, Fault::Reset] {
            let (listener, proxy) = path(Plan { after, fault, piece: 200 }, &mut dice).await;
            let address = proxy.address;
            let (mut dice_there, mut dice_here) = (dice.others(), dice.others());
            let writing = async {
                let mut connection = connect(address).await;
                let options = EncryptOptions::new().chunk_size(30).unwrap();
                for plaintext in &plaintexts {
                    let mut writer = EncryptWriter::with_options(&mut connection, &key, &options);
                    send(&mut writer, plaintext, &mut dice_here).await?;
                }
                connection.shutdown().await
            };
            let reading = async {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut streams = Vec::new();
                while streams.len() < plaintexts.len() {
                    let (received, result) =
                        receive(&mut DecryptReader::new(&mut connection, &key), &mut dice_there).await;
                    streams.push(received);
                    if let Err(error) = result {
                        return (streams, Some(error));
                    }
                }
                (streams, None)
            };
            let (_, (streams, error)) = in_time(async { tokio::join!(writing, reading) }).await;
            let forwarded = proxy.forwarded().await;
            assert_eq!(forwarded.len(), after);
            let whole = if error.is_some() { streams.len() - 1 } else { 3 };
            assert!(streams[..whole] == plaintexts[..whole]);
            match fault {
                Fault::Reset => assert!(whole <= after / 297, "a clean end of a bad stream"),
                _ => {
                    assert_eq!(whole, after / 297);
                    let model = Model::of(&key, &forwarded[297 * whole..], false);
                    assert_eq!(
                        error.map(|error| Error::from_io(&error).unwrap()),
                        model.result.err().filter(|_| whole < 3)
                    );
                    assert!(whole == 3 || streams[whole] == model.released);
                }
            }
        }
    }
}

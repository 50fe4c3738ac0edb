//! A connection over loopback: our writer and reader beside TLS 1.3 with AES-256-GCM.
//!
//! Each has a connection that is there already; a run is 64 MiB through it, until they have all been read, in pieces of 64 KiB on
//! both sides. Writer and reader are tasks on two threads.

use std::{sync::Arc, time::Duration};

use agcm::{DecryptReader, EncryptWriter, Key};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::Mutex,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, aws_lc_rs},
        pki_types::{PrivatePkcs8KeyDer, ServerName},
        version::TLS13,
    },
};

use crate::common::{KIB, MIB, Results, Rounds, Run, time_by_the_wall, timed};

const PIECE: usize = 64 * KIB;
const PAYLOAD: usize = 64 * MIB;

pub(crate) fn run() {
    time_by_the_wall();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_io().build().expect("a runtime can be built");
    let (near, far) = runtime.block_on(connection());
    let (client, server) = runtime.block_on(tls());
    let (plain_near, plain_far) = runtime.block_on(connection());
    let key = Key::generate();
    let mut sides = [
        side(&runtime, near, far, Way::Ours(key)),
        side(&runtime, client, server, Way::Plain),
        side(&runtime, plain_near, plain_far, Way::Plain),
    ];
    let rounds = Rounds::take(PAYLOAD, Duration::from_secs(20), 21, &mut sides);
    let mut results = Results::new("tls");
    for (i, name) in ["TLS 1.3, AES-256-GCM (tokio-rustls on aws-lc-rs)", "TCP in the clear"].into_iter().enumerate() {
        let rates = json!({"ours": rounds.rate(0), "base": rounds.rate(i + 1)});
        results.add("tcp loopback", name, rounds.ratio(0, i + 1), rates);
    }
}

#[derive(Clone)]
enum Way {
    Ours(Key),
    /// As it is: in the clear, or through a connection that encrypts.
    Plain,
}

fn side<W, R>(runtime: &Runtime, near: W, far: R, way: Way) -> Run<'_>
where
    W: AsyncWrite + Unpin + Send + 'static,
    R: AsyncRead + Unpin + Send + 'static,
{
    let (near, far) = (Arc::new(Mutex::new(near)), Arc::new(Mutex::new(far)));
    Box::new(move || {
        timed(|| {
            runtime.block_on(async {
                let (near, far) = (near.clone(), far.clone());
                let (sends, receives) = (way.clone(), way.clone());
                let sent = tokio::spawn(async move { send(&mut *near.lock().await, sends).await });
                let received = tokio::spawn(async move { receive(&mut *far.lock().await, receives).await });
                sent.await.expect("it was sent");
                received.await.expect("it was received");
            });
        })
    })
}

async fn send(to: &mut (impl AsyncWrite + Unpin), way: Way) {
    match way {
        Way::Ours(key) => {
            let mut writer = EncryptWriter::new(to, &key);
            write(&mut writer).await;
            writer.finish().await.expect("the stream can end");
        }
        Way::Plain => write(to).await,
    }
}

async fn write(mut to: impl AsyncWrite + Unpin) {
    let piece = vec![0; PIECE];
    for _ in 0..PAYLOAD / PIECE {
        to.write_all(&piece).await.expect("the connection is there");
    }
    to.flush().await.expect("the connection is there");
}

async fn receive(from: &mut (impl AsyncRead + Unpin), way: Way) {
    match way {
        Way::Ours(key) => {
            let mut reader = DecryptReader::new(from, &key);
            read(&mut reader).await;
            let end = reader.read(&mut [0]).await.expect("the stream is whole");
            assert_eq!(end, 0);
        }
        Way::Plain => read(from).await,
    }
}

async fn read(mut from: impl AsyncRead + Unpin) {
    let mut piece = vec![0; PIECE];
    let mut left = PAYLOAD;
    while left > 0 {
        let n = from.read(&mut piece).await.expect("the connection is there");
        assert_ne!(n, 0, "the connection is there");
        left -= n;
    }
}

async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let address = listener.local_addr().expect("it has an address");
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (near, (far, _)) = (near.expect("it can be reached"), far.expect("it was reached"));
    for end in [&near, &far] {
        end.set_nodelay(true).expect("TCP can do without delay");
    }
    (near, far)
}

async fn tls() -> (impl AsyncWrite + Unpin + Send, impl AsyncRead + Unpin + Send) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate can be made");
    let (certificate, secret) = (made.cert.der().clone(), PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("this is a certificate");

    let suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384];
    let provider = Arc::new(CryptoProvider { cipher_suites: suites, ..aws_lc_rs::default_provider() });
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .expect("this suite is of TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("this suite is of TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], secret.into())
        .expect("the key belongs to the certificate");

    let (near, far) = connection().await;
    let name = ServerName::try_from("localhost").expect("this is a name");
    let (client, server) = tokio::join!(
        TlsConnector::from(Arc::new(client)).connect(name, near),
        TlsAcceptor::from(Arc::new(server)).accept(far)
    );
    (client.expect("they shake hands"), server.expect("they shake hands"))
}

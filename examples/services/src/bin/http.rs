//! A folder of encrypted files behind HTTP: [`agcm_services::http`] says what it does and what it does not.
//!
//! ```text
//! cd examples/services
//! umask 077; openssl rand -hex 32 >service.key; mkdir files
//! cargo run --release --bin http -- service.key files 127.0.0.1:8080    # Ctrl-C lets transfers end
//!
//! curl --upload-file db.dump http://127.0.0.1:8080/db.dump                    # encrypted as it arrives
//! curl --head http://127.0.0.1:8080/db.dump                                   # the plaintext's length, and an ETag
//! curl --output restored http://127.0.0.1:8080/db.dump
//! curl --range 500000-500099 http://127.0.0.1:8080/db.dump                    # reads the frames that hold it
//! curl --continue-at - --output restored http://127.0.0.1:8080/db.dump        # goes on with a download
//! curl --header 'If-None-Match: *' -T db.dump http://127.0.0.1:8080/db.dump   # 412: it is there
//! curl --request DELETE http://127.0.0.1:8080/db.dump
//! ```
//!
//! Without `--fail`, a script takes a refusal for the file. With `--continue-at`, curl goes on with whatever version is
//! there by now: send the `ETag` of the first one as `If-Range`, and another version is sent whole, which curl refuses.

use std::{env, error::Error, fs, future::Future, io, path::PathBuf, process::ExitCode, time::Duration};

use agcm::Key;
use agcm_services::http::{Service, serve};
use tokio::net::TcpListener;

/// How long transfers may go on after the service was told to stop.
const GRACE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("http: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut args = env::args_os().skip(1);
    let (Some(key), Some(folder), address, None) = (args.next(), args.next(), args.next(), args.next()) else {
        return Err("usage: http KEYFILE FOLDER [ADDRESS]".into());
    };
    let address = address.map_or(Ok("127.0.0.1:8080".into()), |address| address.into_string());
    let address = address.map_err(|_| "an address is a host and a port")?;
    let key: Key = fs::read_to_string(PathBuf::from(key))?.trim_end().parse()?;
    let folder = PathBuf::from(folder);
    if !folder.is_dir() {
        return Err(format!("{} is no folder", folder.display()).into());
    }
    let service = Service::new(folder, key);

    let stop = stop()?;
    let listener = TcpListener::bind(&address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    serve(listener, &service, stop, GRACE).await.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => "transfers were cut, which had not ended in time".into(),
        _ => error.into(),
    })
}

/// Ctrl-C, or what a service manager sends.
#[cfg(unix)]
fn stop() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        // Without the signal it is never told.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

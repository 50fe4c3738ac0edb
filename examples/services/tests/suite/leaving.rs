//! Clients that leave at each moment of a request. What others are told afterwards must hold.

use std::{
    fs,
    future::{Future, pending},
    io::{self, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::mpsc,
    time::Duration,
};

use agcm::{DecryptOptions, Key};
use agcm_services::http::{Service, serve};
use axum::{
    body::Body,
    http::{Request, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use tempfile::TempDir;
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    task::yield_now,
};
use tower_service::Service as _;

use crate::support::names;

/// More steps than any request here has.
const MANY: usize = 40;

/// A runtime that does its work on files only when it is told to, a step at a time: what there is to do waits behind a gate on
/// its only thread for that. So a request can be left at each of its steps, and whoever comes next is as much faster as can be.
struct Stepped {
    /// Dropped first: the runtime waits for its thread.
    gate: mpsc::Sender<()>,
    runtime: Runtime,
}

impl Stepped {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
        let gate = close(&runtime);
        Self { gate, runtime }
    }

    /// All that can be done without files.
    fn poll<T>(&self, future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        self.runtime.block_on(async {
            for _ in 0..200 {
                if let Some(output) = (&mut *future).now_or_never() {
                    return Some(output);
                }
                yield_now().await;
            }
            None
        })
    }

    /// What waits at the gate, and then all that can be done without files.
    fn step<T>(&mut self, future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        let (passed, has_passed) = mpsc::channel();
        self.runtime.spawn_blocking(move || passed.send(()).unwrap());
        let next = close(&self.runtime);
        self.gate = next;
        has_passed.recv().unwrap();
        self.poll(future)
    }

    fn many_steps<T>(&mut self, future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        (0..MANY).find_map(|_| self.step(future))
    }

    /// What goes on without the request that began it.
    fn go_on(&mut self) {
        let nobody: Option<()> = self.many_steps(&mut pending());
        assert!(nobody.is_none());
    }
}

/// The thread does nothing behind this until what is returned is dropped.
fn close(runtime: &Runtime) -> mpsc::Sender<()> {
    let (gate, opened) = mpsc::channel();
    runtime.spawn_blocking(move || opened.recv().unwrap_err());
    gate
}

/// A service without a connection: to drop what it has begun is what the server does when a client has left.
struct Served {
    folder: TempDir,
    key: Key,
    service: Service,
}

impl Served {
    fn new() -> Self {
        let (folder, key) = (tempfile::tempdir().unwrap(), Key::generate());
        let service = Service::new(folder.path(), key.clone());
        Self { folder, key, service }
    }

    fn begin(
        &self,
        method: &str,
        condition: Option<(header::HeaderName, &str)>,
        body: impl Into<Body>,
    ) -> BoxFuture<'static, StatusCode> {
        Box::pin(self.answer(method, condition, body).map(|response| response.status()))
    }

    fn answer(
        &self,
        method: &str,
        condition: Option<(header::HeaderName, &str)>,
        body: impl Into<Body>,
    ) -> BoxFuture<'static, Response> {
        let mut request = Request::builder().method(method).uri("/file");
        if let Some((name, value)) = condition {
            request = request.header(name, value);
        }
        let request = request.body(body.into()).unwrap();
        Box::pin(self.service.router().call(request).map(Result::unwrap))
    }

    fn content(&self) -> Vec<u8> {
        let bound = DecryptOptions::new().context("/file").unwrap();
        bound.decrypt(&self.key, &fs::read(self.folder.path().join("file.agcm")).unwrap()).unwrap()
    }
}

#[test]
fn what_a_client_was_told_is_not_undone_by_one_that_has_left() {
    for (method, is_there, condition) in [
        ("PUT", false, "If-None-Match"),
        ("PUT", true, "If-Match"),
        ("PUT", true, "none"),
        ("DELETE", true, "If-Match"),
        ("DELETE", true, "none"),
    ] {
        let mut done_without_a_client = false;
        for steps in 0.. {
            let case = format!("{method}, left after {steps} steps; then PUT with {condition}");
            let served = Served::new();
            let mut etag = String::new();
            let mut second = Stepped::new();
            if is_there {
                let response = second.many_steps(&mut served.answer("PUT", None, "zero")).unwrap();
                etag = response.headers()[header::ETAG].to_str().unwrap().to_owned();
            }

            let mut first = Stepped::new();
            let mut left = served.begin(method, None, if method == "PUT" { "one" } else { "" });
            let mut answered = first.poll(&mut left);
            for _ in 0..steps {
                answered = answered.or_else(|| first.step(&mut left));
            }
            if answered.is_some() {
                assert!(steps > 1, "{case}");
                break;
            }
            drop(left);

            let condition = match condition {
                "If-Match" => Some((header::IF_MATCH, &*etag)),
                "If-None-Match" => Some((header::IF_NONE_MATCH, "*")),
                _ => None,
            };
            let mut stays = served.begin("PUT", condition, "two");
            let status = second.many_steps(&mut stays);
            first.go_on();
            let status = status.or_else(|| second.many_steps(&mut stays));

            match status {
                Some(StatusCode::CREATED | StatusCode::NO_CONTENT) => assert_eq!(served.content(), b"two", "{case}"),
                Some(StatusCode::PRECONDITION_FAILED) if method == "PUT" => {
                    assert_eq!(served.content(), b"one", "{case}");
                    done_without_a_client = true;
                }
                Some(StatusCode::PRECONDITION_FAILED) => {
                    assert_eq!(names(served.folder.path()), [""; 0], "{case}");
                    done_without_a_client = true;
                    continue;
                }
                status => panic!("{case}: {status:?}"),
            }
            assert_eq!(names(served.folder.path()), ["file.agcm"], "{case}");
        }
        assert!(done_without_a_client || condition == "none", "the moment that this is about was not met");
    }
}

#[test]
fn an_upload_whose_client_leaves_before_its_end_leaves_nothing() {
    let mut has_begun = false;
    for steps in 0..MANY {
        let served = Served::new();
        let mut runtime = Stepped::new();
        let begin = stream::iter([io::Result::Ok(Bytes::from_static(b"one"))]);
        let mut left = served.begin("PUT", None, Body::from_stream(begin.chain(stream::pending())));
        assert!(runtime.poll(&mut left).is_none());
        for _ in 0..steps {
            assert!(runtime.step(&mut left).is_none());
        }
        has_begun |= is_partial(served.folder.path());
        drop(left);
        runtime.go_on();
        assert_eq!(names(served.folder.path()), [""; 0], "{steps}");
    }
    assert!(has_begun);
}

fn is_partial(folder: &Path) -> bool {
    names(folder).iter().any(|name| name.ends_with(".partial"))
}

#[test]
fn a_service_that_stops_ends_what_clients_have_left_behind() {
    let mut done_without_a_client = false;
    for steps in 0..MANY {
        let served = Served::new();
        let mut runtime = Stepped::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"PUT /file HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\none").unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let mut serving = Box::pin(async {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            serve(listener, &served.service, async { drop(stopped.await) }, Duration::from_secs(60)).await
        });
        assert!(runtime.poll(&mut serving).is_none());
        for _ in 0..steps {
            assert!(runtime.step(&mut serving).is_none());
        }

        drop(client);
        runtime.poll(&mut serving);
        drop(stop);
        let before = names(served.folder.path());
        if let Some(end) = runtime.poll(&mut serving) {
            end.unwrap();
            runtime.go_on();
            assert_eq!(names(served.folder.path()), before, "after {steps} steps the service ended before its work");
        } else {
            runtime.many_steps(&mut serving).unwrap().unwrap();
            done_without_a_client |= names(served.folder.path()) == ["file.agcm"];
        }
        assert!(!is_partial(served.folder.path()), "{steps}");
    }
    assert!(done_without_a_client, "the moment that this is about was not met");
}

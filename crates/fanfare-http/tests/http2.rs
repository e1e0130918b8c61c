//! HTTP/2 by prior knowledge, on the listener that speaks HTTP/1: what one stream does, no other one feels.

mod kit;

use std::collections::BTreeMap;

use fanfare_http::{Pipe, Reply, Request, Response, full, read_body, text};
use futures_util::future::join_all;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kit::TestServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LARGE: usize = 8 << 20;

/// A server whose `/pipe` is fed by the test.
async fn serving() -> (TestServer, mpsc::UnboundedReceiver<Pipe>) {
    let (sender, pipes) = mpsc::unbounded_channel();
    let server = TestServer::start(move |request: Request, _| {
        let sender = sender.clone();
        async move {
            match request.uri().path() {
                "/panic" => panic!("on purpose"),
                "/never" => std::future::pending().await,
                "/large" => Reply::Response(Response::new(full(vec![b'x'; LARGE]))),
                "/body" => match read_body(request.into_body(), 1 << 20).await {
                    Ok(body) => Reply::Response(text(StatusCode::OK, body.len().to_string())),
                    Err(problem) => problem.into(),
                },
                "/pipe" => {
                    let (pipe, body) = Pipe::new();
                    sender.send(pipe).expect("awaited");
                    Reply::Response(Response::new(body))
                }
                path => {
                    let mut response = text(StatusCode::OK, path.to_owned());
                    response.headers_mut().insert("connection", "keep-alive".parse().expect("valid"));
                    Reply::Response(response)
                }
            }
        }
    })
    .await;
    (server, pipes)
}

type Client = SendRequest<Full<Bytes>>;

async fn connect(server: &TestServer) -> Client {
    let socket = TokioIo::new(TcpStream::connect(server.address).await.expect("listening"));
    let mut builder = Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(64 * 1024).initial_connection_window_size(1 << 20);
    let (client, connection) = builder.handshake(socket).await.expect("it speaks HTTP/2");
    TaskTracker::new().spawn(connection);
    client
}

fn request(method: Method, path: &str, body: impl Into<Bytes>) -> http::Request<Full<Bytes>> {
    let request = http::Request::builder().method(method).uri(format!("http://x{path}"));
    request.body(Full::new(body.into())).expect("valid")
}

async fn get(client: &Client, path: &str) -> http::Response<hyper::body::Incoming> {
    client.clone().send_request(request(Method::GET, path, "")).await.expect("answered")
}

async fn body(response: http::Response<hyper::body::Incoming>) -> String {
    let whole = response.into_body().collect().await.expect("whole").to_bytes();
    String::from_utf8(whole.to_vec()).expect("UTF-8")
}

/// A client that writes its frames itself.
struct Raw(TcpStream);

impl Raw {
    async fn connect(server: &TestServer) -> Self {
        let mut raw = Self(TcpStream::connect(server.address).await.expect("listening"));
        raw.0.set_nodelay(true).expect("a socket");
        raw.0.write_all(PREFACE).await.expect("taken");
        raw.0.write_all(&frame(4, 0, 0, b"")).await.expect("taken");
        raw
    }

    /// The next frame: its type, stream and payload. None at the end.
    async fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET` of a path, whole.
fn headers(stream: u32, path: &str) -> Vec<u8> {
    let block = [b"\x82\x86\x41\x01x\x04", &[path.len() as u8][..], path.as_bytes()].concat();
    frame(1, 0b101, stream, &block)
}

fn reset(stream: u32) -> Vec<u8> {
    frame(3, 0, stream, &8_u32.to_be_bytes())
}

#[tokio::test]
async fn the_preface_is_known_however_it_comes_and_what_only_begins_like_it_is_http1() {
    let (server, _) = serving().await;
    let mut slow = Raw(TcpStream::connect(server.address).await.expect("listening"));
    slow.0.set_nodelay(true).expect("a socket");
    for byte in [PREFACE, &frame(4, 0, 0, b""), &headers(1, "/never")].concat() {
        slow.0.write_all(&[byte]).await.expect("taken");
        tokio::task::yield_now().await;
    }
    assert_eq!(slow.next().await.expect("settings").0, 4);
    for begin in ["P", "PR", "PRI "] {
        let mut client = server.connect().await;
        client.send(begin).await;
        tokio::task::yield_now().await;
        client.send(&"PRI /a HTTP/1.1\r\nHost: x\r\n\r\n"[begin.len()..]).await;
        assert_eq!(client.response().await.1, "/a");
    }
}

#[tokio::test]
async fn requests_side_by_side_are_each_answered() {
    let (server, _) = serving().await;
    let client = connect(&server).await;
    let paths: Vec<_> = (0..300).map(|n| format!("/{n}")).collect();
    let answers = join_all(paths.iter().map(async |path| body(get(&client, path).await).await)).await;
    assert_eq!(answers, paths);
    let upload = client.clone().send_request(request(Method::POST, "/body", vec![b'x'; 1 << 20])).await;
    assert_eq!(body(upload.expect("answered")).await, (1 << 20).to_string(), "more than any window");
}

#[tokio::test]
async fn responses_have_an_id_and_no_header_of_http1_and_head_has_no_body() {
    let (server, _) = serving().await;
    let mut client = connect(&server).await;
    let head = client.send_request(request(Method::HEAD, "/abc", "")).await.expect("answered");
    assert_eq!(head.headers()["content-length"], "4");
    assert_eq!(head.headers()["x-request-id"].len(), 32);
    for header in ["connection", "transfer-encoding", "keep-alive"] {
        assert!(!head.headers().contains_key(header), "{header}");
    }
    assert_eq!(body(head).await, "");
    let long = get(&client, &format!("/?{}", "x".repeat(20_000))).await;
    assert_eq!(long.status(), 414);
}

#[tokio::test]
async fn a_panic_ends_its_own_stream_with_500() {
    let (server, _) = serving().await;
    let client = connect(&server).await;
    assert_eq!(get(&client, "/panic").await.status(), 500);
    assert_eq!(body(get(&client, "/next").await).await, "/next");
}

#[tokio::test]
async fn a_stream_that_is_not_read_delays_no_other_one() {
    let (server, _) = serving().await;
    let client = connect(&server).await;
    let stalled = get(&client, "/large").await;
    for n in 0..100 {
        let path = format!("/{n}");
        assert_eq!(body(get(&client, &path).await).await, path);
    }
    assert_eq!(body(stalled).await.len(), LARGE, "nor is it lost");
}

#[tokio::test]
async fn what_is_written_into_a_pipe_comes_out_and_a_pipe_that_is_cut_resets_its_stream_only() {
    let (server, mut pipes) = serving().await;
    let client = connect(&server).await;
    let (mut quick, stalled) = (get(&client, "/pipe").await, get(&client, "/pipe").await);
    let (to_quick, to_stalled) = (pipes.recv().await.expect("made"), pipes.recv().await.expect("made"));
    let frame = Bytes::from(vec![b'x'; 10_000]);
    let mut taken = 0;
    // Its window, a chunk in hyper and a chunk in h2 are all that is kept of what nobody reads.
    while to_stalled.push(b"", &frame).expect("it is there") || taken == 0 || taken < 64 * 1024 {
        taken += frame.len();
        to_quick.push(b"", &frame).expect("it is there");
        let mut read = 0;
        while read < frame.len() {
            read += quick.body_mut().frame().await.expect("more").expect("whole").into_data().expect("data").len();
        }
        assert!(taken < 1 << 20, "a stream that stands still takes {taken} bytes");
    }
    to_stalled.cut();
    let error = stalled.into_body().collect().await.expect_err("it was cut");
    assert!(format!("{error:?}").contains("CANCEL"), "{error:?}");
    while !to_stalled.is_gone() {
        tokio::task::yield_now().await;
    }
    to_quick.push(b"the ", &Bytes::from_static(b"end")).expect("it is there");
    drop(to_quick);
    assert_eq!(body(quick).await, "the end");
}

#[tokio::test]
async fn a_client_that_resets_a_stream_or_leaves_is_noticed() {
    let (server, mut pipes) = serving().await;
    let client = connect(&server).await;
    let (reset, left) = (get(&client, "/pipe").await, get(&client, "/pipe").await);
    let pipes = [pipes.recv().await.expect("made"), pipes.recv().await.expect("made")];
    drop(reset);
    while !pipes[0].is_gone() {
        tokio::task::yield_now().await;
    }
    assert!(!pipes[1].is_gone());
    drop((left, client));
    while !pipes[1].is_gone() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn streams_over_the_limit_are_refused_and_the_others_go_on() {
    let (server, mut pipes) = serving().await;
    let mut raw = Raw::connect(&server).await;
    let opened: Vec<u8> = (0..1_100).flat_map(|n| headers(2 * n + 1, "/pipe")).collect();
    raw.0.write_all(&opened).await.expect("taken");
    let mut answers = BTreeMap::new();
    while answers.len() < 1_100 {
        let (kind, stream, payload) = raw.next().await.expect("the connection goes on");
        match kind {
            1 => assert_eq!(answers.insert(stream, "opened"), None),
            3 => {
                assert_eq!(payload, 7_u32.to_be_bytes(), "REFUSED_STREAM: to be repeated elsewhere");
                assert_eq!(answers.insert(stream, "refused"), None);
            }
            _ => {}
        }
    }
    assert_eq!(answers.values().filter(|answer| **answer == "opened").count(), 1_000);
    let first = pipes.recv().await.expect("made");
    first.push(b"", &Bytes::from_static(b"still here")).expect("it is there");
    loop {
        if let (0, _, payload) = raw.next().await.expect("the connection goes on") {
            assert_eq!(payload, b"still here");
            break;
        }
    }
}

#[tokio::test]
async fn who_resets_streams_faster_than_they_can_be_begun_is_cut_off_and_others_are_served() {
    let (server, _) = serving().await;
    let mut raw = Raw::connect(&server).await;
    let mut streams = (0..200_000).map(|n| 2 * n + 1);
    let cut_off = loop {
        let Some(stream) = streams.next() else { break false };
        if raw.0.write_all(&[headers(stream, "/never"), reset(stream)].concat()).await.is_err() {
            break true;
        }
    };
    assert!(cut_off, "two hundred thousand requests are started for nobody");
    assert_eq!(body(get(&connect(&server).await, "/other").await).await, "/other");
}

#[tokio::test]
async fn who_gives_up_nearly_everything_it_asks_for_is_cut_off_however_slowly() {
    let (server, _) = serving().await;
    let mut raw = Raw::connect(&server).await;
    let mut given_up = 0;
    'connected: loop {
        assert!(given_up < 2_000, "it is still served");
        let stream = 2 * given_up + 1;
        // The answer to the ping says that the request has come, so it is begun when it is given up.
        if raw.0.write_all(&[headers(stream, "/never"), frame(6, 0, 0, &[0; 8])].concat()).await.is_err() {
            break;
        }
        loop {
            match raw.next().await {
                Some((6, ..)) => break,
                Some(_) => {}
                None => break 'connected,
            }
        }
        if raw.0.write_all(&reset(stream)).await.is_err() {
            break;
        }
        given_up += 1;
    }
    assert!(given_up >= 500, "a few are nobody's fault, not only {given_up}");
    assert_eq!(body(get(&connect(&server).await, "/other").await).await, "/other");
}

#[tokio::test]
async fn garbage_after_the_preface_ends_its_connection_and_no_other() {
    let (server, _) = serving().await;
    let client = connect(&server).await;
    for garbage in [&[0xff; 64][..], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &frame(0, 0, 0, b"data of no stream")] {
        let mut raw = Raw(TcpStream::connect(server.address).await.expect("listening"));
        raw.0.write_all(&[PREFACE, garbage].concat()).await.expect("taken");
        while raw.next().await.is_some() {}
    }
    let mut raw = Raw::connect(&server).await;
    raw.0.write_all(&frame(1, 0b101, 1, &[0xff; 100])).await.expect("taken"); // No header block.
    while raw.next().await.is_some() {}
    assert_eq!(body(get(&client, "/next").await).await, "/next");
}

#[tokio::test]
async fn a_stopped_server_says_goaway_and_ends_the_streams_that_run() {
    let (server, mut pipes) = serving().await;
    let client = connect(&server).await;
    let mut idle = Raw::connect(&server).await;
    let running = get(&client, "/pipe").await;
    let pipe = pipes.recv().await.expect("made");
    server.stop.cancel();
    let mut kinds = Vec::new();
    while let Some((kind, ..)) = idle.next().await {
        kinds.push(kind);
        if kind == 6 {
            break; // A ping, which a client answers.
        }
    }
    assert!(kinds.contains(&7), "GOAWAY is among {kinds:?}");
    drop(idle);
    pipe.push(b"", &Bytes::from_static(b"last words")).expect("it is there");
    drop(pipe);
    assert_eq!(body(running).await, "last words");
    drop(client);
    server.connections.close();
    server.connections.wait().await;
}

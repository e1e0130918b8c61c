//! Requests are answered whatever they look like, and the server ends when it is told to.

mod kit;

use std::time::Duration;

use fanfare_http::{Reply, Request, read_body, streamed, text};
use http::StatusCode;
use kit::TestServer;
use tokio::sync::oneshot;

async fn answering() -> TestServer {
    TestServer::start(|request: Request, _| async move {
        match request.uri().path() {
            "/panic" => panic!("on purpose"),
            "/body" => match read_body(request.into_body(), 10).await {
                Ok(body) => Reply::Response(text(StatusCode::OK, body)),
                Err(problem) => problem.into(),
            },
            "/id" => Reply::Response(text(StatusCode::OK, request.headers()["x-request-id"].as_bytes().to_vec())),
            path => Reply::Response(text(StatusCode::OK, path.to_owned())),
        }
    })
    .await
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = answering().await;
    let mut client = server.connect().await;
    let requests = (0..50).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: x\r\n\r\n")).collect::<String>();
    client.send(requests).await;
    for n in 0..50 {
        assert_eq!(client.response().await.1, format!("/{n}"));
    }
}

#[tokio::test]
async fn a_panic_is_answered_with_500_and_the_server_goes_on() {
    let server = answering().await;
    let mut client = server.connect().await;
    client.send("GET /panic HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let (head, body) = client.response().await;
    assert!(head.starts_with("http/1.1 500"), "{head}");
    assert!(body.contains("\"code\":\"INTERNAL\"") && !body.contains("on purpose"), "{body}");
    client.send("GET /next HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(client.response().await.1, "/next");
}

#[tokio::test]
async fn every_response_has_the_requests_id_or_a_new_one() {
    let server = answering().await;
    let mut client = server.connect().await;
    client.send("GET /id HTTP/1.1\r\nHost: x\r\nX-Request-Id: abc-1\r\n\r\n").await;
    let (head, body) = client.response().await;
    assert!(head.contains("x-request-id: abc-1\r\n"), "{head}");
    assert_eq!(body, "abc-1");
    client.send("GET /id HTTP/1.1\r\nHost: x\r\nX-Request-Id: a b\r\n\r\n").await;
    let (head, made) = client.response().await;
    assert_eq!(made.len(), 32);
    assert!(head.contains(&format!("x-request-id: {made}\r\n")), "{head}");
}

#[tokio::test]
async fn what_is_no_http_is_answered_with_400_and_closed() {
    let server = answering().await;
    for garbage in ["\0\0\0\0\r\n\r\n", "hello\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n"]
    {
        let mut client = server.connect().await;
        client.send(garbage).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{garbage:?}: {answer:?}");
    }
}

#[tokio::test]
async fn long_urls_and_large_heads_are_refused() {
    let server = answering().await;
    let mut client = server.connect().await;
    client.send(format!("GET /?{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(16 * 1024))).await;
    let (head, body) = client.response().await;
    assert!(head.starts_with("http/1.1 414"), "{head}");
    assert!(body.contains("URI_TOO_LONG"), "{body}");

    let mut client = server.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {}", "x".repeat(80 * 1024))).await;
    let (head, _) = client.response().await;
    assert!(head.starts_with("http/1.1 431"), "{head}");
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused_and_the_client_hears_it() {
    let server = answering().await;
    // Declared: nothing of it is read.
    let mut client = server.connect().await;
    client.send("POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n").await;
    let (head, body) = client.response().await;
    assert!(head.starts_with("http/1.1 413"), "{head}");
    assert!(body.contains("the body may have 10 bytes, this one has 11 bytes"), "{body}");
    // Undeclared: it is read up to its limit. What the client sends meanwhile must not cost it the answer.
    let mut client = server.connect().await;
    client.send("POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..100 {
        client.send(format!("400\r\n{}\r\n", "x".repeat(1024))).await;
    }
    let (head, body) = client.response().await;
    assert!(head.starts_with("http/1.1 413"), "{head}");
    assert!(body.contains("PAYLOAD_TOO_LARGE"), "{body}");
}

#[tokio::test]
async fn a_body_within_its_limit_is_read_however_it_comes() {
    let server = answering().await;
    let mut client = server.connect().await;
    client.send("POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234").await;
    tokio::task::yield_now().await;
    client.send("56789").await;
    assert_eq!(client.response().await.1, "0123456789");
    client
        .send("POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        .await;
    assert_eq!(client.response().await.1, "abcde");
    client.send("POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("ok").await;
    assert_eq!(client.response().await.1, "ok");
}

#[tokio::test]
async fn head_has_no_body() {
    let server = answering().await;
    let mut client = server.connect().await;
    client.send("HEAD /abc HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let answer = client.rest().await;
    assert!(answer.contains("content-length: 4\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_stopped_server_accepts_nobody_and_ends_what_runs() {
    let (finish, finished) = oneshot::channel::<()>();
    let finished = std::sync::Mutex::new(Some(finished));
    let (began, running) = oneshot::channel();
    let began = std::sync::Mutex::new(Some(began));
    let server = TestServer::start(move |request: Request, _| {
        let slow = (request.uri().path() == "/slow").then(|| {
            _ = began.lock().expect("whole").take().expect("one slow request").send(());
            finished.lock().expect("whole").take().expect("one slow request")
        });
        async move {
            if let Some(finished) = slow {
                finished.await.expect("told");
            }
            Reply::Response(text(StatusCode::OK, "done"))
        }
    })
    .await;
    let mut idle = server.connect().await;
    idle.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(idle.response().await.1, "done");
    let mut silent = server.connect().await;
    let mut slow = server.connect().await;
    slow.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    running.await.expect("asked");

    server.stop.cancel();
    server.accepting.await.expect("it ends in good order");
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err());
    assert_eq!(idle.rest().await, "", "an idle connection is closed at once");
    assert_eq!(silent.rest().await, "", "and so is one that never asked anything");
    server.connections.close();
    assert!(!server.connections.is_empty());
    finish.send(()).expect("awaited");
    let answer = slow.rest().await;
    assert!(answer.ends_with("done"), "{answer}");
    drop((idle, silent, slow));
    server.connections.wait().await;
}

#[tokio::test]
async fn a_streamed_body_goes_out_piece_by_piece() {
    let server = TestServer::start(|_, _| async {
        let pieces = futures_util::stream::unfold(0, |n| async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            (n < 3).then(|| (format!("piece {n}\n").into(), n + 1))
        });
        Reply::Response(fanfare_http::Response::new(streamed(pieces)))
    })
    .await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    for n in 0..3 {
        client.until(&format!("piece {n}\n")).await;
    }
    client.until("0\r\n\r\n").await;
}

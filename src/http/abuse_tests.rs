//! What only an attacker sends: it costs little, and is never taken for something else.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    Limits,
    testkit::{Reply, Server},
};

/// Between two bytes of a client that goes on, slowly.
const TRICKLE: Duration = Duration::from_millis(5);

/// What comes until the connection ends, in whichever way.
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut answer = Vec::new();
    while matches!(stream.read_buf(&mut answer).await, Ok(1..)) {}
    answer
}

/// Sends `head`, and then a byte now and then for as long as anybody listens.
async fn trickle(server: &Server, head: &str, byte: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut from, mut to) = stream.split();
    let sending = async {
        while to.write_all(byte).await.is_ok() {
            tokio::time::sleep(TRICKLE).await;
        }
        std::future::pending().await
    };
    tokio::select! {
        answer = rest(&mut from) => answer,
        () = sending => unreachable!("it ends with the answer"),
    }
}

#[test]
fn a_client_that_trickles_is_cut_off_although_it_goes_on() {
    let patience = Duration::from_millis(100);
    let limits = Limits { head_timeout: patience, body_timeout: patience, ..Limits::default() };
    Server::run_with(limits, None, |server| async move {
        let head = trickle(&server, "GET /healthz HTTP/1.1\r\nhost: t\r\nx: ", b"x").await;
        assert_eq!(head, b"", "half a head is told nothing");
        let body = "POST /v1/events HTTP/1.1\r\nhost: t\r\ncontent-length: 1000000\r\n\r\n";
        assert_eq!(Reply::parse(&trickle(&server, body, b" ").await).status, 408);
        let chunks = "POST /v1/events HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(Reply::parse(&trickle(&server, chunks, b"1\r\n \r\n").await).status, 408);
        assert_eq!(server.ingest.entries.lock().unwrap().len(), 0);
    });
}

#[test]
fn a_request_that_can_be_read_in_two_ways_is_refused_and_nothing_of_it_is_logged() {
    let post = |headers: &str, body: &str| format!("POST /v1/events HTTP/1.1\r\nhost: t\r\n{headers}\r\n{body}");
    // What would be a second request is a part of the first, or nothing.
    let smuggled = "POST /v1/events HTTP/1.1\r\nhost: t\r\ncontent-length: 16\r\n\r\n{\"video_id\":\"s\"}";
    let rows = [
        post("content-length: 2\r\ncontent-length: 3\r\n", "[]\n"),
        post("content-length: -1\r\n", "[]"),
        post("content-length: 99999999999999999999\r\n", "[]"),
        post("transfer-encoding: gzip\r\n", "[]"),
        post("transfer-encoding: chunked, identity\r\n", "0\r\n\r\n"),
        post("transfer-encoding: chunked\r\n", "fffffffffffffffff\r\n[]\r\n0\r\n\r\n"),
        post("transfer-encoding: chunked\r\n", "-2\r\n[]\r\n0\r\n\r\n"),
        post("transfer-encoding: chunked\r\n", &format!("2;{}\r\n[]\r\n0\r\n\r\n", "x".repeat(100_000))),
        post("content-length : 2\r\n", "[]"),
        format!("GET /healthz HTTP/1.1\r\nhost: t\r\n folded: x\r\n\r\n{smuggled}"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        format!("GET /healthz HTTP/9.9\r\nhost: t\r\n\r\n{smuggled}"),
        "\0\u{1}\u{2}\u{3}\r\n\r\n".to_owned(),
        format!("{}\r\n\r\n", "x".repeat(100_000)),
    ];
    Server::run(|server| async move {
        for request in rows {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            // It may be refused before all is sent.
            let _ = stream.write_all(request.as_bytes()).await;
            let answer = rest(&mut stream).await;
            let shown = String::from_utf8_lossy(&answer);
            let status = shown.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
            let refused = status.is_none_or(|status| (400..=505).contains(&status));
            assert!(
                refused && shown.matches("HTTP/1.1 ").count() <= 1,
                "{shown}\nto {:?}",
                &request[..request.len().min(200)]
            );
        }
        assert_eq!(server.ingest.entries.lock().unwrap().len(), 0);
        assert_eq!(server.get("/healthz").await.status, 200);
    });
}

#[test]
fn a_body_with_both_lengths_ends_with_its_last_chunk() {
    let event = "{\"video_id\":\"a\"}";
    let smuggled = "POST /v1/events HTTP/1.1\r\nhost: t\r\ncontent-length: 16\r\n\r\n{\"video_id\":\"s\"}";
    let chunked = format!("{:x}\r\n{event}\r\n0\r\n\r\n", event.len());
    let length = chunked.len() + smuggled.len();
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    Server::run(|server| async move {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(format!("{head}{chunked}{smuggled}").as_bytes()).await.unwrap();
        let answer = String::from_utf8(rest(&mut stream).await).unwrap();
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        let appended = server.ingest.entries.lock().unwrap();
        assert!(appended.iter().all(|entry| entry.key == "a"), "{appended:?}");
    });
}

#[test]
fn no_path_leads_to_something_else_than_it_says() {
    Server::run(|server| async move {
        for path in [
            "/v1/../healthz",
            "/./healthz",
            "//healthz",
            "/healthz%00",
            "/%2e%2e/healthz",
            "/v1/videos/../../healthz",
            "/HEALTHZ",
            "/v1/videos/a%2f..%2f../stats",
        ] {
            let reply = server.get(path).await;
            assert_ne!(reply.body, "ok", "{path}");
            assert!((400..=503).contains(&reply.status), "{path}: {reply:?}");
        }
        assert_eq!(server.get("/v1/videos/a%00b/stats").await.status, 400);
    });
}

#[test]
fn ten_thousand_requests_in_one_breath_are_answered_in_order() {
    const REQUESTS: usize = 10_000;
    Server::run(|server| async move {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let mut requests = "GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n".repeat(REQUESTS - 1);
        requests += "GET /nowhere HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
        let (mut from, mut to) = stream.split();
        let (written, answers) = tokio::join!(to.write_all(requests.as_bytes()), rest(&mut from));
        written.unwrap();
        let answers = String::from_utf8(answers).unwrap();
        let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        assert_eq!(statuses.len(), REQUESTS);
        assert!(statuses[..REQUESTS - 1].iter().all(|status| *status == "200") && statuses[REQUESTS - 1] == "404");
    });
}

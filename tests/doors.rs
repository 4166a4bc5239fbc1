//! Clients that ask for too much, of a whole job: it turns them away, and counts on.

#![allow(clippy::unwrap_used)]

mod live_support;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    thread,
    time::Duration,
};

use live_support::{SOON, Server, client::event, stage::Stage, wait_for};

/// The server's sockets.
fn sockets(server: &Server) -> usize {
    let folder = Path::new("/proc").join(server.pid().to_string()).join("fd");
    let links = std::fs::read_dir(folder).unwrap().filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

fn connect(server: &Server) -> TcpStream {
    let address: SocketAddr = server.client.base.strip_prefix("http://").unwrap().parse().unwrap();
    TcpStream::connect(address).unwrap()
}

#[test]
fn with_few_descriptors_connections_are_shed_and_log_state_and_counts_go_on() {
    const DESCRIPTORS: usize = 64;
    const IDLE: usize = 300;
    let mut stage = Stage::new();
    let limited = format!("ulimit -n {DESCRIPTORS}; exec \"$@\"");
    let server = stage.run().under(&["bash", "-c", &limited, "limited"]).start();
    stage.send_over_checkpoints(&server, 1);
    let idle: Vec<TcpStream> = (0..IDLE).map(|_| connect(&server)).collect();
    let shed = wait_for("a newcomer is told that there are too many", SOON, || {
        let answer = server.client.another().get("/healthz").ok()?;
        (answer.status == 503).then_some(answer.text)
    });
    assert!(shed.contains("urn:tidemark:connections"), "{shed}");
    // Who is in stays in.
    stage.send_over_checkpoints(&server, 5);
    assert!(server.client.is_ready(), "{}", server.client.get("/readyz").unwrap().text);
    assert!(server.stderr().contains("leaves room for fewer connections"));
    drop(idle);
    wait_for("a newcomer is let in", SOON, || {
        let answer = server.client.another().get("/healthz").ok()?;
        (answer.status == 200).then_some(())
    });
    stage.assert_exact(server);
}

/// So many windows of one video: an answer of more than 100 KB.
const WINDOWS: u64 = 2_000;

/// More than all buffers on the way hold.
const ANSWERS: usize = 300;

const SLOW_CLIENTS: usize = 10;

/// So slow that no buffer on the way has room again within the patience of a write.
const BETWEEN_BYTES: Duration = Duration::from_millis(50);

#[test]
fn clients_that_read_a_byte_at_a_time_are_cut_off_and_counting_goes_on() {
    let mut stage = Stage::new();
    stage.environment.push(("TIDEMARK_HTTP__LIMITS__WRITE".to_owned(), "1s".to_owned()));
    let server = stage.run().start();
    let first = stage.start_ms - WINDOWS * 60_000;
    let events: Vec<String> =
        (0..WINDOWS).map(|n| event(&format!("w{n}"), &stage.videos[0], "view", first + n * 60_000)).collect();
    let mut token = String::new();
    for events in events.chunks(1_000) {
        token = server.client.send(events);
    }
    let answer = server.client.stats(&stage.videos[0], &format!("after={token}"));
    let length = answer.text.len();
    assert_eq!(answer.expect(200)["total"], WINDOWS);

    let before = sockets(&server);
    let request = format!("GET /v1/videos/{}/stats HTTP/1.1\r\nhost: t\r\n\r\n", stage.videos[0]);
    let mut slow: Vec<TcpStream> = (0..SLOW_CLIENTS).map(|_| connect(&server)).collect();
    for client in &mut slow {
        client.write_all(request.repeat(ANSWERS).as_bytes()).unwrap();
    }
    wait_for("they are let in", SOON, || (before + SLOW_CLIENTS <= sockets(&server)).then_some(()));
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            // A byte of each at a time, until the server has no more of them.
            while before + 2 < sockets(&server) {
                slow.iter_mut().for_each(|client| drop(client.read(&mut [0])));
                thread::sleep(BETWEEN_BYTES);
            }
        });
        stage.send_over_checkpoints(&server, 3);
        assert!(server.client.is_ready());
        reading.join().unwrap();
    });
    for client in &mut slow {
        let mut rest = Vec::new();
        // It may end by a reset.
        let _ = client.read_to_end(&mut rest);
        assert!(rest.len() < ANSWERS * length, "it has got everything");
    }
    stage.assert_exact(server);
}

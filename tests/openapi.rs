//! The document at /openapi.json against the running process, by a third hand: schemathesis draws requests from it, good and bad.

#![allow(clippy::unwrap_used)]

mod live_support;

use std::path::Path;

use live_support::{
    Run, SOON,
    client::{event, video_of_each},
    now_ms,
};

/// Requests for each operation, in each of its phases that draws.
const EXAMPLES: &str = "40";

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

#[test]
fn schemathesis_finds_no_answer_that_the_document_does_not_have() {
    let folder = tempfile::tempdir().unwrap();
    // What is drawn as a token mostly names writes that never were, and each of those is waited for.
    let run = Run::new(&folder.path().join("data")).env("TIDEMARK_HTTP__LIMITS__AFTER_WAIT", "20ms");
    let server = run.start();
    let now = now_ms();
    let events: Vec<_> = video_of_each(4).iter().map(|video| event("e", video, "view", now)).collect();
    server.client.send(&events);
    server.client.wait_until_visible(&[1; 4], SOON);

    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi/schemathesis.toml");
    let document = format!("{}/openapi.json", server.client.base);
    let arguments = [
        &["--config-file", config.to_str().unwrap(), "--no-color"][..],
        &["run", &document, "--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--mode", "all"],
        // A stream has no end: src/http/stream_tests.rs reads it.
        &["--exclude-path", "/v1/stream"],
        &["--max-examples", EXAMPLES, "--seed", "7", "--continue-on-failure", "--generation-database", "none"],
    ];
    let said = servers::tool("schemathesis", arguments.concat(), "");
    println!("{said}");
    // Less the stream, and the document itself, which schemathesis reads anyway.
    let operations = server.client.get("/openapi.json").unwrap().expect(200)["paths"].as_object().unwrap().len() - 2;
    let tested = format!("Tested: {operations}");
    assert!(said.contains(&tested), "not all {operations} operations were tested:\n{said}");
    server.stop().expect(0, &[]);
}

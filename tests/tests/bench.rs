//! `rootcellar bench server` measures, tells what it found, and tells what failed.

#![allow(clippy::unwrap_used)]

use std::fs;

use rootcellar_tests::{CommandLine, Server, ServerProgram, need};
use serde_json::Value;

fn number(report: &Value, workload: &str, candidate: &str, measure: &str) -> Option<f64> {
    let is_it = |sample: &&Value| {
        sample["workload"] == workload && sample["candidate"] == candidate && sample["measure"] == measure
    };
    report["samples"].as_array()?.iter().find(is_it)?["value"].as_f64()
}

#[test]
fn a_server_is_measured_beside_one_that_keeps_nothing() {
    let Some(program) = need(ServerProgram::find()) else {
        return;
    };
    let client = CommandLine::without_server(&program);
    let (json, html) = (client.path("report.json"), client.path("report.html"));
    let dir = client.path("stores");
    let finished = client.run(&[
        "bench",
        "server",
        "--start",
        "--bare",
        "--quick",
        "--only",
        "batch-update",
        "--only",
        "stream-read",
        "--only",
        "find-missing",
        "--only",
        "trace",
        "--dir",
        dir.to_str().unwrap(),
        "--json",
        json.to_str().unwrap(),
        "--html",
        html.to_str().unwrap(),
    ]);
    finished.expect_success().expect_text("bare: not offered");

    let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    for workload in ["batch-update", "stream-read", "find-missing", "trace"] {
        assert!(number(&report, workload, "ours", "rate").unwrap() > 0.0, "{report:#}");
        let quantile = |name: &str| number(&report, workload, "ours", &format!("latency, {name}")).unwrap();
        assert!(quantile("p50") <= quantile("p99") && quantile("p99") <= quantile("max"));
        assert!(number(&report, workload, "ours", "CPU of the server").is_some());
    }
    assert!(number(&report, "batch-update", "bare", "rate").unwrap() > 0.0);
    assert_eq!(number(&report, "find-missing", "bare", "rate"), None);
    let questions = report["figures"].as_array().unwrap();
    assert!(
        questions
            .iter()
            .any(|figure| figure["question"].as_str().unwrap().contains("bare / ours"))
    );
    assert!(fs::read_to_string(html).unwrap().contains("<svg"));
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0, "what was made there is removed");
}

#[test]
fn a_server_that_does_not_answer_is_a_failure_and_not_a_figure() {
    let Some(program) = need(ServerProgram::find()) else {
        return;
    };
    let server = Server::start(&program);
    let client = CommandLine::new(&program, &server);
    let url = server.url();
    drop(server);
    let bench = ["bench", "server", "--endpoint", &url, "--quick", "--only", "ac-get"];
    client.run(&bench).expect_failure().expect_text("UNAVAILABLE");
    client.run(&["bench", "server"]).expect_failure().expect_text("--start");
    client
        .run(&["bench", "server", "--start", "--only", "everything"])
        .expect_failure()
        .expect_text("batch-update");
}

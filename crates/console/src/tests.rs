//! The server over loopback, spoken to byte by byte.

use std::sync::Arc;

use base::env::{Env, Stream};
use base::metrics::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Health, Node, Server};

struct Fixed(Health);

impl Node for Fixed {
    fn health(&self) -> Health {
        self.0.clone()
    }

    fn status(&self) -> serde_json::Value {
        serde_json::json!({ "node_id": 7 })
    }

    fn metrics(&self) -> Metrics {
        Metrics::default()
    }
}

async fn start(health: Health) -> (Env, Server) {
    let env = Env::os();
    let address = "127.0.0.1:0".parse().unwrap();
    let server = Server::start(&env, address, Arc::new(Fixed(health))).await.unwrap();
    (env, server)
}

async fn connect(env: &Env, server: &Server) -> Box<dyn Stream> {
    env.network.connect(&server.address().to_string()).await.unwrap()
}

async fn ask(health: Health, request_line: &str) -> String {
    let (env, server) = start(health).await;
    let mut stream = connect(&env, &server).await;
    let request = format!("{request_line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn each_path_answers_in_its_form() {
    let page = ask(Health::Serving, "GET /").await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("<title>Vltava</title>"), "{page}");
    assert!(page.contains("content-security-policy: default-src 'none'"), "{page}");
    let status = ask(Health::Serving, "GET /status").await;
    assert!(status.contains("application/json") && status.ends_with(r#"{"node_id":7}"#), "{status}");
    let metrics = ask(Health::Serving, "GET /metrics").await;
    assert!(metrics.contains(Metrics::CONTENT_TYPE) && metrics.ends_with("# EOF\n"), "{metrics}");
    assert!(ask(Health::Serving, "GET /nothing").await.starts_with("HTTP/1.1 404"));
    assert!(ask(Health::Serving, "POST /status").await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn health_is_told_by_status_code_and_reason() {
    assert!(ask(Health::Serving, "GET /healthz").await.starts_with("HTTP/1.1 200"));
    let ill = ask(Health::NotServing("a directory failed".to_owned()), "GET /healthz").await;
    assert!(ill.starts_with("HTTP/1.1 503") && ill.ends_with("not serving: a directory failed\n"), "{ill}");
}

#[tokio::test]
async fn a_silent_client_does_not_hold_up_the_end() {
    let (env, server) = start(Health::Serving).await;
    let mut silent = connect(&env, &server).await;
    silent.write_all(b"GET /status HTTP/1.1\r\n").await.unwrap();
    let address = server.address().to_string();
    server.stop().await;
    // The port is free again once the task is gone.
    while env.network.connect(&address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

//! The server and what it asks of the node.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::get;
use axum::{Router, middleware};
use base::env::Env;
use base::metrics::Metrics;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::listener::{BoundedListener, CONNECTIONS_MAX};
use crate::page::PAGE;

/// Whether a node can serve clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Serving,
    /// It cannot now, for this reason, one sentence without the point.
    NotServing(String),
}

/// What is shown of a node. Calls must be quick and must not block.
pub trait Node: Send + Sync + 'static {
    /// Whether it can serve clients.
    fn health(&self) -> Health;
    /// What it is and does, as a JSON object. The names in it are for programs and keep their meaning.
    fn status(&self) -> serde_json::Value;
    /// Its metrics.
    fn metrics(&self) -> Metrics;
}

/// A running HTTP server; ends when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens on an address and serves what the node says.
    pub async fn start(env: &Env, address: SocketAddr, node: Arc<dyn Node>) -> io::Result<Server> {
        let inner = env.network.listen(address).await?;
        let address = inner.local_address()?;
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let listener = BoundedListener { inner, env: env.clone(), places };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let until_stopped = async { drop(stopped.await) };
            let served = axum::serve(listener, routes(node)).with_graceful_shutdown(until_stopped).await;
            if let Err(error) = served {
                tracing::error!(%error, "the HTTP server ended");
            }
        });
        Ok(Server { address, stop: Some(stop), task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests and cuts what is left, so that a client that never hangs up does not hold
    /// up the end of the process.
    pub async fn stop(mut self) {
        // The task may have ended by itself.
        let _ = self.stop.take().map(|stop| stop.send(()));
        self.task.abort();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn routes(node: Arc<dyn Node>) -> Router {
    Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/status", get(async |State(node): State<Arc<dyn Node>>| Json(node.status())))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .fallback(async || (StatusCode::NOT_FOUND, "There are /, /status, /healthz and /metrics.\n"))
        .layer(middleware::map_response(with_headers))
        .with_state(node)
}

async fn healthz(State(node): State<Arc<dyn Node>>) -> Response {
    match node.health() {
        Health::Serving => (StatusCode::OK, "ok\n").into_response(),
        Health::NotServing(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not serving: {reason}\n")).into_response()
        }
    }
}

async fn metrics(State(node): State<Arc<dyn Node>>) -> Response {
    ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], node.metrics().render()).into_response()
}

/// Nothing here may be cached, framed, or made to load things from elsewhere.
async fn with_headers(mut response: Response) -> Response {
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                          connect-src 'self'; frame-ancestors 'none'";
    let fixed: [(HeaderName, &'static str); 3] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, header::HeaderValue::from_static(value));
    }
    response
}

//! The admin listener: metrics, health, status and control over HTTP, for operators and their machines.
//!
//! It stands on the control runtime: a slow scrape never holds a worker up.

mod body;
mod caches;
mod endpoints;
mod explain;
mod metrics;
mod purge;
mod respond;
mod shadow;
mod status;
mod sticky;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use self::respond::{Response, error, json, text};
use crate::control::{Operator, Rejected, ReloadRequest};
use crate::net::socket::Bound;

/// Connections at once; more wait in the kernel.
const MAX_CONNECTIONS: usize = 64;
/// For a request's head, and between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// For a whole connection: nobody needs the admin listener for longer, and a stuck reader goes.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(600);
/// For a reload to end; host names are resolved meanwhile.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Without descriptors nothing can be accepted: time for connections to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves on whatever socket control sends last; `None`: on none.
pub fn start(operator: Operator, sockets: mpsc::UnboundedReceiver<Option<Bound>>) {
    tokio::spawn(serve(Arc::new(operator), sockets));
}

async fn serve(operator: Arc<Operator>, mut sockets: mpsc::UnboundedReceiver<Option<Bound>>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut socket: Option<Socket> = None;
    loop {
        tokio::select! {
            told = sockets.recv() => match told {
                None => return,
                Some(bound) => socket = bound.and_then(Socket::of),
            },
            () = accept(socket.as_ref(), &places, &operator) => {}
        }
    }
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Socket {
    fn of(bound: Bound) -> Option<Self> {
        let socket = match bound {
            Bound::Tcp(listener) => TcpListener::from_std(listener).map(Self::Tcp),
            Bound::Unix(listener) => UnixListener::from_std(listener).map(Self::Unix),
        };
        socket
            .inspect_err(|error| tracing::error!(%error, "the admin listener cannot be served"))
            .ok()
    }
}

/// Takes one connection, once there is a place for it, and serves it in a task of its own.
async fn accept(socket: Option<&Socket>, places: &Arc<Semaphore>, operator: &Arc<Operator>) {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    let Ok(permit) = places.clone().acquire_owned().await else {
        return;
    };
    let accepted = match socket {
        Socket::Tcp(listener) => listener
            .accept()
            .await
            .map(|(io, _)| drop(tokio::spawn(connection(io, permit, operator.clone())))),
        Socket::Unix(listener) => listener
            .accept()
            .await
            .map(|(io, _)| drop(tokio::spawn(connection(io, permit, operator.clone())))),
    };
    if let Err(error) = accepted {
        tracing::warn!(%error, "the admin listener cannot accept");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

async fn connection<S>(io: S, permit: OwnedSemaphorePermit, operator: Arc<Operator>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(|request| {
        let operator = operator.clone();
        async move { Ok::<_, Infallible>(answer(&operator, request).await) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(32 << 10)
        .serve_connection(TokioIo::new(io), service);
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIMEOUT, serving).await {
        tracing::debug!(%error, "an admin connection failed");
    }
    drop(permit);
}

/// Every path there is, with what may be done to it.
async fn answer(operator: &Operator, request: Request<Incoming>) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        "/metrics" if reads => metrics::response(operator),
        "/healthz" if reads => text(StatusCode::OK, "ok\n"),
        "/readyz" if reads => readiness(operator),
        "/api/v1/status" if reads => json(StatusCode::OK, &status::of(operator)),
        "/api/v1/reload" if request.method() == Method::POST => {
            if comes_from_a_page(&request) {
                return error(StatusCode::FORBIDDEN, "a web page may not control evenkeel");
            }
            reload(operator).await
        }
        path if path.starts_with(endpoints::PREFIX) => {
            let orders = request.method() == Method::POST;
            if orders && comes_from_a_page(&request) {
                return error(StatusCode::FORBIDDEN, "a web page may not control evenkeel");
            }
            endpoints::answer(operator, orders, reads, path, request.uri().query())
        }
        "/api/v1/purge" if request.method() == Method::POST => {
            if comes_from_a_page(&request) {
                return error(StatusCode::FORBIDDEN, "a web page may not control evenkeel");
            }
            purge::answer(operator, request).await
        }
        "/api/v1/explain" if request.method() == Method::POST => explain::answer(operator, request).await,
        "/metrics" | "/healthz" | "/readyz" | "/api/v1/status" => respond::not_allowed("GET, HEAD"),
        "/api/v1/reload" | "/api/v1/purge" | "/api/v1/explain" => respond::not_allowed("POST"),
        "/" if reads => text(
            StatusCode::OK,
            "evenkeel admin\n\nGET  /metrics\nGET  /healthz\nGET  /readyz\nGET  /api/v1/status\nPOST /api/v1/reload\nPOST /api/v1/purge\n\
             POST /api/v1/explain\n\
             GET  /api/v1/upstreams/NAME/endpoints/ADDRESS\n\
             POST /api/v1/upstreams/NAME/endpoints/ADDRESS/ORDER (drain, undrain, disable, enable, weight?value=N, reset)\n",
        ),
        _ => error(StatusCode::NOT_FOUND, "there is nothing here"),
    }
}

fn readiness(operator: &Operator) -> Response {
    if operator.status.is_ready() {
        text(StatusCode::OK, "ready\n")
    } else if operator.status.is_draining() {
        text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "starting\n")
    }
}

/// Browsers add these fields and pages cannot remove them: no page the operator has open may send commands.
fn comes_from_a_page(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    headers.contains_key(header::ORIGIN) || headers.get("sec-fetch-site").is_some_and(|site| site != "none")
}

async fn reload(operator: &Operator) -> Response {
    if operator.status.is_draining() {
        return error(StatusCode::SERVICE_UNAVAILABLE, "the process is about to end");
    }
    let (answer, answered) = oneshot::channel();
    if operator.reload.try_send(ReloadRequest { answer }).is_err() {
        return error(StatusCode::SERVICE_UNAVAILABLE, "too many reloads are waiting");
    }
    match tokio::time::timeout(RELOAD_TIMEOUT, answered).await {
        Ok(Ok(Ok(changes))) => json(
            StatusCode::OK,
            &serde_json::json!({
                "result": "accepted",
                "generation": operator.current.get().generation,
                "changes": changes,
            }),
        ),
        Ok(Ok(Err(Rejected { errors, .. }))) => json(
            StatusCode::UNPROCESSABLE_ENTITY,
            &serde_json::json!({ "result": "rejected", "errors": errors }),
        ),
        Ok(Err(_)) => error(StatusCode::SERVICE_UNAVAILABLE, "the process is about to end"),
        Err(_) => error(StatusCode::GATEWAY_TIMEOUT, "the reload is still under way"),
    }
}

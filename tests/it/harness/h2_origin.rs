//! An HTTP/2 origin that echoes: messages as they come, then trailers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

/// Runs on a thread of its own until the test ends.
pub struct H2Origin {
    pub addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl H2Origin {
    /// By prior knowledge, or over TLS.
    pub fn start(tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        Self::with(tls, Arc::new(|_: &Request<RecvStream>| None))
    }

    /// By prior knowledge; answers with what `answer` says, without a body.
    pub fn answering(answer: impl Fn(&Request<RecvStream>) -> Response<()> + Send + Sync + 'static) -> Self {
        Self::with(
            None,
            Arc::new(move |request: &Request<RecvStream>| Some(answer(request))),
        )
    }

    fn with(tls: Option<Arc<rustls::ServerConfig>>, answer: Answer) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = accepted.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                loop {
                    let (tcp, _) = listener.accept().await.unwrap();
                    counter.fetch_add(1, Relaxed);
                    let answer = answer.clone();
                    match tls.clone() {
                        None => drop(tokio::spawn(serve(tcp, answer))),
                        Some(config) => drop(tokio::spawn(async move {
                            if let Ok(tls) = tokio_rustls::TlsAcceptor::from(config).accept(tcp).await {
                                serve(tls, answer).await;
                            }
                        })),
                    }
                }
            });
        });
        Self { addr, accepted }
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Relaxed)
    }
}

async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, answer: Answer) {
    let Ok(mut connection) = h2::server::handshake(io).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        match answer(&request) {
            None => drop(tokio::spawn(echo(request, respond))),
            Some(response) => {
                // The body is read first, as an endpoint does that fails after some work.
                drop(tokio::spawn(refuse(request, respond, response)));
            }
        }
    }
}

/// What to answer without a body; `None`: an echo.
type Answer = Arc<dyn Fn(&Request<RecvStream>) -> Option<Response<()>> + Send + Sync>;

async fn refuse(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, response: Response<()>) -> Option<()> {
    let mut body = request.into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data.ok()?.len()).ok()?;
    }
    respond.send_response(response, true).ok().map(|_| ())
}

/// `None` when the other side has had enough.
async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Option<()> {
    let te = request.headers().get("te").cloned();
    let mut response = Response::new(());
    response
        .headers_mut()
        .insert("x-te", te.unwrap_or_else(|| "none".parse().unwrap()));
    let mut sending = respond.send_response(response, false).ok()?;
    let mut receiving = request.into_body();
    while let Some(data) = receiving.data().await {
        let data = data.ok()?;
        receiving.flow_control().release_capacity(data.len()).ok()?;
        if !data.is_empty() {
            sending.send_data(data, false).ok()?;
        }
    }
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    sending.send_trailers(trailers).ok()
}

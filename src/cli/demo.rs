//! `evenkeel demo`: a proxy with origins built in, and what to try with it.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::{Log, complain, say};
use crate::admin;
use crate::control::{self, Source, Start};

const ORIGINS: usize = 3;

#[derive(Debug, Args)]
pub struct Options {
    /// Where the proxy listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    from: String,
    /// Where the admin listener is.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9900")]
    admin: String,
    #[command(flatten)]
    log: Log,
}

pub fn demo(options: Options) -> ExitCode {
    let origins: Result<Vec<SocketAddr>, _> = (1..=ORIGINS).map(origin).collect();
    let origins = match origins {
        Ok(origins) => origins,
        Err(error) => {
            complain(format_args!("evenkeel: the demo's origins cannot start: {error}\n"));
            return ExitCode::FAILURE;
        }
    };
    let text = configuration(&options, &origins);
    say(introduction(&options, &text));
    control::run(Start {
        source: Source::Text {
            name: "the demo".to_owned(),
            text,
        },
        log: options.log.into(),
        admin: admin::start,
    })
}

fn configuration(options: &Options, origins: &[SocketAddr]) -> String {
    let endpoints: Vec<_> = origins.iter().map(|addr| format!("\"{addr}\"")).collect();
    format!(
        r#"[admin]
bind = "{admin}"

[access_log]
format = "text"

[listeners.demo]
bind = "{from}"

[[routes]]
name = "site"
upstream = "origins"

[[routes]]
name = "robots"
path_exact = "/robots.txt"
respond = {{ status = 200, body = "User-agent: *\nDisallow:\n", headers = {{ content-type = "text/plain" }} }}

[[routes]]
name = "moved"
path_exact = "/old"
redirect = {{ to = "/", status = 308 }}

[upstreams.origins]
endpoints = [{endpoints}]

[upstreams.origins.health]
http = "/health"
interval = "2s"
"#,
        admin = options.admin,
        from = options.from,
        endpoints = endpoints.join(", "),
    )
}

fn introduction(options: &Options, text: &str) -> String {
    let (from, admin) = (&options.from, &options.admin);
    let indented: String = text.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "evenkeel demo: {ORIGINS} origins behind a proxy on http://{from}, with this configuration:\n\n{indented}\n\
         Try, in another terminal:\n\
         \n    curl http://{from}/                       a few times: different origins answer\
         \n    curl -i http://{from}/old                 a redirect\
         \n    curl http://{from}/robots.txt             a response without any origin\
         \n    curl 'http://{from}/?wait=2s'             a slow answer\
         \n    curl http://{admin}/api/v1/status          what is running, as JSON\
         \n    curl http://{admin}/metrics                what Prometheus reads\
         \n\nCtrl-C drains and ends. The access log follows.\n\n"
    )
}

/// Starts an origin on a thread of its own, as servers in front of which one balances are separate too.
fn origin(number: usize) -> std::io::Result<SocketAddr> {
    let socket = TcpListener::bind(("127.0.0.1", 0))?;
    socket.set_nonblocking(true)?;
    let addr = socket.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name(format!("origin-{number}"))
        .spawn(move || runtime.block_on(serve(number, socket)))?;
    Ok(addr)
}

async fn serve(number: usize, socket: TcpListener) {
    let Ok(socket) = tokio::net::TcpListener::from_std(socket) else {
        return;
    };
    loop {
        let Ok((io, _)) = socket.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(number, request));
            let serving = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(io), service);
            // The proxy closes connections when it likes to.
            let _ = serving.await;
        });
    }
}

/// Says who answered and what came; `?wait=2s` takes its time.
async fn answer(number: usize, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if let Some(wait) = request.uri().query().and_then(wait) {
        tokio::time::sleep(wait).await;
    }
    let mut text = format!(
        "Hello from origin {number}.\n\n{} {}\n",
        request.method(),
        request.uri()
    );
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    let mut response = Response::new(Full::new(Bytes::from(text)));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    Ok(response)
}

/// Whole seconds up to 30.
fn wait(query: &str) -> Option<Duration> {
    let seconds: u64 = query.strip_prefix("wait=")?.trim_end_matches('s').parse().ok()?;
    Some(Duration::from_secs(seconds.min(30)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn the_demo_is_a_valid_configuration() {
        let options = Options {
            from: "127.0.0.1:8080".into(),
            admin: "127.0.0.1:9900".into(),
            log: Log {
                level: None,
                format: None,
            },
        };
        let text = configuration(&options, &[([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into()]);
        let loaded = config::load_text("the demo", &text).unwrap_or_else(|report| panic!("{text}\n{report}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    }

    #[test]
    fn waits_are_bounded() {
        assert_eq!(wait("wait=2s"), Some(Duration::from_secs(2)));
        assert_eq!(wait("wait=999"), Some(Duration::from_secs(30)));
        assert_eq!((wait("a=1"), wait("wait=-1")), (None, None));
    }
}

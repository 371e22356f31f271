//! Kubernetes: the pods behind a service, by listing and watching its EndpointSlices through the API.

mod slices;

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::AUTHORIZATION;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use self::slices::{Slices, Told};
use super::api::{self, Tls, Url, credentials};
use super::dns::Resolver;
use super::feed::{self, Feed, Report, Teller};
use super::{Answer, Listed, MIN_WAIT, Start, back_off, jittered};
use crate::base::rng::Rng;
use crate::base::secret::Secret;
use crate::tls::{ClientSpec, load};

/// Where a pod finds its service account's.
pub const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
pub const CA_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
pub const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// To the head of an answer, and from there to the end of a page.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a watch lasts, up to a tenth less at random; then it begins anew where it was, by a connection that works.
const WATCH: Duration = Duration::from_secs(240);
/// And how much later than that its end is awaited.
const GRACE: Duration = Duration::from_secs(10);
/// The longest pause after failures.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);
/// Slices in a page, of at most 1000 endpoints each; most hold 100.
const PAGE: usize = 100;
const MAX_PAGE: usize = 64 << 20;
const MAX_PAGES: usize = 100;
/// One slice is a line of a watch.
const MAX_LINE: usize = 4 << 20;

#[derive(Debug, Clone)]
pub struct Spec {
    /// Default: what the environment of pods says.
    pub api: Option<Url>,
    /// Default: the pod's own.
    pub namespace: Option<String>,
    pub service: String,
    pub port: PortName,
    pub token_file: PathBuf,
    pub ca_file: PathBuf,
}

/// Which port of the service's pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortName {
    Name(String),
    Number(u16),
    /// It has one alone.
    Only,
}

/// Lists and watches until the feed is dropped.
pub fn watch(spec: &Spec, start: Start) -> Feed<Answer<Listed>> {
    let spec = spec.clone();
    let namespace = spec.namespace.as_deref().unwrap_or("(own namespace)");
    let report = Report::new("kubernetes", format!("{namespace}/{}", spec.service));
    feed::start(report, start.changed, start.known, |teller| async move {
        let mut rng = Rng::from_entropy();
        let mut failures = 0;
        loop {
            let begun = Instant::now();
            let why = follow(&spec, &start.resolver, &teller, &mut rng, &mut failures).await;
            match why {
                End::Expired => sleep_until(begun + jittered(MIN_WAIT * 2, &mut rng)).await,
                End::Failed(reason) => {
                    failures += 1;
                    teller.failed(reason);
                    sleep(jittered(back_off(failures, MAX_BACK_OFF), &mut rng)).await;
                }
            }
        }
    })
}

/// Why everything is to be listed again.
enum End {
    /// What was known is too old to go on from.
    Expired,
    Failed(String),
}

impl From<String> for End {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

impl From<(u16, String)> for End {
    fn from((status, reason): (u16, String)) -> Self {
        match status {
            410 => Self::Expired,
            _ => Self::Failed(reason),
        }
    }
}

/// One list, and watches from there on for as long as they go well.
async fn follow(
    spec: &Spec,
    resolver: &Resolver,
    teller: &Teller<Answer<Listed>>,
    rng: &mut Rng,
    failures: &mut u32,
) -> End {
    let mut slices = match list(spec, resolver).await {
        Ok(slices) => slices,
        Err(end) => return end,
    };
    loop {
        *failures = 0;
        teller.found(slices.endpoints().into());
        let begun = Instant::now();
        if let Err(end) = watch_once(spec, resolver, teller, &mut slices, rng).await {
            return end;
        }
        // A server that ends watches at once must not make this a busy loop.
        sleep_until(begun + MIN_WAIT).await;
    }
}

async fn list(spec: &Spec, resolver: &Resolver) -> Result<Slices, End> {
    let api = Api::of(spec).await?;
    let mut slices = Slices::default();
    let mut from = String::new();
    for _ in 0..MAX_PAGES {
        let mut query = format!("limit={PAGE}");
        if !from.is_empty() {
            query.push_str(&format!("&continue={}", encoded(&from)));
        }
        let answer = api.get(resolver, &query).await?;
        let body = answer.whole(MAX_PAGE, ANSWER).await?;
        from = slices.page(&body, &spec.port)?.r#continue;
        if from.is_empty() {
            return Ok(slices);
        }
    }
    Err(End::Failed(format!("the list has more than {MAX_PAGES} pages")))
}

/// A watch to its regular end.
async fn watch_once(
    spec: &Spec,
    resolver: &Resolver,
    teller: &Teller<Answer<Listed>>,
    slices: &mut Slices,
    rng: &mut Rng,
) -> Result<(), End> {
    let lasts = jittered(WATCH, rng);
    let until = Instant::now() + lasts + GRACE;
    let api = Api::of(spec).await?;
    let query = format!(
        "watch=1&allowWatchBookmarks=true&resourceVersion={}&timeoutSeconds={}",
        encoded(&slices.version),
        lasts.as_secs()
    );
    let mut answer = api.get(resolver, &query).await?;
    let mut line = Vec::new();
    while let Some(data) = next(&mut answer, until).await? {
        let mut is_changed = false;
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            if line.len() + part.len() > MAX_LINE {
                return Err(End::Failed(format!(
                    "a line of the watch is longer than {MAX_LINE} bytes"
                )));
            }
            line.extend_from_slice(part);
            if !part.ends_with(b"\n") {
                break;
            }
            match slices.line(&line, &spec.port)? {
                Told::Changed => is_changed = true,
                Told::Bookmark => {}
                Told::Expired => return Err(End::Expired),
                Told::Failed(reason) => return Err(End::Failed(reason)),
            }
            line.clear();
        }
        // What came together is one change.
        if is_changed {
            teller.found(slices.endpoints().into());
        }
    }
    Ok(())
}

async fn next(answer: &mut api::Answer, until: Instant) -> Result<Option<bytes::Bytes>, String> {
    match timeout_at(until, answer.next()).await {
        Ok(result) => result,
        Err(_) => Err("the watch did not end in time".into()),
    }
}

/// How the API is reached now: the files may have been replaced since the last time.
struct Api {
    url: Url,
    tls: Option<Tls>,
    token: Option<Secret>,
    path: String,
}

impl Api {
    async fn of(spec: &Spec) -> Result<Self, String> {
        let spec = spec.clone();
        let read = tokio::task::spawn_blocking(move || Self::read(&spec)).await;
        read.unwrap_or_else(|e| Err(e.to_string()))
    }

    fn read(spec: &Spec) -> Result<Self, String> {
        let url = match &spec.api {
            Some(url) => url.clone(),
            None => in_cluster(|name| std::env::var(name).ok())?,
        };
        let namespace = match &spec.namespace {
            Some(namespace) => namespace.clone(),
            None => text(Path::new(NAMESPACE_FILE))?,
        };
        // A proxy on this machine, which is spoken to in the clear, adds its own.
        let (tls, token) = match url.tls {
            true => (Some(tls(&spec.ca_file)?), Some(Secret::new(text(&spec.token_file)?))),
            false => (None, None),
        };
        Ok(Self {
            url,
            tls,
            token,
            path: format!(
                "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{}",
                encoded(&namespace),
                encoded(&spec.service)
            ),
        })
    }

    async fn get(&self, resolver: &Resolver, query: &str) -> Result<api::Answer, End> {
        let token = self
            .token
            .as_ref()
            .map(|token| credentials("Bearer ", token))
            .transpose()?;
        let fields = token.into_iter().map(|token| (AUTHORIZATION, token)).collect();
        let target = format!("{}&{query}", self.path);
        Ok(api::get(resolver, &self.url, self.tls.as_ref(), &target, fields, ANSWER).await?)
    }
}

/// The API as the environment of pods names it.
fn in_cluster(variable: impl Fn(&str) -> Option<String>) -> Result<Url, String> {
    let get = |name: &str| {
        let outside = || format!("{name} is not set, so this is no pod: set `api`");
        variable(name).filter(|value| !value.is_empty()).ok_or_else(outside)
    };
    let host = get("KUBERNETES_SERVICE_HOST")?;
    let port = get("KUBERNETES_SERVICE_PORT")?;
    let port = port
        .parse()
        .map_err(|_| format!("KUBERNETES_SERVICE_PORT is `{port}`"))?;
    Ok(Url::new(true, &host, port))
}

fn text(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("`{}` cannot be read: {e}", path.display()))?;
    Ok(text.trim().to_owned())
}

fn tls(ca: &Path) -> Result<Tls, String> {
    let spec = ClientSpec {
        ca: Some(load::roots(ca)?),
        ca_path: None,
        server_name: None,
        client_certificate: None,
        verify: true,
        handshake_timeout: None,
    };
    Tls::new(&spec)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_knows_its_api() {
        let set = |host: &'static str, port: &'static str| {
            in_cluster(move |name| match name {
                "KUBERNETES_SERVICE_HOST" => Some(host.to_owned()),
                _ => Some(port.to_owned()),
            })
            .map(|url| url.to_string())
        };
        assert_eq!(set("10.96.0.1", "443"), Ok("https://10.96.0.1:443".into()));
        assert_eq!(set("fd00::1", "6443"), Ok("https://[fd00::1]:6443".into()));
        assert!(set("10.96.0.1", "https").is_err());
        assert!(set("", "443").unwrap_err().contains("set `api`"));
    }
}

//! The sources of endpoints: started before a plan is published, kept for as long as it stands.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::plan::{Plan, Upstream};
use crate::discovery::dns::Resolver;
use crate::discovery::feed::{Feed, Report};
use crate::discovery::name::{self, Answer, Question};
use crate::net::addr::EndpointAddr;

/// How long a start or a reload waits for first answers. What comes later comes in while it serves.
const FIRST: Duration = Duration::from_secs(5);

/// What is known, at one moment, of where endpoints are. Cheap to copy.
#[derive(Debug, Clone, Default)]
pub struct Found {
    names: HashMap<Question, Name>,
}

#[derive(Debug, Clone)]
pub struct Name {
    /// `None`: there was no answer yet.
    pub answer: Option<Arc<Answer>>,
    /// Asks for a new one.
    pub doubt: Arc<Notify>,
}

impl Found {
    /// What is known of a name that `upstream` uses.
    pub fn name(&self, upstream: &Upstream, host: &str) -> Option<&Name> {
        self.names.get(&question(upstream, host))
    }

    /// Whether something is said of `upstream` that `old` does not say.
    pub fn differs(&self, old: &Self, upstream: &Upstream) -> bool {
        let told = |found: &Self, host: &str| {
            found
                .name(upstream, host)
                .and_then(|n| n.answer.as_ref().map(Arc::as_ptr))
        };
        hosts(upstream).any(|host| told(self, host) != told(old, host))
    }

    #[cfg(test)]
    pub fn set(&mut self, upstream: &Upstream, host: &str, addrs: &[&str], denied: u32) {
        let addrs = addrs.iter().map(|a| a.parse().unwrap()).collect();
        let name = Name {
            answer: Some(Arc::new(Answer { addrs, denied })),
            doubt: Arc::default(),
        };
        self.names.insert(question(upstream, host), name);
    }
}

/// Each source runs for as long as it is in here.
#[derive(Debug, Default)]
pub struct Sources {
    changed: Arc<Notify>,
    resolvers: HashMap<Vec<SocketAddr>, Arc<Resolver>>,
    names: HashMap<Question, Watch>,
}

#[derive(Debug)]
struct Watch {
    longest: Duration,
    doubt: Arc<Notify>,
    feed: Feed<Answer>,
}

impl Sources {
    /// Some source has news.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Starts what `plan` needs and does not run yet, and waits a while for first answers.
    pub async fn prepare(&mut self, plan: &Plan) -> Found {
        let mut asked = JoinSet::new();
        for (question, longest) in questions(plan) {
            if !self.names.contains_key(&question) {
                let watch = self.watch(&question, longest, None);
                asked.spawn(watch.feed.answered());
                self.names.insert(question, watch);
            }
        }
        if timeout(FIRST, asked.join_all()).await.is_err() {
            tracing::warn!("discovery: serving begins before every source has answered");
        }
        self.found()
    }

    /// Brings what runs in line with `plan`, which is the one that counts now.
    pub fn keep(&mut self, plan: &Plan) {
        let mut old = std::mem::take(&mut self.names);
        for (question, longest) in questions(plan) {
            let watch = match old.remove(&question) {
                Some(watch) if watch.longest == longest => watch,
                other => self.watch(&question, longest, other),
            };
            self.names.insert(question, watch);
        }
        let used: Vec<_> = self.names.keys().map(|question| &question.name_servers).collect();
        self.resolvers.retain(|servers, _| used.contains(&servers));
    }

    /// What all of them say now.
    pub fn found(&self) -> Found {
        let name = |watch: &Watch| Name {
            answer: watch.feed.latest(),
            doubt: watch.doubt.clone(),
        };
        Found {
            names: self.names.iter().map(|(q, watch)| (q.clone(), name(watch))).collect(),
        }
    }

    /// The sources of each upstream that has any.
    pub fn reports(&self, plan: &Plan) -> HashMap<Arc<str>, Vec<Arc<Report>>> {
        let of = |upstream: &Upstream| -> Vec<Arc<Report>> {
            hosts(upstream)
                .filter_map(|host| self.names.get(&question(upstream, host)))
                .map(|watch| watch.feed.report.clone())
                .collect()
        };
        let all = plan
            .upstreams
            .iter()
            .map(|upstream| (upstream.name.clone(), of(upstream)));
        all.filter(|(_, reports)| !reports.is_empty()).collect()
    }

    /// Asks for a name from now on. `old`: who did so until now, in another rhythm.
    fn watch(&mut self, question: &Question, longest: Duration, old: Option<Watch>) -> Watch {
        let servers = &question.name_servers;
        let resolver = self.resolvers.entry(servers.clone()).or_insert_with(|| {
            Arc::new(match servers.is_empty() {
                true => Resolver::system(),
                false => Resolver::with_name_servers(servers, "/etc/hosts".into()),
            })
        });
        let known = old.as_ref().and_then(|old| old.feed.latest());
        let doubt = old.map_or_else(Arc::default, |old| old.doubt);
        let (resolver, changed) = (resolver.clone(), self.changed.clone());
        Watch {
            longest,
            feed: name::watch(resolver, question, longest, doubt.clone(), changed, known),
            doubt,
        }
    }
}

/// Every name that is asked for, with the shortest interval anybody wants.
fn questions(plan: &Plan) -> HashMap<Question, Duration> {
    let mut questions: HashMap<Question, Duration> = HashMap::new();
    for upstream in &plan.upstreams {
        for host in hosts(upstream) {
            let interval = upstream.resolve_interval;
            let longest = questions.entry(question(upstream, host)).or_insert(interval);
            *longest = interval.min(*longest);
        }
    }
    questions
}

fn question(upstream: &Upstream, host: &str) -> Question {
    Question {
        host: host.to_owned(),
        name_servers: upstream.name_servers.clone(),
        families: upstream.address_family,
    }
}

/// The host names among the endpoints of an upstream; one may come several times.
fn hosts(upstream: &Upstream) -> impl Iterator<Item = &str> {
    upstream.endpoints.iter().filter_map(|endpoint| match &endpoint.addr {
        EndpointAddr::Name { host, .. } => Some(host.as_str()),
        _ => None,
    })
}

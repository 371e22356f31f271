//! The sources of endpoints: started before a plan is published, kept for as long as it stands.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::dialers::files;
use crate::config::plan::{Plan, Upstream};
use crate::discovery::dns::Resolver;
use crate::discovery::feed::{Feed, Report};
use crate::discovery::name::{self, Question};
use crate::discovery::{self, Answer, Listed, Spec};
use crate::net::addr::EndpointAddr;

/// How long a start or a reload waits for first answers. What comes later comes in while it serves.
const FIRST: Duration = Duration::from_secs(5);

/// What is known, at one moment, of where endpoints are. Cheap to copy.
#[derive(Debug, Clone, Default)]
pub struct Found {
    names: HashMap<Question, Known<IpAddr>>,
    /// By upstream.
    lists: HashMap<Arc<str>, Known<Listed>>,
}

#[derive(Debug, Clone)]
pub struct Known<T> {
    /// `None`: there was no answer yet.
    answer: Option<Arc<Answer<T>>>,
    /// Asks for a new one.
    pub doubt: Arc<Notify>,
}

impl<T> Known<T> {
    pub fn found(&self) -> &[T] {
        self.answer.as_ref().map_or(&[], |answer| &answer.found)
    }

    /// There is nothing any more, its source says.
    pub fn is_denied(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.denied > 0)
    }

    fn is_same(this: Option<&Self>, other: Option<&Self>) -> bool {
        let answer = |known: Option<&Self>| known.and_then(|known| known.answer.as_ref().map(Arc::as_ptr));
        answer(this) == answer(other)
    }
}

impl Found {
    /// What is known of a name that `upstream` uses.
    pub fn name(&self, upstream: &Upstream, host: &str) -> Option<&Known<IpAddr>> {
        self.names.get(&question(upstream, host))
    }

    /// What `upstream` has beside its fixed endpoints.
    pub fn list(&self, upstream: &Upstream) -> Option<&Known<Listed>> {
        self.lists.get(&upstream.name)
    }

    /// Whether something is said of `upstream` that `old` does not say.
    pub fn differs(&self, old: &Self, upstream: &Upstream) -> bool {
        let list = self.list(upstream);
        let is_same = |host: &str| Known::is_same(self.name(upstream, host), old.name(upstream, host));
        !Known::is_same(list, old.list(upstream)) || !hosts(upstream, list).all(is_same)
    }
}

/// Each source runs for as long as it is in here.
#[derive(Debug, Default)]
pub struct Sources {
    changed: Arc<Notify>,
    resolvers: HashMap<Vec<SocketAddr>, Arc<Resolver>>,
    names: HashMap<Question, Watch<IpAddr>>,
    /// By upstream; the last is the one in use, the one before it is what a reload may return to.
    lists: HashMap<Arc<str>, Vec<Watch<Listed>>>,
}

#[derive(Debug)]
struct Watch<T> {
    /// Of all that decides how is asked: another one is another watch.
    settings: String,
    doubt: Arc<Notify>,
    feed: Feed<Answer<T>>,
}

impl<T> Watch<T> {
    fn known(&self) -> Known<T> {
        Known {
            answer: self.feed.latest(),
            doubt: self.doubt.clone(),
        }
    }
}

impl Sources {
    /// Some source has news.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Starts what `plan` needs and does not run yet, and waits a while for first answers.
    pub async fn prepare(&mut self, plan: &Plan) -> Found {
        let until = Instant::now() + FIRST;
        let mut asked = JoinSet::new();
        for upstream in &plan.upstreams {
            if let Some(feed) = self.start_list(upstream) {
                asked.spawn(feed.answered());
            }
        }
        let mut in_time = timeout_at(until, asked.join_all()).await.is_ok();
        let mut asked = JoinSet::new();
        for (question, longest) in self.questions(plan) {
            if !self.names.contains_key(&question) {
                let watch = self.start_name(&question, longest, None);
                asked.spawn(watch.feed.answered());
                self.names.insert(question, watch);
            }
        }
        in_time &= timeout_at(until, asked.join_all()).await.is_ok();
        if !in_time {
            tracing::warn!("discovery: serving begins before every source has answered");
        }
        self.found(plan)
    }

    /// Brings what runs in line with `plan`, which is the one that counts now.
    pub fn keep(&mut self, plan: &Plan) {
        let upstreams: HashMap<_, _> = plan.upstreams.iter().map(|u| (&u.name, list_settings(u))).collect();
        self.lists.retain(|name, watches| {
            let wanted = upstreams.get(name).and_then(Option::as_ref);
            watches.retain(|watch| Some(&watch.settings) == wanted);
            !watches.is_empty()
        });
        self.follow_names(plan);
        let used: Vec<_> = plan.upstreams.iter().map(|upstream| &upstream.name_servers).collect();
        self.resolvers.retain(|servers, _| used.contains(&servers));
    }

    /// What all of them say now; what lists have named is asked for.
    pub fn follow(&mut self, plan: &Plan) -> Found {
        self.follow_names(plan);
        self.found(plan)
    }

    /// The sources of each upstream that has any.
    pub fn reports(&self, plan: &Plan) -> HashMap<Arc<str>, Vec<Arc<Report>>> {
        let of = |upstream: &Upstream| -> Vec<Arc<Report>> {
            let list = self.list(&upstream.name);
            // Names within a list are its own matter, and may be thousands.
            let names = hosts(upstream, None).filter_map(|host| self.names.get(&question(upstream, host)));
            let mut reports: Vec<_> = list.iter().map(|watch| watch.feed.report.clone()).collect();
            reports.extend(names.map(|watch| watch.feed.report.clone()));
            reports.dedup_by(|a, b| Arc::ptr_eq(a, b));
            reports
        };
        let all = plan
            .upstreams
            .iter()
            .map(|upstream| (upstream.name.clone(), of(upstream)));
        all.filter(|(_, reports)| !reports.is_empty()).collect()
    }

    fn found(&self, plan: &Plan) -> Found {
        let lists = plan.upstreams.iter().filter_map(|upstream| {
            let watch = self.list(&upstream.name)?;
            Some((upstream.name.clone(), watch.known()))
        });
        Found {
            lists: lists.collect(),
            names: self.names.iter().map(|(q, watch)| (q.clone(), watch.known())).collect(),
        }
    }

    fn list(&self, upstream: &str) -> Option<&Watch<Listed>> {
        self.lists.get(upstream)?.last()
    }

    /// Starts the list of an upstream unless that runs. It begins with what the one before it has found.
    fn start_list(&mut self, upstream: &Upstream) -> Option<&Feed<Answer<Listed>>> {
        let (spec, settings) = (upstream.discovery.as_ref()?, list_settings(upstream)?);
        let resolver = self.resolver(&upstream.name_servers);
        let watches = self.lists.entry(upstream.name.clone()).or_default();
        if watches.iter().any(|watch| watch.settings == settings) {
            return None;
        }
        let old = watches.last();
        let doubt = old.map_or_else(Arc::default, |old| old.doubt.clone());
        let start = discovery::Start {
            resolver,
            longest: upstream.resolve_interval,
            doubt: doubt.clone(),
            changed: self.changed.clone(),
            known: old.and_then(|old| old.feed.latest()),
        };
        let feed = discovery::watch(spec, start);
        watches.push(Watch { settings, doubt, feed });
        watches.last().map(|watch| &watch.feed)
    }

    fn follow_names(&mut self, plan: &Plan) {
        let mut old = std::mem::take(&mut self.names);
        for (question, longest) in self.questions(plan) {
            let watch = match old.remove(&question) {
                Some(watch) if watch.settings == name_settings(longest) => watch,
                other => self.start_name(&question, longest, other),
            };
            self.names.insert(question, watch);
        }
    }

    /// Asks for a name from now on. `old`: who did so until now, in another rhythm.
    fn start_name(&mut self, question: &Question, longest: Duration, old: Option<Watch<IpAddr>>) -> Watch<IpAddr> {
        let resolver = self.resolver(&question.name_servers);
        let known = old.as_ref().and_then(|old| old.feed.latest());
        let doubt = old.map_or_else(Arc::default, |old| old.doubt);
        let changed = self.changed.clone();
        Watch {
            settings: name_settings(longest),
            feed: name::watch(resolver, question, longest, doubt.clone(), changed, known),
            doubt,
        }
    }

    fn resolver(&mut self, servers: &[SocketAddr]) -> Arc<Resolver> {
        let resolver = self.resolvers.entry(servers.to_vec()).or_insert_with(|| {
            Arc::new(match servers.is_empty() {
                true => Resolver::system(),
                false => Resolver::with_name_servers(servers, "/etc/hosts".into()),
            })
        });
        resolver.clone()
    }

    /// Every name that is asked for, with the shortest interval anybody wants.
    fn questions(&self, plan: &Plan) -> HashMap<Question, Duration> {
        let mut questions: HashMap<Question, Duration> = HashMap::new();
        for upstream in &plan.upstreams {
            let list = self.list(&upstream.name).map(Watch::known);
            for host in hosts(upstream, list.as_ref()) {
                let interval = upstream.resolve_interval;
                let longest = questions.entry(question(upstream, host)).or_insert(interval);
                *longest = interval.min(*longest);
            }
        }
        questions
    }
}

fn list_settings(upstream: &Upstream) -> Option<String> {
    let spec = upstream.discovery.as_ref()?;
    let files = match spec {
        Spec::Consul(consul) => consul.tls.as_ref().map(files),
        _ => None,
    };
    let (interval, servers) = (upstream.resolve_interval, &upstream.name_servers);
    Some(format!("{spec:?} {files:?} {interval:?} {servers:?}"))
}

fn name_settings(longest: Duration) -> String {
    format!("{longest:?}")
}

fn question(upstream: &Upstream, host: &str) -> Question {
    Question {
        host: host.to_owned(),
        name_servers: upstream.name_servers.clone(),
        families: upstream.address_family,
    }
}

/// The host names among the endpoints of an upstream; one may come several times.
fn hosts<'a>(upstream: &'a Upstream, list: Option<&'a Known<Listed>>) -> impl Iterator<Item = &'a str> {
    let listed = list.map_or(&[][..], Known::found);
    upstream
        .endpoints
        .iter()
        .chain(listed)
        .filter_map(|endpoint| match &endpoint.addr {
            EndpointAddr::Name { host, .. } => Some(host.as_str()),
            _ => None,
        })
}

#[cfg(test)]
impl Found {
    pub fn set(&mut self, upstream: &Upstream, host: &str, addrs: &[&str], denied: u32) {
        let found = addrs.iter().map(|a| a.parse().unwrap()).collect();
        self.names
            .insert(question(upstream, host), Known::of(Answer { found, denied }));
    }

    pub fn set_list(&mut self, upstream: &Upstream, addrs: &[&str], denied: u32) {
        let found = addrs
            .iter()
            .map(|a| Listed::at(EndpointAddr::parse(a).unwrap()))
            .collect();
        self.lists
            .insert(upstream.name.clone(), Known::of(Answer { found, denied }));
    }
}

#[cfg(test)]
impl<T> Known<T> {
    fn of(answer: Answer<T>) -> Self {
        Self {
            answer: Some(Arc::new(answer)),
            doubt: Arc::default(),
        }
    }
}

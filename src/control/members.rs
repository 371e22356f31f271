//! Who belongs to each upstream: what is configured and what was found become endpoints, whose state stays as long
//! as their upstream and address do.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use tokio::sync::Notify;

use super::sources::Found;
use crate::config::plan::{Plan, Upstream};
use crate::discovery::MAX_ENDPOINTS;
use crate::endpoint::duty::{By, Duty};
use crate::endpoint::links::Links;
use crate::endpoint::place::Places;
use crate::endpoint::{Health, State};
use crate::net::addr::{DialAddr, EndpointAddr};
use crate::net::race::Addrs;
use crate::pool::Protocol;
use crate::upstream::Member;

/// Tells who came and who left, the first of them by name.
pub fn tell(upstream: &str, old: &[Member], new: &[Member]) {
    let ids = |members: &[Member]| -> HashSet<u32> { members.iter().map(|m| m.endpoint.id).collect() };
    let without = |members: &[Member], ids: &HashSet<u32>| -> Vec<Arc<str>> {
        let others = members.iter().filter(|m| !ids.contains(&m.endpoint.id));
        others.map(|m| m.endpoint.label.clone()).collect()
    };
    let (added, removed) = (without(new, &ids(old)), without(old, &ids(new)));
    let first = |list: &[Arc<str>]| {
        list.iter()
            .take(MAX_TOLD)
            .map(|label| label.to_string())
            .collect::<Vec<_>>()
            .join(" ")
    };
    if !added.is_empty() || !removed.is_empty() {
        tracing::info!(
            upstream,
            added = added.len(),
            removed = removed.len(),
            endpoints = new.len(),
            new = first(&added),
            gone = first(&removed),
            "endpoints changed"
        );
    }
}

/// Of a change of thousands, so many are told by name.
const MAX_TOLD: usize = 10;

/// The states of one upstream's endpoints.
type States = HashMap<DialAddr, Arc<State>>;

/// The endpoints of every upstream, by its name.
#[derive(Clone)]
pub struct Members {
    workers: usize,
    states: HashMap<Arc<str>, States>,
    /// Connections of endpoints that are gone: should one of them come back, they still count.
    left: HashMap<(Arc<str>, DialAddr), Weak<Links>>,
    next: u32,
    places: Places,
}

impl Members {
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            states: HashMap::new(),
            left: HashMap::new(),
            next: 0,
            places: Places::default(),
        }
    }

    /// Forgets upstreams that `plan` does not have.
    pub fn keep(&mut self, plan: &Plan) {
        let is_gone = |name: &&Arc<str>| !plan.upstreams.iter().any(|upstream| upstream.name == **name);
        let gone: Vec<_> = self.states.keys().filter(is_gone).cloned().collect();
        for name in gone {
            let states = self.states.remove(&name).unwrap_or_default();
            self.part(&name, states);
        }
    }

    /// Remembers the connections of what was forgotten, for as long as there are any.
    fn part(&mut self, upstream: &Arc<str>, states: impl IntoIterator<Item = (DialAddr, Arc<State>)>) {
        self.left.retain(|_, links| links.strong_count() > 0);
        let left = states.into_iter().map(|(addr, state)| {
            let links = Arc::downgrade(&state.links);
            ((upstream.clone(), addr), links)
        });
        self.left.extend(left);
    }

    /// The members of `upstream`; endpoints that are no longer among them are forgotten.
    pub fn of(&mut self, upstream: &Upstream, found: &Found) -> Vec<Member> {
        let old = self.states.remove(&upstream.name).unwrap_or_default();
        let mut states = States::new();
        let mut members = Vec::new();
        let list = found.list(upstream);
        let fixed = upstream.endpoints.iter().map(|endpoint| (endpoint, None));
        let listed = list
            .iter()
            .flat_map(|list| list.found().iter().map(|endpoint| (endpoint, Some(*list))));
        for (endpoint, list) in fixed.chain(listed) {
            let mut place = place(upstream, &endpoint.addr, found);
            if let Some(list) = list {
                place.sources.push(list.doubt.clone());
                place.denied |= list.is_denied();
            }
            for addr in place.addrs {
                // A name may resolve to what is listed too: one address is one endpoint.
                if states.contains_key(&addr) || states.len() == MAX_ENDPOINTS {
                    continue;
                }
                let known = old.get(&addr).filter(|state| state.configured == endpoint.addr);
                if place.denied && known.is_none_or(|state| state.health() == Health::Down) {
                    continue;
                }
                let state = match known {
                    Some(state) => {
                        if let (DialAddr::Any(old), DialAddr::Any(new)) = (&state.addr, &addr) {
                            old.set(&new.get());
                        }
                        state.clone()
                    }
                    None => {
                        let state = self
                            .state(upstream, &addr, &endpoint.addr)
                            .found_by(place.sources.clone());
                        // Beside others that are at work already.
                        if !old.is_empty() {
                            state.ramp.cool();
                        }
                        Arc::new(state)
                    }
                };
                let limits = upstream.limits.as_ref();
                state.limit.set(
                    limits.and_then(|limits| limits.max_active_per_endpoint),
                    limits.and_then(|limits| limits.adaptive),
                );
                state
                    .links
                    .set_limit(limits.and_then(|limits| limits.max_connections_per_endpoint));
                let duty = if endpoint.draining {
                    Duty::Draining
                } else {
                    Duty::Active
                };
                state.orders.set_duty(By::Discovery, duty);
                states.insert(addr, state.clone());
                members.push(Member {
                    endpoint: state,
                    weight: endpoint.weight,
                    backup: endpoint.backup,
                    priority: endpoint.priority,
                    zone: endpoint.zone.clone(),
                });
            }
        }
        let gone = old.into_iter().filter(|(addr, _)| !states.contains_key(addr));
        self.part(&upstream.name, gone);
        self.states.insert(upstream.name.clone(), states);
        members
    }

    fn state(&mut self, upstream: &Upstream, addr: &DialAddr, configured: &EndpointAddr) -> State {
        let health = match upstream.health {
            Some(_) => Health::Checking,
            None => Health::Up,
        };
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let left = self.left.remove(&(upstream.name.clone(), addr.clone()));
        let links = left.and_then(|links| links.upgrade()).unwrap_or_default();
        links.set_h2(upstream.protocol == Protocol::H2);
        State::new(id, addr.clone(), configured.clone(), health, self.workers)
            .at(self.places.take())
            .with_links(links)
    }
}

/// Where an endpoint is now.
#[derive(Default)]
struct Place {
    addrs: Vec<DialAddr>,
    /// Who has said so.
    sources: Vec<Arc<Notify>>,
    /// It is no longer true, they say: what is down may go.
    denied: bool,
}

fn place(upstream: &Upstream, addr: &EndpointAddr, found: &Found) -> Place {
    let fixed = |addr| Place {
        addrs: vec![addr],
        ..Place::default()
    };
    match addr {
        EndpointAddr::Ip(addr) => fixed(DialAddr::Ip(*addr)),
        EndpointAddr::Unix(path) => fixed(DialAddr::Unix(path.clone())),
        EndpointAddr::Name { host, port } => {
            let Some(name) = found.name(upstream, host) else {
                return Place::default();
            };
            let all = || name.found().iter().map(|ip| SocketAddr::new(*ip, *port));
            let addrs = match upstream.one_per_name {
                true if name.found().is_empty() => Vec::new(),
                true => {
                    let addrs: Vec<_> = all().collect();
                    vec![DialAddr::Any(Arc::new(Addrs::new(addr.to_string(), &addrs)))]
                }
                false => all().map(DialAddr::Ip).collect(),
            };
            Place {
                addrs,
                sources: vec![name.doubt.clone()],
                denied: name.is_denied(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(text: &str) -> Upstream {
        let text = format!("[listeners.a]\nbind = \":0\"\n[[routes]]\nupstream = \"u\"\n[upstreams.u]\n{text}\n");
        let loaded = crate::config::load_text("test", &text);
        let plan = loaded.unwrap_or_else(|e| panic!("{}", e.render(false))).plan;
        plan.upstreams[0].clone()
    }

    fn addrs(members: &[Member]) -> Vec<&str> {
        members.iter().map(|m| &*m.endpoint.label).collect()
    }

    #[test]
    fn names_become_all_their_addresses_each_once() {
        let upstream = upstream(r#"endpoints = ["a.test:80", { address = "b.test:80", weight = 3 }, "10.0.0.1:80"]"#);
        let (mut all, mut found) = (Members::new(1), Found::default());
        assert_eq!(
            addrs(&all.of(&upstream, &found)),
            ["10.0.0.1:80"],
            "unknown names are nobody"
        );
        found.set(&upstream, "a.test", &["10.0.0.1", "::1"], 0);
        found.set(&upstream, "b.test", &["10.0.0.2", "10.0.0.1"], 0);
        let members = all.of(&upstream, &found);
        assert_eq!(addrs(&members), ["10.0.0.1:80", "[::1]:80", "10.0.0.2:80"]);
        assert_eq!(members[2].weight, 3);
    }

    #[test]
    fn those_that_stay_keep_their_state_and_ids_are_never_used_again() {
        let upstream = upstream("endpoints = [\"a.test:80\"]");
        let (mut all, mut found) = (Members::new(1), Found::default());
        found.set(&upstream, "a.test", &["10.0.0.1", "10.0.0.2"], 0);
        let first = all.of(&upstream, &found);
        found.set(&upstream, "a.test", &["10.0.0.2", "10.0.0.3"], 0);
        let second = all.of(&upstream, &found);
        assert!(Arc::ptr_eq(&first[1].endpoint, &second[0].endpoint));
        assert_eq!(second[1].endpoint.id, 2);
        found.set(&upstream, "a.test", &["10.0.0.1"], 0);
        assert_eq!(all.of(&upstream, &found)[0].endpoint.id, 3, "it was forgotten");
    }

    #[test]
    fn places_are_used_again_and_nothing_is_left_of_who_is_gone() {
        let upstream = upstream("endpoints = [\"a.test:80\"]");
        let (mut all, mut found) = (Members::new(1), Found::default());
        let mut old = Vec::new();
        for n in 0..1_000 {
            let addrs = [
                format!("10.0.{}.{}", n / 250, n % 250),
                format!("10.1.{}.{}", n / 250, n % 250),
            ];
            found.set(&upstream, "a.test", &[&addrs[0], &addrs[1]], 0);
            let members = all.of(&upstream, &found);
            for member in &members {
                assert!(member.endpoint.place.number() < 4, "two are, and two were just now");
            }
            old = members;
        }
        assert_eq!(old.len(), 2);
        assert!(all.left.len() <= 2, "{}", all.left.len());
    }

    #[test]
    fn one_per_name_is_the_name_whatever_its_addresses() {
        let upstream = upstream("endpoints = [\"a.test:80\"]\none_per_name = true");
        let (mut all, mut found) = (Members::new(1), Found::default());
        assert!(all.of(&upstream, &found).is_empty());
        found.set(&upstream, "a.test", &["10.0.0.1", "::1"], 0);
        let first = all.of(&upstream, &found);
        assert_eq!(addrs(&first), ["a.test:80"]);
        found.set(&upstream, "a.test", &["10.0.0.2"], 0);
        let second = all.of(&upstream, &found);
        assert!(Arc::ptr_eq(&first[0].endpoint, &second[0].endpoint));
        let DialAddr::Any(now) = &first[0].endpoint.addr else {
            panic!("{:?}", first[0].endpoint.addr)
        };
        assert_eq!(*now.get(), ["10.0.0.2:80".parse().unwrap()]);
    }

    #[test]
    fn a_denied_name_keeps_what_is_not_down() {
        let upstream = upstream("endpoints = [\"a.test:80\"]\nhealth.tcp = true");
        let (mut all, mut found) = (Members::new(1), Found::default());
        found.set(&upstream, "a.test", &["10.0.0.1", "10.0.0.2"], 0);
        let members = all.of(&upstream, &found);
        members[0].endpoint.set_health(Health::Up);
        members[1].endpoint.set_health(Health::Up);
        found.set(&upstream, "a.test", &["10.0.0.1", "10.0.0.2"], 1);
        assert_eq!(addrs(&all.of(&upstream, &found)).len(), 2);
        members[1].endpoint.set_health(Health::Down);
        found.set(&upstream, "a.test", &["10.0.0.1", "10.0.0.2"], 2);
        assert_eq!(addrs(&all.of(&upstream, &found)), ["10.0.0.1:80"]);
        members[0].endpoint.set_health(Health::Down);
        found.set(&upstream, "a.test", &["10.0.0.1", "10.0.0.2"], 3);
        assert_eq!(addrs(&all.of(&upstream, &found)).len(), 0);
        found.set(&upstream, "a.test", &["10.0.0.1"], 0);
        assert_eq!(
            addrs(&all.of(&upstream, &found)),
            ["10.0.0.1:80"],
            "an answer brings it back"
        );
    }

    #[test]
    fn what_is_found_stands_beside_what_is_fixed() {
        let upstream = upstream(
            "discovery = { srv = \"_x._tcp.test\" }\nendpoints = [{ address = \"10.0.0.1:80\", weight = 9 }]\n\
             health.tcp = true",
        );
        let (mut all, mut found) = (Members::new(1), Found::default());
        assert_eq!(addrs(&all.of(&upstream, &found)), ["10.0.0.1:80"]);
        found.set_list(&upstream, &["10.0.0.1:80", "10.0.0.2:80", "a.test:80"], 0);
        found.set(&upstream, "a.test", &["10.0.0.3"], 0);
        let members = all.of(&upstream, &found);
        assert_eq!(addrs(&members), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
        assert_eq!(members[0].weight, 9, "the configuration wins");
        members
            .iter()
            .for_each(|member| member.endpoint.set_health(Health::Down));
        found.set_list(&upstream, &["10.0.0.1:80", "10.0.0.2:80", "a.test:80"], 1);
        assert_eq!(addrs(&all.of(&upstream, &found)), ["10.0.0.1:80"]);
    }

    #[test]
    fn endpoints_are_bounded() {
        let list: Vec<_> = (0..50).map(|i| format!("\"n{i}.test:80\"")).collect();
        let upstream = upstream(&format!("endpoints = [{}]", list.join(",")));
        let mut found = Found::default();
        for i in 0..50 {
            let addrs: Vec<_> = (0..250).map(|n| format!("10.0.{i}.{n}")).collect();
            let addrs: Vec<_> = addrs.iter().map(String::as_str).collect();
            found.set(&upstream, &format!("n{i}.test"), &addrs, 0);
        }
        assert_eq!(Members::new(1).of(&upstream, &found).len(), MAX_ENDPOINTS);
    }
}

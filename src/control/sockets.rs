//! Bound addresses: new ones are bound before a reload is accepted, old ones closed after it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::plan::Plan;
use crate::listener::{Command, Crew, SocketId};
use crate::net::addr::BindAddr;
use crate::net::socket::{self, Bound, local_label};

/// An address of a listener. Port 0 is another port for every listener that asks for it.
type Key = (BindAddr, Option<Arc<str>>);

fn key(addr: &BindAddr, listener: &Arc<str>) -> Key {
    (addr.clone(), (addr.port() == Some(0)).then(|| listener.clone()))
}

/// All that is bound for listeners.
#[derive(Default)]
pub struct Sockets {
    bound: HashMap<Key, Place>,
    next: SocketId,
}

struct Place {
    id: SocketId,
    slot: usize,
}

/// Sockets bound for a world that is not published yet; dropped, they are closed.
pub struct Pending(Vec<New>);

struct New {
    key: Key,
    listener: Arc<str>,
    label: String,
    copies: Vec<Bound>,
}

impl Pending {
    /// Listener and address of every new socket.
    pub fn labels(&self) -> impl Iterator<Item = (&Arc<str>, &str)> {
        self.0.iter().map(|new| (&new.listener, new.label.as_str()))
    }
}

impl Sockets {
    /// Binds what `plan` wants and is not bound yet.
    pub fn prepare(&self, plan: &Plan, workers: usize) -> Result<Pending, String> {
        let mut pending = Vec::new();
        for listener in &plan.listeners {
            for addr in &listener.bind {
                let key = key(addr, &listener.name);
                if self.bound.contains_key(&key) {
                    continue;
                }
                let ours = self
                    .bound
                    .keys()
                    .any(|(other, _)| other.port().is_some() && other.port() == addr.port());
                let copies = socket::bind(addr, workers, ours)
                    .map_err(|e| format!("listener `{}`: cannot bind {addr}: {}", listener.name, explain(&e)))?;
                let label = copies
                    .first()
                    .map_or_else(String::new, |bound| local_label(bound, addr));
                pending.push(New {
                    key,
                    listener: listener.name.clone(),
                    label,
                    copies,
                });
            }
        }
        Ok(Pending(pending))
    }

    /// Hands new sockets to the workers, gives those that changed listeners their new one, closes the rest.
    pub fn apply(&mut self, pending: Pending, plan: &Plan, slot: impl Fn(&str) -> Option<usize>, crew: &Crew) {
        let mut wanted = HashMap::new();
        for listener in &plan.listeners {
            let Some(slot) = slot(&listener.name) else { continue };
            wanted.extend(listener.bind.iter().map(|addr| (key(addr, &listener.name), slot)));
        }
        for new in pending.0 {
            let Some(slot) = wanted.get(&new.key).copied() else {
                continue;
            };
            self.next += 1;
            let id = self.next;
            for (index, socket) in new.copies.into_iter().enumerate() {
                crew.tell(index, Command::Listen { id, slot, socket });
            }
            self.bound.insert(new.key, Place { id, slot });
        }
        self.bound.retain(|(addr, _), place| {
            let slot = wanted.get(&(addr.clone(), None)).or_else(|| {
                // Port 0 is bound for one listener by name; its slot says which.
                wanted
                    .iter()
                    .find(|((a, name), s)| a == addr && name.is_some() && **s == place.slot)
                    .map(|(_, s)| s)
            });
            let Some(slot) = slot.copied() else {
                crew.tell_all(|| Command::Close(place.id));
                unlink(addr);
                return false;
            };
            if slot != place.slot {
                place.slot = slot;
                crew.tell_all(|| Command::Move { id: place.id, slot });
            }
            true
        });
    }

    /// Removes the files of Unix sockets: nobody listens there any more.
    pub fn unlink(&self) {
        self.bound.keys().for_each(|(addr, _)| unlink(addr));
    }
}

fn unlink(addr: &BindAddr) {
    if let BindAddr::Unix(path) = addr {
        // Somebody else may have removed it already.
        let _ = std::fs::remove_file(path);
    }
}

fn explain(e: &std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::AddrInUse => "another process listens there".to_owned(),
        std::io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        std::io::ErrorKind::PermissionDenied => "not permitted: ports below 1024 need CAP_NET_BIND_SERVICE".to_owned(),
        _ => e.to_string(),
    }
}

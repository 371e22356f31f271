//! Bound addresses: new ones are bound before a reload is accepted, old ones closed after it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::mpsc::{Receiver, UnboundedSender, channel};

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
    /// The address with the port the system chose.
    label: String,
}

/// The admin listener's socket: served by admin, bound with the others.
pub struct AdminSocket {
    bound: Option<BindAddr>,
    server: UnboundedSender<Option<Bound>>,
}

/// The admin socket of a world that is not published yet; `None`: it stays as it is.
pub struct PendingAdmin(Option<Option<(BindAddr, Bound)>>);

impl AdminSocket {
    pub fn new(server: UnboundedSender<Option<Bound>>) -> Self {
        Self { bound: None, server }
    }

    /// Binds what `plan` wants and is not bound yet.
    pub fn prepare(&self, plan: &Plan) -> Result<PendingAdmin, String> {
        let wanted = plan.admin.as_ref().map(|admin| &admin.bind);
        if wanted == self.bound.as_ref() {
            return Ok(PendingAdmin(None));
        }
        let Some(addr) = wanted else {
            return Ok(PendingAdmin(Some(None)));
        };
        let ours = self.bound.as_ref().is_some_and(|b| b.port() == addr.port());
        let bound = socket::bind(addr, 1, ours)
            .map_err(|e| format!("`[admin]`: cannot bind {addr}: {}", explain(&e)))?
            .pop();
        Ok(PendingAdmin(Some(bound.map(|bound| (addr.clone(), bound)))))
    }

    /// Hands the new socket to admin, which closes the old one.
    pub fn apply(&mut self, pending: PendingAdmin) {
        let Some(next) = pending.0 else { return };
        self.unlink();
        if let Some((addr, bound)) = &next {
            tracing::info!(listener = "admin", address = local_label(bound, addr), "listening");
        }
        let (addr, bound) = next.unzip();
        self.bound = addr;
        // Admin has ended only when the process has.
        let _ = self.server.send(bound);
    }

    /// Removes the file of a Unix socket.
    pub fn unlink(&self) {
        self.bound.iter().for_each(unlink);
    }
}

/// Sockets bound for a world that is not published yet; dropped, they are closed.
pub struct Pending(Vec<New>);

struct New {
    key: Key,
    listener: Arc<str>,
    label: String,
    copies: Vec<Bound>,
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

    /// Hands new sockets to the workers, gives those that changed listeners their new one, closes the rest. The
    /// receiver ends when what is closed is free for others, and for the next reload.
    pub fn apply(
        &mut self,
        pending: Pending,
        plan: &Plan,
        slot: impl Fn(&str) -> Option<usize>,
        crew: &Crew,
    ) -> Receiver<Infallible> {
        let (closing, closed) = channel(1);
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
            tracing::info!(listener = %new.listener, address = new.label, "listening");
            let label = new.label;
            for (index, socket) in new.copies.into_iter().enumerate() {
                crew.tell(index, Command::Listen { id, slot, socket });
            }
            self.bound.insert(new.key, Place { id, slot, label });
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
                crew.tell_all(|| Command::Close(place.id, closing.clone()));
                unlink(addr);
                return false;
            };
            if slot != place.slot {
                place.slot = slot;
                crew.tell_all(|| Command::Move { id: place.id, slot });
            }
            true
        });
        closed
    }

    /// Every bound address with the slot of its listener.
    pub fn places(&self) -> impl Iterator<Item = (usize, &str)> {
        self.bound.values().map(|place| (place.slot, place.label.as_str()))
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

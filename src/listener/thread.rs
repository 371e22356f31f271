//! One worker: an OS thread with a runtime of its own, told what to do by control.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::{Closing, Command, Fleet, SocketId, accept, conn};
use crate::proxy::warm;
use crate::proxy::worker::Worker;
use crate::snapshot::current::Current;
use crate::telemetry::access;
use crate::telemetry::shard::WorkerId;

/// All workers.
#[derive(Debug)]
pub struct Crew {
    commands: Box<[UnboundedSender<Command>]>,
    threads: Vec<JoinHandle<()>>,
    ended: UnboundedReceiver<()>,
}

/// Starts `count` workers, idle until told to listen.
pub fn start(count: usize, current: &Current, access: &access::Sender) -> io::Result<Crew> {
    let (commands, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| unbounded_channel()).unzip();
    let commands: Box<[_]> = commands.into();
    let loads = (0..count).map(|_| AtomicUsize::new(0)).collect();
    let fleet = Arc::new(Fleet {
        loads,
        commands: commands.clone(),
    });
    let (report, ended) = unbounded_channel();
    let mut threads = Vec::with_capacity(count);
    for (index, receiver) in receivers.into_iter().enumerate() {
        let (fleet, current, access, report) = (fleet.clone(), current.clone(), access.clone(), report.clone());
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                run(WorkerId(index + 1), fleet, &current, access, receiver);
                // Control may be gone already.
                let _ = report.send(());
            })?;
        threads.push(thread);
    }
    Ok(Crew {
        commands,
        threads,
        ended,
    })
}

impl Crew {
    pub fn count(&self) -> usize {
        self.commands.len()
    }

    /// Tells one worker. A worker that has ended hears nothing.
    pub fn tell(&self, index: usize, command: Command) {
        if let Some(worker) = self.commands.get(index) {
            let _ = worker.send(command);
        }
    }

    /// Tells every worker.
    pub fn tell_all(&self, command: impl Fn() -> Command) {
        for index in 0..self.count() {
            self.tell(index, command());
        }
    }

    /// Waits until every worker has ended, as they do after [`Command::Drain`] or [`Command::Stop`].
    pub async fn ended(&mut self) {
        for _ in 0..self.count() {
            if self.ended.recv().await.is_none() {
                break;
            }
        }
    }

    /// Joins threads that have ended.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker ended by a panic");
            }
        }
    }
}

fn run(
    id: WorkerId,
    fleet: Arc<Fleet>,
    current: &Current,
    access: access::Sender,
    commands: UnboundedReceiver<Command>,
) {
    let runtime = match Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "a worker cannot start");
            return;
        }
    };
    let worker = Rc::new(Worker::new(id, current.reader(), access));
    runtime.block_on(obey(worker, fleet, commands));
}

async fn obey(worker: Rc<Worker>, fleet: Arc<Fleet>, mut commands: UnboundedReceiver<Command>) {
    let mut sockets: HashMap<SocketId, (Rc<Cell<usize>>, oneshot::Sender<Closing>)> = HashMap::new();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        if worker.draining.get() && worker.connections.get() == 0 && commands.is_empty() {
            return;
        }
        let command = tokio::select! {
            command = commands.recv() => command,
            _ = second.tick() => {
                worker.pools.sweep();
                worker.resting.sweep();
                warm::up(&worker);
                continue;
            }
            () = worker.left.notified(), if worker.draining.get() => continue,
        };
        match command {
            Some(Command::Listen { id, slot, socket }) => {
                let slot = Rc::new(Cell::new(slot));
                let (stop, stopped) = oneshot::channel();
                let accepting = accept::accept(worker.clone(), fleet.clone(), socket, slot.clone(), stopped);
                tokio::task::spawn_local(accepting);
                sockets.insert(id, (slot, stop));
            }
            Some(Command::Move { id, slot }) => {
                if let Some((current, _)) = sockets.get(&id) {
                    current.set(slot);
                }
            }
            Some(Command::Close(id, closing)) => {
                if let Some((_, stop)) = sockets.remove(&id) {
                    // It ended by itself when the socket could not be watched.
                    let _ = stop.send(closing);
                }
            }
            Some(Command::Adopt(accepted)) => conn::welcome(&worker, &fleet, accepted),
            Some(Command::Changed) => {
                worker.call();
                warm::up(&worker);
            }
            Some(Command::Drain) => {
                sockets.clear();
                // What waits on the sockets is accepted before they close.
                tokio::task::yield_now().await;
                worker.draining.set(true);
                worker.call();
            }
            Some(Command::Stop) | None => return,
        }
    }
}

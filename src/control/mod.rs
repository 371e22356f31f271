//! The life of the process: start, reload, drain. The only place that sees both the configuration and the
//! running world.

pub mod background;
pub mod build;
mod caches;
pub mod changes;
mod checks;
mod dialers;
pub mod leaving;
mod members;
pub mod offline;
mod outliers;
pub mod signals;
pub mod sockets;
pub mod sources;
pub mod status;

use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use self::background::Background;
use self::build::World;
use self::signals::{Signals, Told};
use self::sockets::{AdminSocket, Sockets};
use self::sources::Sources;
pub use self::status::Rejected;
use self::status::Status;
use crate::base::terminal::colours;
use crate::config::plan::{LogFormat, Plan};
use crate::config::report::Report;
use crate::config::{self, Loaded};
use crate::listener::{self, Command, Crew};
use crate::net::nofile;
use crate::net::socket::Bound;
use crate::snapshot::current::Current;
use crate::telemetry::access::{self, AccessLog, Output};
use crate::telemetry::log::{self, Log};

/// What the command line decided.
pub struct Start {
    pub source: Source,
    pub log: LogOptions,
    pub admin: AdminServer,
}

/// Starts what serves the admin listener, on whatever socket it is sent last.
pub type AdminServer = fn(Operator, mpsc::UnboundedReceiver<Option<Bound>>);

/// What the admin listener shows, and what it may ask for.
pub struct Operator {
    pub current: Current,
    pub status: Arc<Status>,
    pub reload: mpsc::Sender<ReloadRequest>,
    access: access::Sender,
}

impl Operator {
    /// Lines missing in the access log.
    pub fn dropped_lines(&self) -> u64 {
        self.access.dropped()
    }
}

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub enum Source {
    File(PathBuf),
    Text { name: String, text: String },
}

/// What overrides `[log]` of the configuration.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    pub level: Option<String>,
    pub format: Option<LogFormat>,
}

/// Somebody asks for a reload and wants to know: what changed, or all errors.
pub struct ReloadRequest {
    pub answer: oneshot::Sender<Result<String, Rejected>>,
}

/// Reloads that may be asked for at once.
const MAX_REQUESTS: usize = 8;
/// For workers to close the sockets of what a reload took away.
const CLOSING: Duration = Duration::from_secs(1);
/// For what caches have yet to write behind their memory.
const LAST_WRITES: Duration = Duration::from_secs(2);
/// For the access log's last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

impl Source {
    /// Reads and checks it.
    pub fn load(&self) -> Result<Loaded, Report> {
        match self {
            Self::File(path) => config::load(path),
            Self::Text { name, text } => config::load_text(name, text),
        }
    }

    /// For people.
    pub fn label(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Text { name, .. } => name.clone(),
        }
    }
}

/// Runs until told to stop. What goes wrong before anything is served is told on standard error.
pub fn run(start: Start) -> ExitCode {
    let loaded = match start.source.load() {
        Ok(loaded) => loaded,
        Err(report) => {
            complain(report.render(colours(&std::io::stderr())));
            return ExitCode::FAILURE;
        }
    };
    complain(loaded.warnings.render(colours(&std::io::stderr())));
    let result = prepare(start, loaded.plan).and_then(|(mut process, runtime)| {
        let served = runtime.block_on(process.serve());
        if served.is_ok() {
            process.crew.join();
        }
        for kept in &process.current.get().caches {
            kept.cache.tiers.close(LAST_WRITES);
        }
        process.access.stop(LAST_LINES);
        served
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(format_args!("evenkeel: {why}\n"));
            ExitCode::FAILURE
        }
    }
}

/// The running process, as control sees it.
struct Process {
    source: Source,
    options: LogOptions,
    log: Log,
    plan: Plan,
    world: World,
    sources: Sources,
    current: Current,
    sockets: Sockets,
    admin: AdminSocket,
    access: AccessLog,
    requests: mpsc::Receiver<ReloadRequest>,
    crew: Crew,
    background: Background,
    status: Arc<Status>,
    nofile: u64,
}

fn prepare(start: Start, plan: Plan) -> Result<(Process, tokio::runtime::Runtime), String> {
    let Start {
        source,
        log: options,
        admin: start_admin,
    } = start;
    let level = options.level.clone().unwrap_or_else(|| plan.log.level.clone());
    let format = match options.format.unwrap_or(plan.log.format) {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    let log = log::start(&level, format)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let workers = plan.server.workers;
    let current = Current::default();
    let access = access::start().map_err(|e| format!("cannot start the access log: {e}"))?;
    let crew =
        listener::start(workers, &current, &access.sender()).map_err(|e| format!("cannot start workers: {e}"))?;
    let (reload, requests) = mpsc::channel(MAX_REQUESTS);
    let (admin, admin_sockets) = mpsc::unbounded_channel();
    let status = Arc::new(Status::new(workers, source.label()));
    let operator = Operator {
        current: current.clone(),
        status: status.clone(),
        reload,
        access: access.sender(),
    };
    let background = {
        let _runtime = runtime.enter();
        (start_admin)(operator, admin_sockets);
        Background::new(current.clone())
    };
    let process = Process {
        options,
        log,
        plan,
        world: World::new(workers)?,
        sources: Sources::default(),
        background,
        current,
        sockets: Sockets::default(),
        admin: AdminSocket::new(admin),
        access,
        requests,
        crew,
        status,
        nofile: nofile::raise(),
        source,
    };
    Ok((process, runtime))
}

impl Process {
    async fn serve(&mut self) -> Result<(), String> {
        let mut signals = Signals::listen().map_err(|e| format!("cannot listen for signals: {e}"))?;
        let plan = self.plan.clone();
        self.publish(plan).await?;
        self.report_limits();
        self.status.set_ready();
        tracing::info!(
            workers = self.crew.count(),
            config = %self.source.label(),
            version = env!("CARGO_PKG_VERSION"),
            "ready"
        );
        notify(&[sd_notify::NotifyState::Ready]);
        loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::Reload => drop(self.reload().await),
                    Told::ReopenLogs => self.reopen_logs(),
                    Told::Stop => break,
                },
                Some(request) = self.requests.recv() => {
                    let result = self.reload().await;
                    // Whoever asked may be gone.
                    let _ = request.answer.send(result);
                }
                () = self.sources.changed() => self.follow(),
            }
        }
        self.drain(&mut signals).await;
        Ok(())
    }

    /// Makes `plan` the running world, or changes nothing.
    async fn publish(&mut self, plan: Plan) -> Result<(), String> {
        let result = self.try_publish(plan).await;
        self.sources.keep(&self.plan);
        self.status.set_sources(self.sources.reports(&self.plan));
        // An answer may have come since.
        self.follow();
        result
    }

    async fn try_publish(&mut self, plan: Plan) -> Result<(), String> {
        let found = self.sources.prepare(&plan).await;
        let (world, snapshot) = self.world.build(&plan, &found, &self.current.get())?;
        let pending = self.sockets.prepare(&plan, self.crew.count())?;
        let admin = self.admin.prepare(&plan)?;
        let log_changes = self.current.get().generation == 0 || plan.access_log != self.plan.access_log;
        let output = match log_changes {
            true => Some(output(&plan)?),
            false => None,
        };
        // Nothing fails from here on.
        if let Some(output) = output {
            self.access.switch(output);
        }
        let kept = (snapshot.caches.clone(), self.current.get().caches.clone());
        let before = leaving::present(&self.current.get());
        self.current.publish(snapshot);
        self.status.leaving.part(before, &leaving::present(&self.current.get()));
        caches::settle(&kept.0, &kept.1);
        self.crew.tell_all(|| Command::Changed);
        let mut closed = self.sockets.apply(pending, &plan, |name| world.slot(name), &self.crew);
        self.admin.apply(admin);
        let name = |slot| plan.listeners.iter().find(|l| world.slot(&l.name) == Some(slot));
        let places = self.sockets.places();
        self.status.set_listening(
            places
                .filter_map(|(slot, address)| Some((name(slot)?.name.clone(), address.to_owned())))
                .collect(),
        );
        (self.world, self.plan) = (world, plan);
        self.background.follow(&self.plan, &self.current.get());
        // The next reload may want an address that this one gave up.
        let _ = tokio::time::timeout(CLOSING, closed.recv()).await;
        Ok(())
    }

    /// Reads the configuration again. `Ok`: what changed; `Err`: every error, and nothing changed.
    async fn reload(&mut self) -> Result<String, Rejected> {
        if let Ok(now) = sd_notify::NotifyState::monotonic_usec_now() {
            notify(&[sd_notify::NotifyState::Reloading, now]);
        }
        let result = self.try_reload().await;
        match &result {
            Ok(changes) => {
                tracing::info!(generation = self.current.get().generation, changes, "reloaded");
            }
            Err(rejected) => tracing::error!(errors = %rejected.text, "reload rejected"),
        }
        self.status.reloaded(result.clone());
        notify(&[sd_notify::NotifyState::Ready]);
        result
    }

    async fn try_reload(&mut self) -> Result<String, Rejected> {
        let Loaded { plan, warnings } = self.source.load()?;
        if !warnings.is_empty() {
            tracing::warn!(warnings = %warnings.render(false), "the configuration has warnings");
        }
        if plan.server.workers != self.plan.server.workers {
            tracing::warn!("`server.workers` changes with the next start only");
        }
        let changes = changes::between(&self.plan, &plan);
        self.publish(plan).await?;
        if self.options.level.is_none() {
            self.log.set_level(&self.plan.log.level)?;
        }
        Ok(if changes.is_empty() {
            "nothing".to_owned()
        } else {
            changes.join(", ")
        })
    }

    /// Opens the access log's file anew: the old one was moved away.
    fn reopen_logs(&self) {
        match output(&self.plan) {
            Ok(output) => {
                self.access.switch(output);
                tracing::info!("log files reopened");
            }
            Err(error) => tracing::error!(error, "log files cannot be reopened: the old ones are written on"),
        }
    }

    /// Sources have news: their upstreams get other endpoints.
    fn follow(&mut self) {
        let snapshot = self.current.get();
        let changed = self.world.follow(&self.plan, self.sources.follow(&self.plan));
        if changed.is_empty() {
            return;
        }
        for (n, members) in changed {
            if let Some(upstream) = snapshot.upstreams.get(n) {
                members::tell(&upstream.name, &upstream.members(), &members);
                let before = leaving::members(upstream);
                upstream.set_members(members);
                self.status.leaving.part(before, &leaving::members(upstream));
            }
        }
        self.background.follow(&self.plan, &snapshot);
    }

    /// Lets what runs finish within the grace; a second signal ends it at once.
    async fn drain(&mut self, signals: &mut Signals) {
        self.status.set_draining();
        notify(&[sd_notify::NotifyState::Stopping]);
        let grace = self.plan.server.shutdown_grace;
        tracing::info!(grace = ?grace, "draining");
        self.crew.tell_all(|| Command::Drain);
        self.sockets.unlink();
        self.admin.unlink();
        let asked_again = async { while signals.next().await != Told::Stop {} };
        let cut = tokio::select! {
            () = self.crew.ended() => None,
            () = tokio::time::sleep(grace) => Some("the grace is over"),
            () = asked_again => Some("asked to stop again"),
        };
        match cut {
            None => tracing::info!("stopped: every connection had ended"),
            Some(why) => {
                tracing::warn!(why, "stopped: connections were cut");
                self.crew.tell_all(|| Command::Stop);
                // Workers see it between two polls of their connections.
                let _ = tokio::time::timeout(Duration::from_secs(2), self.crew.ended()).await;
            }
        }
    }

    /// Says what the limit on open files allows: every proxied connection takes two.
    fn report_limits(&self) {
        let per_listener = self
            .plan
            .listeners
            .iter()
            .map(|l| l.max_connections.map_or(0, |n| n as u64));
        let wanted = per_listener.sum::<u64>() * 2;
        if wanted > self.nofile {
            tracing::warn!(
                limit = self.nofile,
                wanted,
                "the limit on open files is lower than `max_connections` of the listeners may need"
            );
        } else {
            tracing::info!(limit = self.nofile, "open files");
        }
    }
}

/// To standard error; nobody has to read it.
fn complain(text: impl Display) {
    let _ = write!(std::io::stderr(), "{text}");
}

/// Where the access log goes; `None`: there is none.
fn output(plan: &Plan) -> Result<Option<Output>, String> {
    let path = plan.access_log.path.as_deref();
    let format = match plan.access_log.format {
        None => return Ok(None),
        Some(LogFormat::Text) => access::Format::Text,
        Some(LogFormat::Json) => access::Format::Json,
    };
    Output::open(format, path).map(Some).map_err(|e| {
        let path = path.map_or_else(|| "standard output".to_owned(), |p| p.display().to_string());
        format!("`[access_log]`: cannot open {path}: {e}")
    })
}

/// Tells systemd, when it started us.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

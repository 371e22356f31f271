//! The thread that writes the access log, so that a slow disk or a stalled pipe never holds a worker up.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Format, Line, Sender};

/// Lines that may wait: with the longest targets some 80 MiB, usually a few.
const QUEUE: usize = 8192;
/// The writer gathers lines for so long, so that it is not woken for each.
const GATHER: Duration = Duration::from_millis(10);
const BATCH_BYTES: usize = 64 << 10;
/// How often write errors are told.
const COMPLAIN: Duration = Duration::from_secs(10);

/// Where lines go and how they look.
#[derive(Debug)]
pub struct Output {
    format: Format,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    Stdout,
    File(File),
}

impl Output {
    /// Opens `path` for appending (created with mode 0640); `None` is standard output.
    pub fn open(format: Format, path: Option<&Path>) -> io::Result<Self> {
        let sink = match path {
            None => Sink::Stdout,
            Some(path) => {
                let mut options = File::options();
                Sink::File(options.append(true).create(true).mode(0o640).open(path)?)
            }
        };
        Ok(Self { format, sink })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.sink {
            Sink::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Sink::File(file) => file.write_all(bytes),
        }
    }
}

#[derive(Debug)]
pub(super) enum Message {
    Line(Box<Line>),
    /// Something in [`Shared`] has changed.
    Look,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    dropped: AtomicU64,
    stop: AtomicBool,
    /// The next output; the inner `None` switches the log off.
    next: Mutex<Option<Option<Output>>>,
}

impl Shared {
    pub(super) fn drop_lines(&self, n: u64) {
        self.dropped.fetch_add(n, Relaxed);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    fn next(&self) -> std::sync::MutexGuard<'_, Option<Option<Output>>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running access log.
#[derive(Debug)]
pub struct AccessLog {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// Starts the writer with nowhere to write to.
pub fn start() -> io::Result<AccessLog> {
    let (queue, lines) = sync_channel(QUEUE);
    let shared = Arc::new(Shared::default());
    let mut writer = Writer {
        lines,
        shared: shared.clone(),
        output: None,
        batch: Vec::with_capacity(BATCH_BYTES),
        batched: 0,
        complained: None,
    };
    let thread = std::thread::Builder::new()
        .name("access-log".to_owned())
        .spawn(move || writer.run())?;
    Ok(AccessLog { queue, shared, thread })
}

impl AccessLog {
    pub fn sender(&self) -> Sender {
        Sender(Some((self.queue.clone(), self.shared.clone())))
    }

    /// Writes what comes from now on to `output`; `None`: nowhere.
    pub fn switch(&self, output: Option<Output>) {
        *self.shared.next() = Some(output);
        self.wake();
    }

    /// Writes what waits, for at most `patience`.
    pub fn stop(self, patience: Duration) {
        self.shared.stop.store(true, Relaxed);
        self.wake();
        let deadline = Instant::now() + patience;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn wake(&self) {
        // A full queue means that the writer is awake, and it looks after every batch.
        let _ = self.queue.try_send(Message::Look);
    }
}

struct Writer {
    lines: Receiver<Message>,
    shared: Arc<Shared>,
    output: Option<Output>,
    batch: Vec<u8>,
    batched: u64,
    complained: Option<Instant>,
}

impl Writer {
    fn run(&mut self) {
        while let Ok(message) = self.lines.recv() {
            if matches!(message, Message::Line(_)) {
                std::thread::sleep(GATHER);
            }
            self.take(message);
            // A bounded turn: a change of output is seen even when the queue is always full.
            for _ in 0..QUEUE {
                match self.lines.try_recv() {
                    Ok(message) => self.take(message),
                    Err(_) => break,
                }
            }
            self.look();
            if self.shared.stop.load(Relaxed) {
                return;
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Line(line) => self.add(&line),
            Message::Look => self.look(),
        }
    }

    fn look(&mut self) {
        self.flush();
        let next = self.shared.next().take();
        if let Some(output) = next {
            self.output = output;
        }
    }

    fn add(&mut self, line: &Line) {
        let Some(output) = &self.output else { return };
        output.format.render(line, &mut self.batch);
        self.batched += 1;
        if self.batch.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let lines = std::mem::take(&mut self.batched);
        if let (Some(output), true) = (&mut self.output, lines > 0)
            && let Err(error) = output.write(&self.batch)
        {
            self.shared.drop_lines(lines);
            if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN) {
                self.complained = Some(Instant::now());
                tracing::warn!(%error, lines, "the access log cannot be written");
            }
        }
        self.batch.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn line(target: &str) -> Box<Line> {
        Box::new(Line {
            target: target.to_owned(),
            status: 200,
            ..Line::default()
        })
    }

    #[test]
    fn a_switch_loses_no_line_and_keeps_the_order() {
        let dir = tempfile::tempdir().unwrap();
        let log = start().unwrap();
        let shared = log.shared.clone();
        for n in 0..300 {
            if n % 100 == 0 {
                let path = dir.path().join(format!("{n}.log"));
                log.switch(Some(Output::open(Format::Json, Some(&path)).unwrap()));
            }
            log.sender().send(line(&n.to_string()));
        }
        log.stop(PATIENCE);
        let files = [0, 100, 200].map(|n| std::fs::read_to_string(dir.path().join(format!("{n}.log"))).unwrap());
        let targets: Vec<String> = files
            .concat()
            .lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["target"].to_string())
            .collect();
        let expected: Vec<String> = (0..300).map(|n| format!("\"{n}\"")).collect();
        assert_eq!(targets, expected);
        assert_eq!(shared.dropped(), 0);
    }

    #[test]
    fn what_nobody_takes_is_dropped_and_counted() {
        let (queue, lines) = sync_channel(2);
        let shared = Arc::new(Shared::default());
        let sender = Sender(Some((queue, shared.clone())));
        (0..5).for_each(|_| sender.send(line("/")));
        assert_eq!(shared.dropped(), 3);
        drop(lines);
        sender.send(line("/"));
        assert_eq!(shared.dropped(), 4);
    }

    #[test]
    fn a_disk_that_is_full_counts_what_is_lost() {
        let log = start().unwrap();
        let full = Output::open(Format::Text, Some(Path::new("/dev/full"))).unwrap();
        log.switch(Some(full));
        (0..3).for_each(|_| log.sender().send(line("/")));
        let shared = log.shared.clone();
        log.stop(PATIENCE);
        assert_eq!(shared.dropped(), 3);
    }
}

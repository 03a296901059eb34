//! Where log lines go: to standard error, as text for a terminal and JSON for everything else, filtered as the configuration says.
//!
//! ```text
//! event ─▶ filter (replaced at a reload) ─▶ text or JSON ─▶ buffer ─▶ thread `labgate-log` ─▶ standard error
//! ```
//!
//! The thread stands between so that a log pipe nobody reads can't hold up a request. When the buffer is full, lines are dropped and counted.

use std::{
    error::Error,
    fmt,
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt::MakeWriter, layer::SubscriberExt, registry::LookupSpan,
    reload, util::SubscriberInitExt,
};

use crate::config::{LogFormat, Telemetry};

/// Why logs can't be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter can't be read.
    #[error("telemetry.log is not a log filter")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Logs have been set up before.
    #[error("logs are already set up in this process")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    /// The filter can't be replaced.
    #[error("the log filter can't be replaced")]
    Replace(#[from] reload::Error),
    /// The thread that writes can't be started.
    #[error("the thread that writes logs can't be started")]
    Thread(#[from] io::Error),
}

/// Keeps logs flowing; when it goes, what is buffered is written, for at most a second.
#[derive(Debug)]
pub struct LogGuard {
    filter: reload::Handle<EnvFilter, Registry>,
    lines: Lines,
}

/// Sets up the logs of this process; `terminal` says whether a person reads standard error.
///
/// # Errors
/// When the filter can't be read, or logs have been set up before.
pub fn start_logging(config: &Telemetry, terminal: bool) -> Result<LogGuard, LogError> {
    let lines = Lines::default();
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(&config.log)?);
    let form = Form::of(config.format, terminal);
    tracing_subscriber::registry().with(filter).with(form.layer(lines.clone())).try_init()?;
    lines.write_to(io::stderr())?;
    Ok(LogGuard { filter: handle, lines })
}

/// `error` with all its causes, for a field of a line: JSON lines would drop the causes of an error that is logged as such.
pub fn causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl LogGuard {
    /// Follows a changed filter; a changed format needs a restart.
    ///
    /// # Errors
    /// When the filter can't be read; then the one before stays.
    pub fn reload(&self, config: &Telemetry) -> Result<(), LogError> {
        Ok(self.filter.reload(EnvFilter::try_new(&config.log)?)?)
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.lines.flush(Duration::from_secs(1));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Text { terminal: bool },
}

impl Form {
    pub(super) fn of(format: LogFormat, terminal: bool) -> Self {
        match format {
            LogFormat::Auto if terminal => Self::Text { terminal },
            LogFormat::Text => Self::Text { terminal },
            LogFormat::Auto | LogFormat::Json => Self::Json,
        }
    }

    /// Turns events into lines of this form.
    pub(super) fn layer<S, W>(self, writer: W) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        let layer = tracing_subscriber::fmt::layer().with_writer(writer);
        match self {
            Self::Json => layer
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .boxed(),
            // Left alone, the layer asks NO_COLOR whether the person wants colours.
            Self::Text { terminal: true } => layer.boxed(),
            Self::Text { terminal: false } => layer.with_ansi(false).boxed(),
        }
    }
}

/// Most bytes that wait to be written.
const CAPACITY: usize = 1 << 20;
/// How long the thread lets lines gather, so that a busy process writes many at once.
const GATHER: Duration = Duration::from_millis(5);
/// With so many bytes it does not wait.
const BATCH: usize = 32 << 10;

/// Lines between those who log and the thread that writes.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    dropped: u64,
    writing: bool,
    hurry: bool,
}

impl Lines {
    /// Starts the thread that writes what comes, until the end of the process.
    pub(super) fn write_to(&self, mut out: impl Write + Send + 'static) -> io::Result<()> {
        let lines = self.clone();
        let run = move || {
            let (mut batch, mut told) = (Vec::new(), 0);
            loop {
                let dropped = lines.take(&mut batch);
                // Nobody is left to tell if standard error is closed; serving goes on.
                drop(out.write_all(&batch).and_then(|()| out.flush()));
                batch.clear();
                if dropped > told {
                    let lines = dropped - told;
                    tracing::warn!(
                        lines,
                        "log lines were dropped: standard error is read too slowly"
                    );
                    told = dropped;
                }
            }
        };
        thread::Builder::new().name("labgate-log".into()).spawn(run)?;
        Ok(())
    }

    /// Waits until everything is written, but no longer than `most`.
    pub(super) fn flush(&self, most: Duration) {
        let mut waiting = self.lock();
        waiting.hurry = true;
        self.0.changed.notify_all();
        let is_busy = |waiting: &mut Waiting| waiting.writing || !waiting.bytes.is_empty();
        let wait = self.0.changed.wait_timeout_while(waiting, most, is_busy);
        let (mut waiting, _) = wait.unwrap_or_else(PoisonError::into_inner);
        waiting.hurry = false;
    }

    /// Waits for lines, swaps them into the empty `batch`, and tells how many were ever dropped.
    fn take(&self, batch: &mut Vec<u8>) -> u64 {
        let changed = &self.0.changed;
        let mut waiting = self.lock();
        waiting.writing = false;
        changed.notify_all();
        let wait = changed.wait_while(waiting, |waiting| waiting.bytes.is_empty());
        let waiting = wait.unwrap_or_else(PoisonError::into_inner);
        let may_gather = |waiting: &mut Waiting| !waiting.hurry && waiting.bytes.len() < BATCH;
        let wait = changed.wait_timeout_while(waiting, GATHER, may_gather);
        let (mut waiting, _) = wait.unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut waiting.bytes, batch);
        waiting.writing = true;
        waiting.dropped
    }

    fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.bytes.len() + line.len() > CAPACITY {
            waiting.dropped += 1;
            return;
        }
        let before = waiting.bytes.len();
        waiting.bytes.extend_from_slice(line);
        let wakes = before == 0 || (before < BATCH && waiting.bytes.len() >= BATCH);
        drop(waiting);
        if wakes {
            self.0.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Lines")
    }
}

/// The subscriber writes each event as a whole, in one call.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Passes on what is written, but only as the test takes it.
    struct Pipe(mpsc::SyncSender<Vec<u8>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let sent = self.0.send(bytes.to_vec());
            sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_out_in_order() {
        let lines = Lines::default();
        let (send, receive) = mpsc::sync_channel(100);
        lines.write_to(Pipe(send)).unwrap();
        for number in 0..100 {
            lines.push(format!("{number}\n").as_bytes());
        }
        lines.flush(Duration::from_secs(10));
        let written: Vec<u8> = receive.try_iter().flatten().collect();
        let expected: String =
            (0..100).flat_map(|number| [number.to_string(), "\n".into()]).collect();
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }

    #[test]
    fn a_stalled_pipe_holds_nobody_up_and_costs_bounded_memory() {
        let lines = Lines::default();
        let (send, _receive) = mpsc::sync_channel(0);
        lines.write_to(Pipe(send)).unwrap();
        let line = [b'x'; 1024];
        for _ in 0..4096 {
            lines.push(&line);
        }
        let waiting = lines.lock();
        assert!(waiting.bytes.len() <= CAPACITY);
        assert!(waiting.dropped >= 2048, "{}", waiting.dropped);
    }

    #[test]
    fn a_closed_pipe_ends_nothing() {
        let lines = Lines::default();
        let (send, receive) = mpsc::sync_channel(1);
        drop(receive);
        lines.write_to(Pipe(send)).unwrap();
        lines.push(b"one\n");
        lines.flush(Duration::from_secs(10));
        lines.push(b"two\n");
        lines.flush(Duration::from_secs(10));
        assert!(lines.lock().bytes.is_empty());
    }

    #[test]
    fn auto_is_text_for_people_and_json_for_machines() {
        let cases = [
            (LogFormat::Auto, true, Form::Text { terminal: true }),
            (LogFormat::Auto, false, Form::Json),
            (LogFormat::Text, false, Form::Text { terminal: false }),
            (LogFormat::Json, true, Form::Json),
        ];
        for (format, terminal, form) in cases {
            assert_eq!(Form::of(format, terminal), form);
        }
    }
}

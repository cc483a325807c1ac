//! What a worker process writes to its standard output: one JSON object on each line.

use std::{
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use crate::progress::{Event, Progress};

/// One line of a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// The stage reports.
    Event(Event),
    /// The job is done; `ran` is false if another process had done it.
    Done {
        /// Whether this worker did it.
        ran: bool,
    },
}

impl Line {
    /// Understands a line; `None` for whatever else a process may print.
    pub fn parse(text: &str) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_str(text).ok()?;
        match value.get("event")?.as_str()? {
            "done" => Some(Self::Done { ran: value.get("ran")?.as_bool()? }),
            _ => serde_json::from_value(value).ok().map(Self::Event),
        }
    }
}

/// Least time between two reports of the same task: stages may report each step.
const PAUSE: Duration = Duration::from_millis(80);

/// Least time between two lines of a job's log about the same task.
const LOG_PAUSE: Duration = Duration::from_secs(10);

/// A worker's [`Progress`]: writes lines, listens to a count of stop requests. Standard error,
/// which is the job's log, gets a line for people now and then.
pub struct Pipe {
    stops: Arc<AtomicUsize>,
    state: Mutex<Throttle>,
}

struct Throttle {
    last: Instant,
    logged: Instant,
    task: String,
    unit: String,
    total: u64,
}

impl Pipe {
    /// Reports to standard output and stops once `stops` is above zero.
    pub fn new(stops: Arc<AtomicUsize>) -> Self {
        let now = Instant::now();
        let (task, unit) = (String::new(), String::new());
        let state = Throttle { last: now, logged: now, task, unit, total: 0 };
        Self { stops, state: Mutex::new(state) }
    }

    /// Writes the last line of a job.
    pub fn done(&self, ran: bool) {
        write(&json!({"event": "done", "ran": ran}).to_string());
    }

    fn worth_writing(&self, event: &Event) -> bool {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match event {
            Event::Begin { task, total, unit } => {
                (state.total, state.logged) = (*total, Instant::now());
                state.task.clone_from(task);
                state.unit.clone_from(unit);
            }
            Event::At { done, .. } if *done < state.total && state.last.elapsed() < PAUSE => {
                return false;
            }
            Event::At { .. } => state.last = Instant::now(),
            Event::Warn { .. } => {}
        }
        true
    }

    /// The line of the log that is due for `event`, if one is.
    fn log_line(&self, event: &Event) -> Option<String> {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Throttle { task, unit, total, .. } = &*state;
        match event {
            Event::Begin { .. } => Some(format!("{task}: {total} {unit}s")),
            Event::Warn { message } => Some(format!("warning: {message}")),
            Event::At { done, note } => {
                if *done < *total && state.logged.elapsed() < LOG_PAUSE {
                    return None;
                }
                let line = format!("{task}: {unit} {done}/{total} {note}");
                state.logged = Instant::now();
                Some(line.trim_end().to_owned())
            }
        }
    }
}

impl Progress for Pipe {
    fn event(&self, event: Event) {
        if self.worth_writing(&event) {
            if let Some(line) = self.log_line(&event) {
                let _ = writeln!(std::io::stderr().lock(), "{line}");
            }
            write(&serde_json::to_string(&event).expect("events are JSON"));
        }
    }

    fn stopping(&self) -> bool {
        self.stops.load(Ordering::Relaxed) > 0
    }
}

/// A parent that is gone must not take the job down before it has saved its state.
fn write(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_and_noise_is_ignored() {
        let event = Event::At { done: 3, note: "loss 1.0".into() };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(Line::parse(&text), Some(Line::Event(event)));
        assert_eq!(
            Line::parse("{\"event\":\"done\",\"ran\":true}"),
            Some(Line::Done { ran: true })
        );
        for noise in ["", "running 1 test", "{}", "{\"event\":\"x\"}", "[1"] {
            assert_eq!(Line::parse(noise), None, "{noise}");
        }
    }
}

//! What a worker process writes to its standard output: one JSON object on each line.

use std::{
    io::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use crate::progress::{Course, Event, Progress};

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
    course: Course,
}

impl Pipe {
    /// Reports to standard output and stops once `stops` is above zero.
    pub fn new(stops: Arc<AtomicUsize>) -> Self {
        let state = Throttle { last: Instant::now(), course: Course::default() };
        Self { stops, state: Mutex::new(state) }
    }

    /// Writes the last line of a job.
    pub fn done(&self, ran: bool) {
        write(&json!({"event": "done", "ran": ran}).to_string());
    }

    /// Takes in `event`: whether it is worth a line of the pipe, and the line of the log that is
    /// due for it.
    fn hear(&self, event: &Event) -> (bool, Option<String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.course.hear(event);
        let Throttle { course, last } = &mut *state;
        match event {
            Event::Begin { task, total, unit } => {
                // The first line of a task, so the next one has time.
                course.is_due(Duration::ZERO);
                (true, Some(format!("{task}: {total} {unit}s")))
            }
            Event::Warn { message } => (true, Some(format!("warning: {message}"))),
            Event::At { done, .. } => {
                let worth = *done >= course.total || last.elapsed() >= PAUSE;
                if worth {
                    *last = Instant::now();
                }
                let due = worth && course.is_due(LOG_PAUSE);
                (worth, due.then(|| format!("{}: {}", course.task, course.line())))
            }
        }
    }
}

impl Progress for Pipe {
    fn event(&self, event: Event) {
        let (worth, line) = self.hear(&event);
        if let Some(line) = line {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        }
        if worth {
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

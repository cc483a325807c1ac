//! What long work tells whoever watches, and how it learns that it should stop.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Names the environment variable.
const PERIOD: &str = "GAUNTLET_CHECKPOINT_SECONDS";

/// How often trainings save what they go on from, where the environment variable
/// `GAUNTLET_CHECKPOINT_SECONDS` says it. It cannot change a result, so it is part of no recipe.
///
/// # Errors
/// If it is no whole number.
pub fn checkpoint_period() -> Result<Option<Duration>> {
    let Ok(text) = std::env::var(PERIOD) else { return Ok(None) };
    let seconds = text.parse().map_err(|_| {
        Error::input(format!("{PERIOD}: `{text}` is not a whole number of seconds"))
    })?;
    Ok(Some(Duration::from_secs(seconds)))
}

/// One report from a running stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A task begins: its name ("train"), how many steps it has, what a step is ("image").
    Begin {
        /// What is being done.
        task: String,
        /// How many units it takes.
        total: u64,
        /// The unit, singular.
        unit: String,
    },
    /// So many units of the current task are done, with a word on how it goes ("loss 1.73").
    At {
        /// Units done since `Begin`.
        done: u64,
        /// A few words, or nothing.
        note: String,
    },
    /// Something the user should read: a warning of a defence check, a fallback taken.
    Warn {
        /// The whole message.
        message: String,
    },
}

/// Where a stage reports to. Implementations print bars, write lines for a parent, or do nothing.
pub trait Progress: Sync {
    /// Takes one report.
    fn event(&self, event: Event);

    /// Whether somebody asked the work to stop. A stage that sees `true` saves what it can resume
    /// from and returns [`crate::error::Error::Interrupted`].
    fn stopping(&self) -> bool;
}

/// Hears nothing and never stops: for tests.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event) {}

    fn stopping(&self) -> bool {
        false
    }
}

impl dyn Progress + '_ {
    /// Reports that a task begins.
    pub fn begin(&self, task: &str, total: u64, unit: &str) {
        self.event(Event::Begin { task: task.to_owned(), total, unit: unit.to_owned() });
    }

    /// Reports how far the current task is.
    pub fn at(&self, done: u64, note: impl Into<String>) {
        self.event(Event::At { done, note: note.into() });
    }

    /// Reports something the user should read.
    pub fn warn(&self, message: impl Into<String>) {
        self.event(Event::Warn { message: message.into() });
    }
}

/// One task as its events tell it, for whoever shows it: how far it is and what it still takes.
#[derive(Debug, Clone)]
pub struct Course {
    /// What is being done; empty before the first event.
    pub task: String,
    /// What it is counted in, singular.
    pub unit: String,
    /// How many units it takes; 0 if nobody knows.
    pub total: u64,
    /// How many are done.
    pub done: u64,
    /// The last word on how it goes.
    pub note: String,
    /// The first report of this session: what an earlier one did cost no time now.
    first: Option<(Instant, u64)>,
    spoke: Instant,
}

impl Default for Course {
    fn default() -> Self {
        let [task, unit, note] = [const { String::new() }; 3];
        Self { task, unit, total: 0, done: 0, note, first: None, spoke: Instant::now() }
    }
}

impl Course {
    /// Takes in a report.
    pub fn hear(&mut self, event: &Event) {
        match event {
            Event::Begin { task, total, unit } => {
                self.task.clone_from(task);
                self.unit.clone_from(unit);
                (self.total, self.done, self.first) = (*total, 0, None);
                self.note.clear();
            }
            Event::At { done, note } => {
                self.first.get_or_insert((Instant::now(), *done));
                self.done = *done;
                self.note.clone_from(note);
            }
            Event::Warn { .. } => {}
        }
    }

    /// The part that is done, 0 to 1.
    pub fn share(&self) -> f64 {
        if self.total == 0 { 0.0 } else { (self.done as f64 / self.total as f64).min(1.0) }
    }

    /// Whether a line is due, `pause` after the one before; the last of a task always is.
    pub fn is_due(&mut self, pause: Duration) -> bool {
        let due = self.spoke.elapsed() > pause || self.total > 0 && self.done >= self.total;
        if due {
            self.spoke = Instant::now();
        }
        due
    }

    /// The time left and the note: `3 min 10 s left, loss 1.73`.
    pub fn words(&self) -> String {
        let left = self.left().map(|seconds| format!("{} left", duration(seconds)));
        let note = Some(self.note.clone()).filter(|note| !note.is_empty());
        left.into_iter().chain(note).collect::<Vec<_>>().join(", ")
    }

    /// All of it: `step 30/200, 3 min 10 s left, loss 1.73`.
    pub fn line(&self) -> String {
        let far = format!("{} {}/{}", self.unit, self.done, self.total);
        let words = self.words();
        if words.is_empty() { far } else { format!("{far}, {words}") }
    }

    /// Seconds to the end at the speed so far, once that can be told.
    fn left(&self) -> Option<f64> {
        let (began, from) = self.first.filter(|(_, from)| *from < self.done)?;
        let rest = self.total.saturating_sub(self.done);
        let each = began.elapsed().as_secs_f64() / (self.done - from) as f64;
        (rest > 0).then_some(each * rest as f64)
    }
}

/// A time as people say it: `42 s`, `3 min 10 s`, `2 h 5 min`, `350 h`, `46 years`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..360_000 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        360_000..36_000_000 => format!("{} h", seconds / 3600),
        _ => format!("{:.1} years", seconds as f64 / (365.25 * 86400.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(duration(0.4), "0 s");
        assert_eq!(duration(190.0), "3 min 10 s");
        assert_eq!(duration(7500.0), "2 h 5 min");
        assert_eq!(duration(1.26e6), "350 h");
        assert_eq!(duration(1.446e9), "45.8 years");
    }

    #[test]
    fn a_course_counts_only_the_time_of_its_session() {
        let mut course = Course::default();
        course.hear(&Event::Begin { task: "train".into(), total: 200, unit: "step".into() });
        course.hear(&Event::At { done: 100, note: String::new() });
        assert_eq!(course.line(), "step 100/200", "no speed is known yet");
        let (_, from) = course.first.unwrap();
        course.first = Instant::now().checked_sub(Duration::from_secs(10)).map(|at| (at, from));
        course.hear(&Event::At { done: 110, note: "loss 1.7".into() });
        assert_eq!(course.line(), "step 110/200, 1 min 30 s left, loss 1.7");
        assert!(!course.is_due(Duration::from_mins(1)) && course.is_due(Duration::ZERO));
        course.hear(&Event::At { done: 200, note: "loss 1.6".into() });
        assert!(course.is_due(Duration::from_mins(1)) && course.line() == "step 200/200, loss 1.6");
    }
}

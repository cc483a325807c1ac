//! What long work tells whoever watches, and how it learns that it should stop.

use std::time::Duration;

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

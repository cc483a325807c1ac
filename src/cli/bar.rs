//! What one long command shows while it works: a bar on a terminal, plain lines elsewhere.

use std::{
    io::IsTerminal,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    error::Result,
    progress::{Event, Progress},
    run::signals,
};

/// Seconds between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(10);

/// Shows progress on standard error and listens to SIGINT and SIGTERM.
pub struct Bar {
    stops: Arc<AtomicUsize>,
    drawn: ProgressBar,
    shown: Mutex<(Instant, u64)>,
}

impl Bar {
    /// Starts listening.
    ///
    /// # Errors
    /// If the system refuses the signal handlers.
    pub fn new() -> Result<Self> {
        let drawn = ProgressBar::no_length();
        let style = "{prefix} {bar:30} {pos}/{len} {elapsed} (left {eta}) {msg}";
        drawn.set_style(ProgressStyle::with_template(style).expect("a valid template"));
        Ok(Self { stops: signals::count()?, drawn, shown: Mutex::new((Instant::now(), 0)) })
    }

    /// One line now and then, and the last one.
    fn line(&self, done: u64, note: &str) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.0.elapsed() > PAUSE || done == shown.1 {
            eprintln!("{done}/{}: {note}", shown.1);
            shown.0 = Instant::now();
        }
    }
}

impl Progress for Bar {
    fn event(&self, event: Event) {
        let terminal = std::io::stderr().is_terminal();
        match event {
            Event::Begin { task, total, .. } => {
                self.shown.lock().unwrap_or_else(PoisonError::into_inner).1 = total;
                self.drawn.set_length(total);
                self.drawn.set_prefix(task);
                self.drawn.reset_eta();
            }
            Event::At { done, note } if terminal => {
                self.drawn.set_position(done);
                self.drawn.set_message(note);
            }
            Event::At { done, note } => self.line(done, &note),
            Event::Warn { message } => self.drawn.suspend(|| eprintln!("warning: {message}")),
        }
    }

    fn stopping(&self) -> bool {
        let stops = self.stops.load(Ordering::Relaxed);
        if stops > 1 {
            // Asked twice: at once. A checkpoint is whole or not there, so nothing is spoilt.
            std::process::exit(130);
        }
        stops == 1
    }
}

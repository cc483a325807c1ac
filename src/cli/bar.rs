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
    cli::terminal,
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
    shown: Mutex<Shown>,
}

/// What plain lines are made of.
struct Shown {
    last: Instant,
    total: u64,
    /// When this session began, and how much was done then.
    begun: Option<(Instant, u64)>,
}

impl Shown {
    /// ` (left 3 min 10 s)`, once it can be told.
    fn left(&self, done: u64) -> String {
        let Some((begun, from)) = self.begun.filter(|(_, from)| *from < done) else {
            return String::new();
        };
        let each = begun.elapsed().as_secs_f64() / (done - from) as f64;
        let seconds = each * self.total.saturating_sub(done) as f64;
        format!(" (left {})", terminal::duration(seconds))
    }
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
        let shown = Shown { last: Instant::now(), total: 0, begun: None };
        Ok(Self { stops: signals::count()?, drawn, shown: Mutex::new(shown) })
    }

    /// One line now and then, and the last one.
    fn line(&self, done: u64, note: &str) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.begun.get_or_insert((Instant::now(), done));
        if shown.last.elapsed() > PAUSE || done == shown.total {
            eprintln!("{done}/{}{}: {note}", shown.total, shown.left(done));
            shown.last = Instant::now();
        }
    }
}

impl Progress for Bar {
    fn event(&self, event: Event) {
        let terminal = std::io::stderr().is_terminal();
        match event {
            Event::Begin { task, total, .. } => {
                let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
                (shown.total, shown.begun) = (total, None);
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

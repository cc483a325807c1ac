//! What one long command shows while it works, and how it hears that it should stop: a bar on a
//! terminal, plain lines elsewhere.

use std::{
    io::IsTerminal,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget};

use crate::{
    cli::terminal::style,
    error::Result,
    progress::{Course, Event, Progress},
    run::signals,
};

/// Between two lines where there is no terminal; the last line of a task always comes.
const PAUSE: Duration = Duration::from_secs(10);

/// Shows progress on standard error and listens to SIGINT, SIGTERM and SIGUSR1.
pub struct Bar {
    drawn: ProgressBar,
    state: Mutex<State>,
    stop: Arc<AtomicBool>,
    /// Whether the result is told with its warnings, so that they need not be shown before.
    ends_with_warnings: bool,
    /// Whether to write no lines where there is no terminal.
    quiet: bool,
}

#[derive(Default)]
struct State {
    course: Course,
    /// The last note that said anything: the bound so far.
    note: String,
    /// Passes since something was last done.
    passes: u64,
}

impl Bar {
    /// Starts listening.
    ///
    /// # Errors
    /// If the system refuses the signal handlers.
    pub fn new() -> Result<Self> {
        let drawn = ProgressBar::hidden();
        drawn.set_style(style("{prefix:8} {bar:14.cyan/dim} {pos}/{len} {elapsed} {wide_msg}"));
        if std::io::stderr().is_terminal() {
            drawn.set_draw_target(ProgressDrawTarget::stderr());
            drawn.enable_steady_tick(Duration::from_secs(1));
        }
        let (state, stop) = (Mutex::default(), signals::first()?);
        Ok(Self { drawn, state, stop, ends_with_warnings: false, quiet: false })
    }

    /// For an evaluation, whose result repeats its warnings and whose notes know the time left.
    /// `quiet` writes no lines where there is no terminal.
    ///
    /// # Errors
    /// If the system refuses the signal handlers.
    pub fn of_attacks(quiet: bool) -> Result<Self> {
        let mut bar = Self::new()?;
        (bar.ends_with_warnings, bar.quiet) = (true, quiet);
        Ok(bar)
    }

    /// Clears the bar, so that the result stands alone.
    pub fn finish(&self) {
        self.drawn.finish_and_clear();
    }

    /// Says how far it got before it was stopped.
    pub fn last_word(&self) {
        self.drawn.abandon();
        let state = self.state();
        if !state.note.is_empty() {
            eprintln!("so far: {}", state.note);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What follows the count.
    fn words(&self, course: &Course) -> String {
        if self.ends_with_warnings { course.note.clone() } else { course.words() }
    }

    /// One plain line if it is due.
    fn line(&self, state: &mut State) {
        let State { course, passes, .. } = state;
        if self.quiet || !self.drawn.is_hidden() || !course.is_due(PAUSE) {
            return;
        }
        let mut text = format!("{}: {} {}/{}", course.task, course.unit, course.done, course.total);
        let words = self.words(course);
        if !words.is_empty() {
            text = format!("{text}, {words}");
        }
        if *passes > 0 {
            text = format!("{text}; {passes} passes since");
        }
        eprintln!("{text}");
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if !self.drawn.is_finished() {
            self.finish();
        }
    }
}

impl Progress for Bar {
    fn event(&self, event: Event) {
        let mut state = self.state();
        state.course.hear(&event);
        match event {
            Event::Begin { task, total, .. } => {
                self.drawn.reset();
                self.drawn.set_length(total);
                self.drawn.set_prefix(task);
                state.passes = 0;
            }
            Event::At { done, note } => {
                self.drawn.set_position(done);
                self.drawn.set_message(self.words(&state.course));
                state.passes = 0;
                if !note.is_empty() {
                    state.note = note;
                }
                self.line(&mut state);
            }
            Event::Warn { .. } if self.ends_with_warnings => {}
            Event::Warn { message } => self.drawn.suspend(|| eprintln!("warning: {message}")),
        }
    }

    /// Asked before each pass: where batches take long, the line says that it lives.
    fn stopping(&self) -> bool {
        if self.ends_with_warnings {
            let mut state = self.state();
            state.passes += 1;
            if state.course.done < state.course.total {
                self.line(&mut state);
            }
        }
        self.stop.load(Ordering::Relaxed)
    }
}

//! Progress on the terminal, and Ctrl-C as a wish to stop.

use std::{
    io::IsTerminal,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    error::{AtPath, Result},
    progress::{Event, Progress},
};

/// Between two lines where there is no terminal; the last line of a task always comes.
const PAUSE: Duration = Duration::from_secs(10);

/// A bar on standard error; plain lines where that is no terminal.
pub(super) struct Watch {
    bar: ProgressBar,
    state: Mutex<State>,
    stop: Arc<AtomicBool>,
    quiet: bool,
}

struct State {
    /// The last note: the bound so far.
    note: String,
    /// How far the task is that the note is about.
    done: u64,
    /// Passes since something was last done.
    passes: u64,
    spoke: Instant,
}

impl Watch {
    /// Shows progress and listens for signals. `quiet` shows warnings alone when there is no
    /// terminal.
    pub(super) fn begin(quiet: bool) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // A second signal ends the program at once.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
                .at(std::path::Path::new("signal handler"))?;
        }
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::new(0)
        } else {
            ProgressBar::hidden()
        };
        let style = "{prefix:8} {bar:14} {pos}/{len} {elapsed} {wide_msg}";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is constant"));
        bar.enable_steady_tick(Duration::from_secs(1));
        let state = State { note: String::new(), done: 0, passes: 0, spoke: Instant::now() };
        Ok(Self { bar, state: Mutex::new(state), stop, quiet })
    }

    /// Clears the bar, so that the result stands alone.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Says how far it got before it was stopped.
    pub(super) fn last_word(&self) {
        self.bar.abandon();
        let state = self.state();
        if !state.note.is_empty() {
            eprintln!("so far: {}", state.note);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One plain line now and then, or because it `must` be.
    fn line(&self, state: &mut State, must: bool) {
        if self.quiet || !self.bar.is_hidden() || !must && state.spoke.elapsed() < PAUSE {
            return;
        }
        let (task, total) = (self.bar.prefix(), self.bar.length().unwrap_or(state.done));
        let mut text = format!("{task} {}/{total}", state.done);
        if !state.note.is_empty() {
            text = format!("{text} {}", state.note);
        }
        if state.passes > 0 {
            text = format!("{text}; {} passes since", state.passes);
        }
        eprintln!("{text}");
        state.spoke = Instant::now();
    }
}

impl Progress for Watch {
    fn event(&self, event: Event) {
        match event {
            Event::Begin { task, total, .. } => {
                self.bar.reset();
                self.bar.set_length(total);
                self.bar.set_prefix(task);
                let mut state = self.state();
                (state.done, state.passes) = (0, 0);
            }
            Event::At { done, note } => {
                self.bar.set_position(done);
                self.bar.set_message(note.clone());
                let mut state = self.state();
                (state.done, state.passes) = (done, 0);
                if !note.is_empty() {
                    state.note = note;
                    self.line(&mut state, self.bar.length() == Some(done));
                }
            }
            // The result repeats warnings at its end.
            Event::Warn { .. } => {}
        }
    }

    /// Asked before each pass: where batches take long, the line says that it lives.
    fn stopping(&self) -> bool {
        let mut state = self.state();
        state.passes += 1;
        self.line(&mut state, false);
        self.stop.load(Ordering::Relaxed)
    }
}

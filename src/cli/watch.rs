//! Progress on the terminal, and Ctrl-C as a wish to stop.

use std::{
    io::IsTerminal,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    error::{AtPath, Result},
    progress::{Event, Progress},
};

/// A bar on standard error; plain lines where that is no terminal.
pub(super) struct Watch {
    bar: ProgressBar,
    last: Mutex<String>,
    stop: Arc<AtomicBool>,
    quiet: bool,
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
        let style = "{prefix:10} {wide_bar} {pos}/{len} {elapsed} (eta {eta}) {msg}";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is constant"));
        Ok(Self { bar, last: Mutex::new(String::new()), stop, quiet })
    }

    /// Clears the bar, so that the result stands alone.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Says how far it got before it was stopped.
    pub(super) fn last_word(&self) {
        self.bar.abandon();
        let note = self.last.lock().expect("no panic while held");
        if !note.is_empty() {
            eprintln!("so far: {note}");
        }
    }
}

impl Progress for Watch {
    fn event(&self, event: Event) {
        match event {
            Event::Begin { task, total, .. } => {
                self.bar.reset();
                self.bar.set_length(total);
                self.bar.set_prefix(task);
            }
            Event::At { done, note } => {
                self.bar.set_position(done);
                self.bar.set_message(note.clone());
                if self.bar.is_hidden() && !self.quiet && !note.is_empty() {
                    let (task, total) = (self.bar.prefix(), self.bar.length().unwrap_or(done));
                    eprintln!("{task} {done}/{total} {note}");
                }
                if !note.is_empty() {
                    *self.last.lock().expect("no panic while held") = note;
                }
            }
            // The result repeats warnings at its end.
            Event::Warn { .. } => {}
        }
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

//! Requests to stop: SIGINT, SIGTERM and SIGUSR1 (what Slurm sends ahead of a time limit), counted,
//! and the end of a parent.

use std::{
    io::Read,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use signal_hook::{
    consts::{SIGINT, SIGTERM, SIGUSR1},
    iterator::Signals,
};

use crate::error::{AtPath, Result};

/// Counts SIGINT, SIGTERM and SIGUSR1 from now on: the first asks to save and stop, the second to stop now.
///
/// # Errors
/// If the system refuses the handlers.
pub fn count() -> Result<Arc<AtomicUsize>> {
    let stops = Arc::new(AtomicUsize::new(0));
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1]).at(Path::new("signal handlers"))?;
    let counter = stops.clone();
    thread::spawn(move || {
        for _ in signals.forever() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok(stops)
}

/// Counts the end of standard input as a request to stop. A parent holds the other end of the
/// pipe: closing it asks this process to stop, and so does the parent's death, however sudden.
pub fn count_end_of_input(stops: Arc<AtomicUsize>) {
    thread::spawn(move || {
        let mut buffer = [0; 64];
        let mut stdin = std::io::stdin().lock();
        while stdin.read(&mut buffer).is_ok_and(|count| count > 0) {}
        stops.fetch_add(1, Ordering::Relaxed);
    });
}

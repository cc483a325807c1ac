//! Requests to stop: SIGINT, SIGTERM and SIGUSR1 (what Slurm sends ahead of a time limit), and the
//! end of a parent.

use std::{
    io::Read,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use signal_hook::{
    consts::{SIGINT, SIGTERM, SIGUSR1},
    flag,
    iterator::Signals,
};

use crate::error::{AtPath, Result};

const STOPS: [i32; 3] = [SIGINT, SIGTERM, SIGUSR1];

/// True after the first request to stop; the second ends this process at once, whatever it does.
/// What it saves is whole or not there, so nothing is spoilt.
///
/// # Errors
/// If the system refuses the handlers.
pub fn first() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in STOPS {
        flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .at(Path::new("signal handlers"))?;
    }
    Ok(stop)
}

/// Counts requests to stop from now on: the first asks to save and stop, the second to stop now.
///
/// # Errors
/// If the system refuses the handlers.
pub fn count() -> Result<Arc<AtomicUsize>> {
    let stops = Arc::new(AtomicUsize::new(0));
    let mut signals = Signals::new(STOPS).at(Path::new("signal handlers"))?;
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

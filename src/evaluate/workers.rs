//! Batches shared among threads, each with its own handle to the model.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use tch::Device;

use super::spec::{EvalMode, EvaluateSpec};
use crate::{
    error::{Error, Result, caught},
    net::{Classifier, script},
    progress::{Event, Progress},
};

/// How many of `threads` attack batches of their own, one libtorch thread for each: small networks
/// gain more from that than from sharing an image, and results then depend on neither. One alone on
/// a GPU; in reference mode, which has one random generator; and for the `rand` suite, whose models
/// draw from one.
pub fn how_many(spec: &EvaluateSpec, examples: usize, threads: usize, device: Device) -> usize {
    let alone = spec.mode == EvalMode::Reference || spec.suite == "rand" || device.is_cuda();
    // More workers than batches would stand idle.
    if alone { 1 } else { threads.min(examples.div_ceil(32)).max(1) }
}

/// One thread's handle to the model.
pub(crate) struct Handle<'a> {
    pub(crate) model: &'a dyn Classifier,
    /// What attacks meet: the model's fast form, equal up to rounding, where it has one.
    pub(crate) fast: Option<Box<dyn Classifier>>,
}

/// Lets `model` (on this thread) and `helpers` (on one thread each) do `tasks`. `done` hears what
/// came of each, one at a time, in the order in which they end. The first error stops all.
/// `folded`: attacks meet fast forms.
///
/// # Errors
/// The first error of `work` or `done`.
pub(crate) fn share<T: Sync, D>(
    tasks: &[T],
    (model, helpers): (&dyn Classifier, &mut [Box<dyn Classifier + Send>]),
    (progress, folded): (&dyn Progress, bool),
    work: &(dyn Fn(&Handle, &T, &dyn Progress) -> Result<D> + Sync),
    done: &mut (dyn FnMut(&T, D) -> Result<()> + Send),
) -> Result<()> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let watched = Halting { progress, failed: &failed };
    let (done, error) = (Mutex::new(done), Mutex::new(None::<Error>));
    let serve = |model: &dyn Classifier| {
        let fast = folded.then(|| model.fused()).flatten();
        let handle = Handle { model, fast };
        while !failed.load(Ordering::Relaxed) {
            let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            let outcome = caught(|| work(&handle, task, &watched))
                .and_then(|found| done.lock().unwrap_or_else(PoisonError::into_inner)(task, found));
            if let Err(found) = outcome {
                failed.store(true, Ordering::Relaxed);
                error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(found);
            }
        }
    };
    // A thread for a helper that would find nothing to do costs more than it gives.
    let useful = tasks.len().saturating_sub(1).min(helpers.len());
    // Each thread of ours starts with libtorch's default of all cores.
    let threads = tch::get_num_threads();
    thread::scope(|scope| {
        for helper in &mut helpers[..useful] {
            let serve = &serve;
            scope.spawn(move || {
                tch::set_num_threads(threads);
                script::keep_plain();
                serve(&**helper);
            });
        }
        serve(model);
    });
    error.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Progress that also asks to stop once a worker failed.
struct Halting<'a> {
    progress: &'a dyn Progress,
    failed: &'a AtomicBool,
}

impl Progress for Halting<'_> {
    fn event(&self, event: Event) {
        self.progress.event(event);
    }

    fn stopping(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.progress.stopping()
    }
}

/// `rows` in batches of `batch`, the last one smaller.
pub(crate) fn chunks(rows: &[usize], batch: usize) -> Vec<Vec<usize>> {
    rows.chunks(batch.max(1)).map(<[usize]>::to_vec).collect()
}

/// Cuts `rows` into batches of at most `batch`. The cut depends on nothing else, and leaves a few
/// batches to share when there are rows enough that smaller batches run as fast.
pub(crate) fn cut(rows: &[usize], batch: usize) -> Vec<Vec<usize>> {
    let count = rows.len().div_ceil(batch.max(1));
    let even = |parts: usize, least: usize| {
        let rounded = count.next_multiple_of(parts);
        (rows.len() / rounded.max(1) >= least).then_some(rounded)
    };
    let count = even(4, 64).or_else(|| even(2, 32)).unwrap_or(count);
    let mut rest = rows;
    (0..count)
        .map(|at| {
            let (now, later) = rest.split_at(rest.len().div_ceil(count - at));
            rest = later;
            now.to_vec()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_hold_every_row_once_in_order() {
        for count in [0, 1, 5, 63, 64, 130, 256, 1017] {
            for batch in [1, 7, 64, 128] {
                let rows: Vec<usize> = (0..count).map(|row| row * 2).collect();
                let batches = cut(&rows, batch);
                assert_eq!(batches.concat(), rows, "{count} by {batch}");
                assert!(batches.iter().all(|rows| (1..=batch).contains(&rows.len())));
            }
        }
        let sizes = |count: usize| -> Vec<usize> {
            cut(&(0..count).collect::<Vec<_>>(), 128).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(256), [64, 64, 64, 64]);
        assert_eq!(sizes(129), [65, 64]);
        assert_eq!(sizes(50), [50]);
    }
}

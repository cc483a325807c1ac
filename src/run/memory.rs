//! Out of memory: the batch is halved wherever its size cannot change the result.

use crate::{
    error::Error,
    evaluate::spec::EvalMode,
    plan::{Job, Work},
};

/// Whether `error` is libtorch's or the system's word for too little memory.
pub(super) fn ran_out(error: &Error) -> bool {
    is_said_in(&error.to_string())
}

/// Whether a message or a log says so. The last are oneDNN's, which has no room for a convolution,
/// and Rust's, before it aborts.
pub(super) fn is_said_in(text: &str) -> bool {
    let text = text.to_lowercase();
    [
        "out of memory",
        "can't allocate memory",
        "cannot allocate memory",
        "bad_alloc",
        "could not create a primitive",
        "memory allocation of",
    ]
    .iter()
    .any(|words| text.contains(words))
}

/// What to do where no batch is left to halve.
pub(super) fn advice(job: &Job) -> Error {
    let remedy = match &job.work {
        Work::Train(_) => {
            "a training's batch changes its result and is not halved unasked. \
             train.checkpointing=true saves most of it for a second forward pass, \
             train.virtual_batch=N computes N images at once"
        }
        Work::Fit(_) => {
            "a training's batch changes its result and is not halved unasked. Set a smaller \
             denoiser.batch or denoiser.channels"
        }
        _ => "nothing is left to halve",
    };
    Error::Jobs(format!(
        "out of memory: {remedy}. Fewer jobs at once leave more to each (--jobs 1); \
         `gauntlet plan` says what they need"
    ))
}

/// The batch size that is free to choose: in sampling, and in evaluations that do not depend on it.
/// Training depends on it.
pub(super) fn batch(job: &Job) -> Option<u64> {
    match &job.work {
        Work::Generate(spec) => Some(spec.batch),
        Work::Evaluate(spec) if spec.mode == EvalMode::Strict => Some(spec.batch),
        _ => None,
    }
}

/// Whether a smaller batch is left to try.
pub(super) fn can_halve(job: &Job) -> bool {
    batch(job).is_some_and(|batch| batch > 1)
}

/// `job` with its batch halved so many times.
pub(super) fn halved(job: &Job, halvings: u32) -> Job {
    let mut job = job.clone();
    let smaller = |batch: u64| batch.checked_shr(halvings).unwrap_or(0).max(1);
    match &mut job.work {
        Work::Generate(spec) => spec.batch = smaller(spec.batch),
        Work::Evaluate(spec) if spec.mode == EvalMode::Strict => spec.batch = smaller(spec.batch),
        _ => {}
    }
    job
}

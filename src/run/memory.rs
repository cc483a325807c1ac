//! Out of memory: the batch is halved wherever its size cannot change the result.

use crate::{
    error::Error,
    evaluate::spec::EvalMode,
    plan::{Job, Work},
};

/// Whether `error` is libtorch's or the system's word for too little memory.
pub(super) fn ran_out(error: &Error) -> bool {
    let text = error.to_string().to_lowercase();
    ["out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc"]
        .iter()
        .any(|words| text.contains(words))
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

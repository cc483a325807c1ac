//! One job, in this process: what every engine ends up calling.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::{Duration, Instant},
};

use tch::Device;

use crate::{
    digest::JobId,
    error::{Error, Result, caught},
    plan::Job,
    progress::Progress,
    run::{Stages, Task, memory},
    store::{Lock, Lookup, Provenance, Store},
};

/// Where a job computes.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The device.
    pub device: Device,
    /// Its name for the manifest.
    pub name: String,
    /// Threads of libtorch.
    pub threads: usize,
    /// How often the batch is halved from the start.
    pub halvings: u32,
}

/// How often a job that another process runs is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Runs the job `id` of `store` unless it is done. Waits while another process runs it. Returns
/// whether this process ran it.
///
/// # Errors
/// If the job is unknown, an input is missing, the stage fails or panics, or a stop was asked for.
pub fn run(
    store: &Store,
    id: &JobId,
    machine: &Machine,
    stages: &dyn Stages,
    progress: &dyn Progress,
) -> Result<bool> {
    if store.has(id) {
        return Ok(false);
    }
    let job: Job = store.record(id)?;
    let lock = wait_for_lock(store, id, progress)?;
    match store.lookup(id) {
        Lookup::Hit(_) => return Ok(false),
        Lookup::Damaged(why) => {
            progress.warn(format!("the result in the store is damaged and computed anew: {why}"));
            store.discard(&lock)?;
        }
        Lookup::Miss => {}
    }
    carry_out(store, lock, &job, machine, stages, progress)?;
    Ok(true)
}

fn wait_for_lock(store: &Store, id: &JobId, progress: &dyn Progress) -> Result<Lock> {
    let mut waited = false;
    loop {
        if let Some(lock) = store.try_lock(id)? {
            return Ok(lock);
        }
        if progress.stopping() {
            return Err(Error::Interrupted);
        }
        if !waited {
            progress.begin(&format!("waiting for {}", store.lock_owner(id)), 0, "job");
            waited = true;
        }
        thread::sleep(LOOK);
    }
}

#[allow(clippy::too_many_arguments)] // private: the parts of `run`
fn carry_out(
    store: &Store,
    lock: Lock,
    job: &Job,
    machine: &Machine,
    stages: &dyn Stages,
    progress: &dyn Progress,
) -> Result<()> {
    let input = |input: &crate::plan::Input| Ok((input.role, store.require(&input.id)?));
    let inputs = job.inputs.iter().map(input).collect::<Result<Vec<_>>>()?;
    let slot = store.begin(lock)?;
    let mut provenance = Provenance {
        libtorch: crate::device::LIBTORCH_VERSION.to_owned(),
        device: machine.name.clone(),
        threads: machine.threads as u64,
        inputs: job.inputs.iter().map(|i| (i.role.name().to_owned(), i.id.clone())).collect(),
        spec: serde_json::to_value(&job.work).expect("specs are JSON"),
        ..Provenance::begin()
    };
    let started = Instant::now();
    let mut halvings = machine.halvings;
    provenance.summary = loop {
        let smaller = memory::halved(job, halvings);
        let task = Task {
            job: &smaller,
            inputs: &inputs,
            device: machine.device,
            work: slot.work(),
            out: slot.out(),
            progress,
        };
        // tch panics where libtorch throws; the store must be left in order all the same.
        let result = catch_unwind(AssertUnwindSafe(|| caught(|| stages.run(&task))));
        match result.unwrap_or_else(|panic| Err(panicked(&*panic))) {
            Err(error) if memory::ran_out(&error) && memory::can_halve(&smaller) => {
                halvings += 1;
                slot.clear()?;
                let batch = memory::batch(&memory::halved(job, halvings)).unwrap_or(1);
                progress.warn(format!("out of memory: going on with batches of {batch}"));
            }
            Err(error) if memory::ran_out(&error) => {
                // The log has libtorch's own words.
                eprintln!("{error}");
                return Err(memory::advice(job));
            }
            other => break other?,
        }
    };
    provenance.seconds = started.elapsed().as_secs_f64();
    slot.commit(job.stage.name(), provenance)?;
    Ok(())
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    // libtorch appends its own stack, whose lines say nothing without its sources.
    let stack = text.find("\\nException raised from").or(text.find("\nException raised from"));
    let text = &text[..stack.unwrap_or(text.len())];
    Error::Jobs(format!("the stage panicked, which is a defect of gauntlet: {text}"))
}

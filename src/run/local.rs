//! The local engine: a pool of worker processes over topologically ordered jobs.

use std::{
    collections::{HashMap, HashSet},
    process::Command,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use crate::{
    digest::JobId,
    error::Result,
    plan::Job,
    run::{
        Failure, Outcome, Summary, Watcher,
        wire::Line,
        worker::{Crash, Message, Worker},
    },
    store::Store,
};

/// What the pool may use.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Devices by name: one worker each, or the one CPU for all workers.
    pub devices: Vec<String>,
    /// Cores to share among workers.
    pub cores: usize,
    /// Workers at once; `None` for as many as devices or cores allow.
    pub workers: Option<usize>,
    /// What happens after failures.
    pub policy: Policy,
}

/// What a run does when jobs fail, and which jobs it runs at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// How often a job is started again that was killed or that the system refused something; a
    /// stage that fails by itself would fail again.
    pub retries: u32,
    /// Whether the first failure ends the run, once running jobs are done.
    pub fail_fast: bool,
    /// Whether jobs run whose results nothing missing needs.
    pub all: bool,
}

impl Pool {
    fn on_cpu(&self) -> bool {
        self.devices.iter().all(|device| device == "cpu")
    }

    fn limit(&self) -> usize {
        let own = if self.on_cpu() { self.cores } else { self.devices.len() };
        self.workers.unwrap_or(own).max(1)
    }
}

/// One worker to start.
#[derive(Debug, Clone)]
pub struct Start<'a> {
    /// The job.
    pub id: &'a JobId,
    /// The device.
    pub device: &'a str,
    /// Threads.
    pub threads: usize,
    /// How often the batch is halved from the start: the job was killed, perhaps for memory.
    pub halvings: u32,
}

/// How workers are started: the program itself, except in tests.
pub type Launch<'a> = dyn Fn(&Start<'_>) -> Command + 'a;

/// Runs whatever of `jobs` (inputs before users) the missing results need. A failed job skips its
/// dependants and the rest goes on. `stops` counts requests to stop: at the first, workers save
/// and end; at the second they are killed.
///
/// # Errors
/// If the store cannot be written or no worker can be started. Failures of jobs are in the
/// summary.
pub fn run(
    jobs: &[Job],
    store: &Store,
    (pool, launch): (&Pool, &Launch<'_>),
    watcher: &dyn Watcher,
    stops: &AtomicUsize,
) -> Result<Summary> {
    let started = Instant::now();
    let missing = if pool.policy.all { incomplete(jobs, store) } else { missing(jobs, store) };
    for job in &missing {
        let record = Job { cells: Vec::new(), ..(*job).clone() };
        store.put_record(&job.id, &record)?;
    }
    let cached = jobs.len() - missing.len();
    watcher.planned(jobs.len(), cached, &missing);
    let mut executor = Executor::new(missing, store, (pool, launch), watcher);
    executor.summary.jobs = jobs.len();
    executor.summary.cached = cached;
    executor.carry_out(stops)?;
    executor.summary.seconds = started.elapsed().as_secs_f64();
    Ok(executor.summary)
}

/// The jobs that must run, in order: results that nothing else uses and that are not there, and
/// what these need. A denoiser is not trained anew for classifiers that are all trained.
pub fn missing<'a>(jobs: &'a [Job], store: &Store) -> Vec<&'a Job> {
    let used: HashSet<&JobId> =
        jobs.iter().flat_map(|job| job.inputs.iter().map(|input| &input.id)).collect();
    let mut needed: HashSet<&JobId> =
        jobs.iter().map(|job| &job.id).filter(|id| !used.contains(id)).collect();
    let mut missing = Vec::new();
    // Users come after their inputs, so backwards every need is known when its job is reached.
    for job in jobs.iter().rev() {
        if needed.contains(&job.id) && !store.has(&job.id) {
            needed.extend(job.inputs.iter().map(|input| &input.id));
            missing.push(job);
        }
    }
    missing.reverse();
    missing
}

/// All jobs that are not done, in order.
pub fn incomplete<'a>(jobs: &'a [Job], store: &Store) -> Vec<&'a Job> {
    jobs.iter().filter(|job| !store.has(&job.id)).collect()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Waiting,
    Running,
    Done,
    Lost,
}

struct Executor<'a> {
    jobs: Vec<&'a Job>,
    states: Vec<State>,
    /// How often each job was started again.
    retried: Vec<u32>,
    /// How often each job was killed.
    killed: Vec<u32>,
    by_id: HashMap<&'a JobId, usize>,
    store: &'a Store,
    pool: &'a Pool,
    launch: &'a Launch<'a>,
    watcher: &'a dyn Watcher,
    workers: HashMap<usize, Worker>,
    sender: Sender<Message>,
    receiver: Receiver<Message>,
    summary: Summary,
}

impl<'a> Executor<'a> {
    fn new(
        jobs: Vec<&'a Job>,
        store: &'a Store,
        (pool, launch): (&'a Pool, &'a Launch<'a>),
        watcher: &'a dyn Watcher,
    ) -> Self {
        let (sender, receiver) = channel();
        Self {
            states: vec![State::Waiting; jobs.len()],
            retried: vec![0; jobs.len()],
            killed: vec![0; jobs.len()],
            by_id: jobs.iter().enumerate().map(|(position, job)| (&job.id, position)).collect(),
            jobs,
            store,
            pool,
            launch,
            watcher,
            workers: HashMap::new(),
            sender,
            receiver,
            summary: Summary::default(),
        }
    }

    fn carry_out(&mut self, stops: &AtomicUsize) -> Result<()> {
        let mut asked = 0;
        loop {
            let stop = stops.load(Ordering::Relaxed);
            if stop > asked {
                self.stop(asked == 0, stop > 1);
                asked = stop;
            }
            if asked == 0 && !(self.pool.policy.fail_fast && self.summary.failed > 0) {
                self.start_what_can()?;
            }
            if self.workers.is_empty() {
                break;
            }
            match self.receiver.recv_timeout(Duration::from_millis(100)) {
                Ok((position, Some(line))) => self.hear(position, line),
                Ok((position, None)) => self.end(position, asked > 0),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("we hold a sender"),
            }
        }
        self.summary.interrupted = asked > 0;
        if asked == 0 {
            self.skip_the_rest();
        }
        Ok(())
    }

    /// After a failure that ended the run, what never started was skipped.
    fn skip_the_rest(&mut self) {
        let Some(cause) = self.summary.failures.first().map(|failure| failure.id.clone()) else {
            return;
        };
        for (position, job) in self.jobs.iter().enumerate() {
            if self.states[position] == State::Waiting {
                self.states[position] = State::Lost;
                self.summary.skipped += 1;
                self.watcher.finished(job, &Outcome::Skipped(cause.clone()), 0.0);
            }
        }
    }

    fn stop(&mut self, first: bool, at_once: bool) {
        if first {
            self.watcher.stopping();
        }
        for worker in self.workers.values_mut() {
            worker.ask_to_stop();
            if at_once {
                worker.kill();
            }
        }
    }

    fn start_what_can(&mut self) -> Result<()> {
        loop {
            let ready: Vec<usize> = (0..self.jobs.len()).filter(|&at| self.is_ready(at)).collect();
            let room = self.pool.limit().saturating_sub(self.workers.len());
            let busy: usize = self.workers.values().map(|worker| worker.threads).sum();
            let free = self.pool.cores.saturating_sub(busy);
            // Cores are shared evenly unless the user wants more workers than there are cores.
            if ready.is_empty() || room == 0 || (free == 0 && self.pool.workers.is_none()) {
                return Ok(());
            }
            let share = if self.pool.on_cpu() { ready.len().min(room) } else { room };
            self.start(ready[0], (free / share).max(1))?;
        }
    }

    fn is_ready(&self, position: usize) -> bool {
        let done = |id| self.by_id.get(id).is_none_or(|&input| self.states[input] == State::Done);
        self.states[position] == State::Waiting
            && self.jobs[position].inputs.iter().all(|input| done(&input.id))
    }

    fn start(&mut self, position: usize, threads: usize) -> Result<()> {
        let job = self.jobs[position];
        let busy: Vec<usize> = self.workers.values().map(|worker| worker.device).collect();
        let load = |device: &usize| busy.iter().filter(|&other| other == device).count();
        let device = (0..self.pool.devices.len()).min_by_key(load).unwrap_or(0);
        let name = self.pool.devices[device].as_str();
        let command = (self.launch)(&Start {
            id: &job.id,
            device: name,
            threads,
            halvings: self.killed[position],
        });
        let log = self.store.log(&job.id);
        let share = (threads, device);
        let worker = Worker::start(command, &log, position, self.sender.clone(), share)?;
        self.workers.insert(position, worker);
        self.states[position] = State::Running;
        self.watcher.started(job, name, threads);
        Ok(())
    }

    fn hear(&mut self, position: usize, line: Line) {
        match line {
            Line::Event(event) => self.watcher.progress(self.jobs[position], &event),
            Line::Done { ran } => {
                if let Some(worker) = self.workers.get_mut(&position) {
                    worker.done = Some(ran);
                }
            }
        }
    }

    fn end(&mut self, position: usize, stopping: bool) {
        let mut worker = self.workers.remove(&position).expect("it was running");
        let job = self.jobs[position];
        let mut outcome = worker.outcome(stopping);
        // Only the store says what is done.
        if matches!(outcome, Outcome::Ran | Outcome::Shared) && !self.store.has(&job.id) {
            outcome = Outcome::Failed("ended well but left no result in the store".to_owned());
        }
        if let (Outcome::Failed(message), Some(crash)) = (&outcome, worker.crash)
            && self.retried[position] < self.pool.policy.retries
            && !stopping
        {
            self.retried[position] += 1;
            self.killed[position] += u32::from(crash == Crash::Killed);
            let message = format!("started again after: {message}");
            self.watcher.progress(job, &crate::progress::Event::Warn { message });
            self.states[position] = State::Waiting;
            return;
        }
        self.watcher.finished(job, &outcome, worker.started.elapsed().as_secs_f64());
        match outcome {
            Outcome::Ran => self.summary.run += 1,
            Outcome::Shared => self.summary.cached += 1,
            Outcome::Interrupted | Outcome::Skipped(_) => {}
            Outcome::Failed(message) => {
                self.states[position] = State::Lost;
                self.fail(job, message);
                return;
            }
        }
        self.states[position] = if stopping { State::Lost } else { State::Done };
    }

    fn fail(&mut self, job: &Job, message: String) {
        self.summary.failed += 1;
        let (id, log) = (job.id.clone(), self.store.log(&job.id));
        let title = job.work.title();
        self.summary.failures.push(Failure { id, stage: job.stage, title, message, log });
        let mut lost: HashSet<&JobId> = HashSet::from([&job.id]);
        for (position, dependant) in self.jobs.iter().enumerate() {
            let waits = self.states[position] == State::Waiting;
            if waits && dependant.inputs.iter().any(|input| lost.contains(&input.id)) {
                lost.insert(&dependant.id);
                self.states[position] = State::Lost;
                self.summary.skipped += 1;
                self.watcher.finished(dependant, &Outcome::Skipped(job.id.clone()), 0.0);
            }
        }
    }
}

//! The Slurm engine: arrays with dependencies, followed by what the store and the queue say.
//!
//! Jobs of one stage become arrays; an array begins once those that make its inputs have ended, and
//! each task looks into the store for itself. Only the store says what is done, so neither sacct
//! nor this process is needed for the truth: interrupt it and run the same command again, and it
//! finds its arrays in the queue and follows on.
//!
//! # Kubernetes, when somebody needs it
//!
//! The engine is three functions: submit a list of job ids after others, tell which are alive, and
//! tell how a dead one ended. An array maps to an Indexed Job (`completionMode: Indexed`, the
//! index picks the line of the list, `backoffLimitPerIndex` retries one task alone, `parallelism`
//! is the width); alive and dead are the pod's phase; a dependency becomes waiting here until the
//! inputs are in the store, since Jobs know no `afterany`. SIGTERM with a grace period stands for
//! `--signal`; resuming needs `work/<id>` on a volume that outlives the pod. The store maps to an
//! S3-like service key by key: files under `artifacts/<id>/` first, then the manifest with
//! put-if-absent (`If-None-Match: *`), which is what the rename is here: whoever puts it second has
//! computed the same bytes and drops them. Locks become objects with a lease in them, put if absent
//! and renewed by conditional writes on their ETag, exactly the beats of `store::lock`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    digest::JobId,
    error::{AtPath, Error, Result},
    plan::{Job, Stage},
    progress::Event,
    run::{
        Failure, Outcome, Summary, Watcher,
        local::{Policy, incomplete, missing},
        sbatch::{self, Task},
    },
    store::Store,
    suite::cluster::Cluster,
};

/// The largest array that a Slurm with default settings takes.
const LARGEST_ARRAY: usize = 1000;

/// What the engine works with.
#[derive(Debug)]
pub struct Slurm<'a> {
    /// How jobs become Slurm jobs.
    pub cluster: &'a Cluster,
    /// The program that nodes run.
    pub program: &'a Path,
    /// What happens after failures.
    pub policy: Policy,
    /// Whether to end once everything is submitted.
    pub detach: bool,
}

/// An array in the queue, kept in the store so that any later run can follow it.
#[derive(Debug, Serialize, Deserialize)]
struct Submitted {
    slurm: u64,
    jobs: Vec<JobId>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Waiting,
    /// In the queue; how often it was not found there in a row.
    Queued(Task, u32),
    Done,
    Lost,
}

struct Follower<'a> {
    slurm: &'a Slurm<'a>,
    store: &'a Store,
    watcher: &'a dyn Watcher,
    jobs: Vec<&'a Job>,
    by_id: HashMap<&'a JobId, usize>,
    states: Vec<State>,
    attempts: Vec<u32>,
    started: HashMap<usize, Instant>,
    said: HashSet<(usize, String)>,
    summary: Summary,
}

/// Runs whatever of `jobs` the missing results need on the cluster and follows it to its end. A
/// request to stop (`stops`) ends the following; the jobs in the queue go on.
///
/// # Errors
/// If the store cannot be written or sbatch refuses.
pub fn run(
    jobs: &[Job],
    store: &Store,
    slurm: &Slurm<'_>,
    watcher: &dyn Watcher,
    stops: &AtomicUsize,
) -> Result<Summary> {
    let started = Instant::now();
    let missing = if slurm.policy.all { incomplete(jobs, store) } else { missing(jobs, store) };
    for job in &missing {
        store.put_record(&job.id, &Job { cells: Vec::new(), ..(*job).clone() })?;
        store.forgive(&job.id)?;
    }
    let cached = jobs.len() - missing.len();
    watcher.planned(jobs.len(), cached, &missing);
    let mut follower = Follower {
        slurm,
        store,
        watcher,
        by_id: missing.iter().enumerate().map(|(position, job)| (&job.id, position)).collect(),
        states: vec![State::Waiting; missing.len()],
        attempts: vec![0; missing.len()],
        jobs: missing,
        started: HashMap::new(),
        said: HashSet::new(),
        summary: Summary { jobs: jobs.len(), cached, ..Summary::default() },
    };
    follower.attach()?;
    follower.follow(stops)?;
    follower.summary.seconds = started.elapsed().as_secs_f64();
    Ok(follower.summary)
}

impl Follower<'_> {
    fn folder(&self) -> Result<PathBuf> {
        let folder = self.store.root().join("slurm");
        fs::create_dir_all(&folder).at(&folder)?;
        Ok(folder)
    }

    /// Finds jobs that an earlier run submitted and that are still in the queue.
    fn attach(&mut self) -> Result<()> {
        let folder = self.folder()?;
        let queue = sbatch::queue()?;
        for entry in fs::read_dir(&folder).at(&folder)?.flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = fs::read_to_string(&path).at(&path)?;
            let Ok(array) = serde_json::from_str::<Submitted>(&text) else { continue };
            let mut alive = false;
            for (index, id) in array.jobs.iter().enumerate() {
                let task = (array.slurm, index as u64);
                if queue.contains_key(&task) {
                    alive = true;
                    if let Some(&position) = self.by_id.get(id) {
                        self.states[position] = State::Queued(task, 0);
                    }
                }
            }
            if !alive {
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }

    fn follow(&mut self, stops: &AtomicUsize) -> Result<()> {
        let mut failures = 0;
        loop {
            if stops.load(Ordering::Relaxed) > 0 {
                self.watcher.stopping();
                self.summary.interrupted = true;
                return Ok(());
            }
            if !(self.slurm.policy.fail_fast && self.summary.failed > 0) {
                self.submit()?;
            }
            if self.slurm.detach {
                self.summary.interrupted = true;
                return Ok(());
            }
            // A controller that restarts answers again soon; the jobs do not need it meanwhile.
            match sbatch::queue() {
                Ok(queue) => {
                    failures = 0;
                    self.look(&queue);
                }
                Err(error) => {
                    failures += 1;
                    if failures > 40 {
                        return Err(error);
                    }
                }
            }
            let open = |state: &State| matches!(state, State::Waiting | State::Queued(..));
            if !self.states.iter().any(open) {
                return Ok(());
            }
            self.pause(stops);
        }
    }

    fn pause(&self, stops: &AtomicUsize) {
        let until = Instant::now() + Duration::from_secs(self.slurm.cluster.poll);
        while Instant::now() < until && stops.load(Ordering::Relaxed) == 0 {
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Submits what waits, what its inputs come from first: a labelling may need a training.
    fn submit(&mut self) -> Result<()> {
        while self.submit_round()? {}
        Ok(())
    }

    /// Submits what waits and whose inputs do not, stage by stage, one array for each set of arrays
    /// that it has to await. Says whether there was any.
    fn submit_round(&mut self) -> Result<bool> {
        let mut any = false;
        for stage in Stage::ALL {
            let mut groups: BTreeMap<Vec<u64>, Vec<usize>> = BTreeMap::new();
            for position in 0..self.jobs.len() {
                let job = self.jobs[position];
                if job.stage != stage || self.states[position] != State::Waiting {
                    continue;
                }
                let (mut after, mut early) = (BTreeSet::new(), false);
                for input in &job.inputs {
                    match self.by_id.get(&input.id).map(|&input| self.states[input]) {
                        Some(State::Queued((array, _), _)) => {
                            after.insert(array);
                        }
                        Some(State::Waiting) => early = true,
                        _ => {}
                    }
                }
                if early {
                    continue;
                }
                any = true;
                groups.entry(after.into_iter().collect()).or_default().push(position);
            }
            for (after, positions) in groups {
                for part in positions.chunks(LARGEST_ARRAY) {
                    self.submit_array(stage, part, &after)?;
                }
            }
        }
        Ok(any)
    }

    fn submit_array(&mut self, stage: Stage, positions: &[usize], after: &[u64]) -> Result<()> {
        let folder = self.folder()?;
        let resources = self.slurm.cluster.of(stage.name());
        let mut name = format!("{}-{}", stage.name(), self.jobs[positions[0]].id.short());
        for again in 1.. {
            if !folder.join(&name).with_extension("sh").exists() {
                break;
            }
            name = format!("{}-{}-{again}", stage.name(), self.jobs[positions[0]].id.short());
        }
        let base = folder.join(&name);
        let (list, script) = (base.with_extension("list"), base.with_extension("sh"));
        let mut lines = String::new();
        for &position in positions {
            let id = &self.jobs[position].id;
            self.store.forgive(id)?;
            let _ = writeln!(lines, "{id} {}", self.attempts[position]);
        }
        sbatch::write(&list, &lines)?;
        let root = self.store.root();
        let text = sbatch::script(self.slurm.cluster, resources, self.slurm.program, root, &list);
        sbatch::write(&script, &text)?;
        let count = positions.len();
        let slurm =
            sbatch::submit(self.slurm.cluster, resources, (stage.name(), count), &script, after)?;
        let jobs = positions.iter().map(|&position| self.jobs[position].id.clone()).collect();
        let text = serde_json::to_string(&Submitted { slurm, jobs }).map_err(Error::input)?;
        sbatch::write(&folder.join(format!("{slurm}.json")), &text)?;
        for (index, &position) in positions.iter().enumerate() {
            self.states[position] = State::Queued((slurm, index as u64), 0);
        }
        Ok(())
    }

    /// Compares what is in the queue with what the store holds.
    fn look(&mut self, queue: &HashMap<Task, (String, String)>) {
        for position in 0..self.jobs.len() {
            let State::Queued(task, absent) = self.states[position] else { continue };
            let job = self.jobs[position];
            if self.store.has(&job.id) {
                self.finish(position, &Outcome::Ran);
                self.summary.run += 1;
                self.states[position] = State::Done;
            } else if let Some((state, reason)) = queue.get(&task) {
                self.states[position] = State::Queued(task, 0);
                self.say(position, task, state, reason);
            } else if absent < 2 {
                // A shared file system may show the result a moment after the queue forgets.
                self.states[position] = State::Queued(task, absent + 1);
            } else {
                self.gone(position, task);
            }
        }
    }

    /// Tells once what Slurm does with a job.
    fn say(&mut self, position: usize, task: Task, state: &str, reason: &str) {
        let job = self.jobs[position];
        if state == "RUNNING" && !self.started.contains_key(&position) {
            self.started.insert(position, Instant::now());
            let cpus = self.slurm.cluster.of(job.stage.name()).cpus;
            let place = format!("slurm {}_{}", task.0, task.1);
            self.watcher.started(job, &place, cpus as usize);
        }
        let usual =
            ["None", "Priority", "Resources", "Dependency", "JobArrayTaskLimit", "BeginTime"];
        if state == "PENDING"
            && !usual.contains(&reason)
            && self.said.insert((position, reason.to_owned()))
        {
            let message = format!("waits in Slurm ({}_{}): {reason}", task.0, task.1);
            self.watcher.progress(job, &Event::Warn { message });
        }
    }

    /// A job that left the queue without a result.
    fn gone(&mut self, position: usize, task: Task) {
        let job = self.jobs[position];
        let states: Vec<State> = job
            .inputs
            .iter()
            .filter_map(|input| self.by_id.get(&input.id).map(|&input| self.states[input]))
            .collect();
        if states.iter().any(|state| matches!(state, State::Waiting | State::Queued(..))) {
            // An input is computed again, so this one ran too early.
            self.states[position] = State::Waiting;
            return;
        }
        let end = sbatch::end(task);
        let cancelled = end.as_ref().is_some_and(|(state, _)| state.starts_with("CANCELLED"));
        let message = match (self.store.failure(&job.id), &end) {
            (Some(failed), _) => failed.message,
            (None, Some((state, code))) => {
                format!("left Slurm without a result: {state}, exit code {code}")
            }
            (None, None) => "left Slurm without a result or a word".to_owned(),
        };
        let blameless = self.store.failure(&job.id).is_none() && !cancelled;
        if blameless && self.attempts[position] < self.slurm.policy.retries {
            self.attempts[position] += 1;
            self.started.remove(&position);
            let message = format!("submitted again after: {message}");
            self.watcher.progress(job, &Event::Warn { message });
            self.states[position] = State::Waiting;
            return;
        }
        self.fail(position, message);
    }

    fn finish(&self, position: usize, outcome: &Outcome) {
        let seconds = self.started.get(&position).map_or(0.0, |at| at.elapsed().as_secs_f64());
        self.watcher.finished(self.jobs[position], outcome, seconds);
    }

    fn fail(&mut self, position: usize, message: String) {
        let job = self.jobs[position];
        self.finish(position, &Outcome::Failed(message.clone()));
        self.states[position] = State::Lost;
        self.summary.failed += 1;
        let (id, log) = (job.id.clone(), self.store.log(&job.id));
        let title = job.work.title();
        self.summary.failures.push(Failure { id, stage: job.stage, title, message, log });
        let mut lost: HashSet<&JobId> = HashSet::from([&job.id]);
        for other in 0..self.jobs.len() {
            let dependant = self.jobs[other];
            let open = matches!(self.states[other], State::Waiting | State::Queued(..));
            if open && dependant.inputs.iter().any(|input| lost.contains(&input.id)) {
                lost.insert(&dependant.id);
                self.states[other] = State::Lost;
                self.summary.skipped += 1;
                self.finish(other, &Outcome::Skipped(job.id.clone()));
            }
        }
    }
}

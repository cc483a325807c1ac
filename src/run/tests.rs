//! The executor with real processes: this test binary plays the worker and the parent, a stage
//! that counts stands for the real ones, and everything is killed at bad moments.

use std::{
    env, fs,
    io::Write,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::*;
use crate::{
    error::{AtPath, Error},
    plan::{Estimate, ImportSpec, Input, Work},
    run::{
        local::{Launch, Pool, Start},
        wire::Pipe,
    },
    store::Store,
};

/// Behaves as the job's name says, in steps that it resumes, and notes each end in `ends.txt`.
struct Counting;

impl Stages for Counting {
    fn run(&self, task: &Task<'_>) -> Result<serde_json::Value> {
        let Work::Import(spec) = &task.job.work else { panic!("only imports here") };
        let state = task.work.join("steps");
        let mut done: u64 = fs::read_to_string(&state).map_or(0, |text| text.parse().unwrap_or(0));
        let steps = if spec.name.contains("slow") { 30 } else { 2 };
        task.progress.begin(&spec.name, steps, "step");
        while done < steps {
            if task.progress.stopping() {
                return Err(Error::Interrupted);
            }
            if spec.name.contains("fail") {
                return Err(Error::input("no luck:\n  nothing to be had"));
            }
            assert!(!spec.name.contains("panic"), "this one panics");
            thread::sleep(Duration::from_millis(20));
            done += 1;
            let note = |name: &str, text: String| {
                let path = spec.path.join(name);
                let file = fs::OpenOptions::new().create(true).append(true).open(&path);
                file.and_then(|mut file| writeln!(file, "{text}")).at(&path)
            };
            note("steps.txt", format!("{} {done}", spec.name))?;
            // Saved whole or not at all, as real stages do.
            let beside = task.work.join("beside");
            fs::write(&beside, done.to_string()).at(&beside)?;
            fs::rename(&beside, &state).at(&state)?;
            task.progress.at(done, "");
            if done == steps {
                note("ends.txt", spec.name.clone())?;
            }
        }
        let inputs: Vec<_> =
            task.inputs.iter().map(|(_, artifact)| &artifact.manifest.id).collect();
        let path = task.out.join("result.txt");
        fs::write(&path, format!("{} {inputs:?}", spec.name)).at(&path)?;
        Ok(json!({ "steps": done }))
    }
}

/// Not a test by itself: the process that the tests below start as a worker.
#[test]
fn worker_process() {
    let Some(job) = env::var_os("GAUNTLET_TEST_JOB") else { return };
    let stops = signals::count().unwrap();
    signals::count_end_of_input(stops.clone());
    let store = Store::open(&PathBuf::from(env::var_os("GAUNTLET_TEST_STORE").unwrap())).unwrap();
    let id: JobId = job.to_str().unwrap().parse().unwrap();
    // The test harness has begun a line.
    println!();
    let pipe = Pipe::new(stops);
    let machine =
        exec::Machine { device: Device::Cpu, name: "cpu".into(), threads: 1, halvings: 0 };
    let code = match exec::run(&store, &id, &machine, &Counting, &pipe) {
        Ok(ran) => {
            pipe.done(ran);
            0
        }
        Err(error) => {
            eprintln!("\nerror: {error}");
            error.exit_code()
        }
    };
    std::process::exit(code.into());
}

/// Not a test by itself: the process that the tests below start as a parent and kill.
#[test]
fn parent_process() {
    let Some(folder) = env::var_os("GAUNTLET_TEST_PARENT") else { return };
    let folder = PathBuf::from(folder);
    let stops = signals::count().unwrap();
    let summary = run_jobs(&folder, &slow_line(&folder), None, &stops);
    std::process::exit(if summary.interrupted { 130 } else { i32::from(summary.failed > 0) });
}

fn this_binary(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", &format!("run::tests::{test}"), "--nocapture", "--test-threads=1"]);
    command
}

fn job(folder: &Path, name: &str, inputs: &[&Job]) -> Job {
    let spec = ImportSpec { path: folder.to_owned(), blake3: String::new(), name: name.to_owned() };
    let input = |job: &&Job| Input { role: Role::Generated, id: job.id.clone() };
    Job {
        id: JobId::of(&json!({ "name": name })),
        stage: Stage::Import,
        work: Work::Import(spec),
        set: None,
        inputs: inputs.iter().map(input).collect(),
        roots: Vec::new(),
        cells: Vec::new(),
        estimate: Estimate::default(),
    }
}

/// One slow job, two slow ones on it, one on both.
fn slow_line(folder: &Path) -> Vec<Job> {
    let first = job(folder, "slow first", &[]);
    let left = job(folder, "slow left", &[&first]);
    let right = job(folder, "slow right", &[&first]);
    let last = job(folder, "last", &[&left, &right]);
    vec![first, left, right, last]
}

#[derive(Default)]
struct Noted(Mutex<Vec<String>>);

impl Noted {
    fn note(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }
}

impl Watcher for Noted {
    fn planned(&self, jobs: usize, cached: usize, _: &[&Job]) {
        self.note(format!("{cached} of {jobs} cached"));
    }
    fn started(&self, job: &Job, _: &str, threads: usize) {
        self.note(format!("start {} {threads}", job.work.title()));
    }
    fn progress(&self, _: &Job, event: &Event) {
        if let Event::Begin { task, .. } = event {
            self.note(format!("begin {task}"));
        }
    }
    fn finished(&self, job: &Job, outcome: &Outcome, _: f64) {
        let Work::Import(spec) = &job.work else { return };
        self.note(format!("end {} {outcome:?}", spec.name));
    }
    fn stopping(&self) {
        self.note("stopping".into());
    }
}

fn run_watched(
    folder: &Path,
    jobs: &[Job],
    workers: Option<usize>,
    stops: &AtomicUsize,
    watcher: &dyn Watcher,
) -> Summary {
    let store = Store::open(&folder.join("store")).unwrap();
    let root = store.root().to_owned();
    let launch = move |start: &Start<'_>| {
        let mut command = this_binary("worker_process");
        command.env_remove("GAUNTLET_TEST_PARENT");
        command.env("GAUNTLET_TEST_JOB", start.id.as_str()).env("GAUNTLET_TEST_STORE", &root);
        command
    };
    let launch: &Launch<'_> = &launch;
    let pool =
        Pool { devices: vec!["cpu".into()], cores: 2, workers, policy: local::Policy::default() };
    local::run(jobs, &store, (&pool, launch), watcher, stops).unwrap()
}

fn run_jobs(folder: &Path, jobs: &[Job], workers: Option<usize>, stops: &AtomicUsize) -> Summary {
    run_watched(folder, jobs, workers, stops, &Noted::default())
}

fn lines(folder: &Path, name: &str) -> Vec<String> {
    let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Waits until `ready`, but not for ever.
fn until(what: &str, ready: impl Fn() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(started.elapsed() < Duration::from_mins(2), "{what} never came");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Every job ended once, and no step of an interrupted job was done twice (but for the one whose
/// note and save a SIGKILL may part).
fn each_once(folder: &Path, kills: usize) {
    let mut ends = lines(folder, "ends.txt");
    ends.sort();
    assert_eq!(ends, ["last", "slow first", "slow left", "slow right"]);
    let steps = lines(folder, "steps.txt").len();
    assert!((92..=92 + 2 * kills).contains(&steps), "{steps} steps");
}

#[test]
fn jobs_run_in_order_and_only_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (a, stops) = (job(folder, "a", &[]), AtomicUsize::new(0));
    let (b, c) = (job(folder, "b", &[&a]), job(folder, "c", &[&a]));
    let d = job(folder, "d", &[&b, &c]);
    let jobs = [a, b, c, d];
    let noted = Noted::default();
    let summary = run_watched(folder, &jobs, None, &stops, &noted);
    assert_eq!((summary.jobs, summary.run, summary.cached, summary.failed), (4, 4, 0, 0));
    let notes = noted.0.into_inner().unwrap();
    let threads: Vec<_> = notes.iter().filter(|note| note.starts_with("start")).collect();
    // A lone job has both cores; two share them.
    assert!(threads[0].ends_with(" 2") && threads[1].ends_with(" 1") && threads[3].ends_with(" 2"));
    assert!(notes.iter().any(|note| note == "begin a"));
    let store = Store::at(&folder.join("store"));
    let manifest = store.require(&jobs[3].id).unwrap().manifest;
    assert_eq!((manifest.provenance.inputs.len(), manifest.provenance.threads), (2, 1));
    store.verify(&jobs[3].id).unwrap();

    let again = run_jobs(folder, &jobs, None, &stops);
    assert_eq!((again.run, again.cached), (0, 4));
    // What nothing missing needs is not computed anew; what is needed is, damage included.
    fs::remove_dir_all(store.require(&jobs[0].id).unwrap().folder).unwrap();
    assert_eq!(run_jobs(folder, &jobs, None, &stops).run, 0);
    fs::write(store.require(&jobs[3].id).unwrap().file("result.txt"), "x").unwrap();
    assert_eq!(run_jobs(folder, &jobs, None, &stops).run, 1);
    assert_eq!(lines(folder, "ends.txt").len(), 5);
}

#[test]
fn a_failure_takes_its_dependants_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (bad, worse) = (job(folder, "fail", &[]), job(folder, "panic", &[]));
    let (child, good) = (job(folder, "child", &[&bad]), job(folder, "good", &[]));
    let grandchild = job(folder, "grandchild", &[&child, &good]);
    let jobs = [bad, worse, child, good, grandchild];
    let summary = run_jobs(folder, &jobs, Some(1), &AtomicUsize::new(0));
    assert_eq!((summary.run, summary.failed, summary.skipped), (1, 2, 2));
    assert_eq!(summary.failures[0].message, "no luck:\n  nothing to be had");
    assert!(summary.failures[1].message.contains("this one panics"), "{:?}", summary.failures);
    assert!(summary.failures[0].log.exists());
    let tmp = fs::read_dir(folder.join("store/tmp")).unwrap().count();
    assert_eq!(tmp, 0, "no half-written output stays");
}

#[test]
fn a_stop_saves_and_a_new_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let jobs = slow_line(folder);
    let stops = Arc::new(AtomicUsize::new(0));
    let (steps, stop) = (folder.join("steps.txt"), stops.clone());
    let asker = thread::spawn(move || {
        until("40 steps", || fs::read_to_string(&steps).is_ok_and(|t| t.lines().count() > 40));
        stop.store(1, Ordering::Relaxed);
    });
    let summary = run_jobs(folder, &jobs, None, &stops);
    asker.join().unwrap();
    assert!(summary.interrupted && summary.run == 1 && summary.failed == 0, "{summary:?}");
    stops.store(0, Ordering::Relaxed);
    let summary = run_jobs(folder, &jobs, None, &stops);
    assert_eq!((summary.run, summary.cached), (3, 1));
    each_once(folder, 0);
}

#[test]
fn a_killed_worker_fails_alone_and_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let jobs = slow_line(folder);
    let store = Store::open(&folder.join("store")).unwrap();
    store.put_record(&jobs[0].id, &jobs[0]).unwrap();
    let mut worker = this_binary("worker_process")
        .env("GAUNTLET_TEST_JOB", jobs[0].id.as_str())
        .env("GAUNTLET_TEST_STORE", store.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("ten steps", || lines(folder, "steps.txt").len() >= 10);
    assert!(store.try_lock(&jobs[0].id).unwrap().is_none(), "the worker holds its lock");
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert!(!store.has(&jobs[0].id));
    let summary = run_jobs(folder, &jobs, None, &AtomicUsize::new(0));
    assert_eq!((summary.run, summary.failed), (4, 0));
    each_once(folder, 1);
}

fn start_parent(folder: &Path) -> Child {
    this_binary("parent_process")
        .env("GAUNTLET_TEST_PARENT", folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_parent_leaves_nothing_behind_and_is_restarted() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for steps in [10, 45] {
        let mut parent = start_parent(folder);
        until("steps", || lines(folder, "steps.txt").len() >= steps);
        parent.kill().unwrap();
        parent.wait().unwrap();
    }
    let summary = run_jobs(folder, &slow_line(folder), None, &AtomicUsize::new(0));
    assert_eq!((summary.failed, summary.run + summary.cached), (0, 4));
    each_once(folder, 4);
}

#[test]
fn two_runs_on_one_store_share_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut parent = start_parent(folder);
    let summary = run_jobs(folder, &slow_line(folder), None, &AtomicUsize::new(0));
    assert!(parent.wait().unwrap().success());
    assert_eq!((summary.failed, summary.run + summary.cached), (0, 4));
    each_once(folder, 0);
}

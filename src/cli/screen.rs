//! What a run shows: bars with times on a terminal, plain lines elsewhere.

use std::{
    collections::HashMap,
    io::{IsTerminal, Write},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};

use crate::{
    cli::terminal::style,
    digest::JobId,
    plan::Job,
    progress::{Course, Event, duration},
    run::{Outcome, Watcher},
};

/// Between two plain lines about the same job.
const PAUSE: Duration = Duration::from_secs(20);

/// Follows a run on standard error.
pub(super) struct Screen {
    bars: Option<MultiProgress>,
    state: Mutex<State>,
}

struct State {
    started: Instant,
    /// Bar of the whole run, in thousandths of estimated core minutes.
    whole: ProgressBar,
    jobs: usize,
    ended: usize,
    /// Estimated core minutes: of all jobs that will run, and of those that ended.
    expected: f64,
    done: f64,
    running: HashMap<JobId, Running>,
}

struct Running {
    bar: ProgressBar,
    title: String,
    minutes: f64,
    course: Course,
}

impl Screen {
    /// Bars if standard error is a terminal, else lines.
    pub(super) fn new() -> Self {
        let bars = std::io::stderr().is_terminal();
        let bars = bars.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        let state = State {
            started: Instant::now(),
            whole: ProgressBar::hidden(),
            jobs: 0,
            ended: 0,
            expected: 0.0,
            done: 0.0,
            running: HashMap::new(),
        };
        Self { bars, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => {
                let _ = bars.println(text);
            }
            None => {
                let _ = writeln!(std::io::stderr().lock(), "{text}");
            }
        }
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// What the whole run still takes, judged by what it took so far.
    fn remaining(&self) -> Option<f64> {
        let running: f64 = self.running.values().map(|job| job.minutes * job.course.share()).sum();
        let done = self.done + running;
        let elapsed = self.started.elapsed().as_secs_f64();
        (done > 0.02 * self.expected && elapsed > 1.0)
            .then(|| elapsed * (self.expected - done).max(0.0) / done)
    }

    fn refresh(&self) {
        let running: f64 = self.running.values().map(|job| job.minutes * job.course.share()).sum();
        self.whole.set_position((1000.0 * (self.done + running)) as u64);
        let left = self.remaining().map(|left| format!(", {} left", duration(left)));
        let left = left.unwrap_or_default();
        self.whole.set_message(format!("{} of {} jobs{left}", self.ended, self.jobs));
    }
}

impl Watcher for Screen {
    fn planned(&self, jobs: usize, cached: usize, missing: &[&Job]) {
        let mut state = self.state();
        state.started = Instant::now();
        state.jobs = missing.len();
        state.expected = missing.iter().map(|job| job.estimate.core_minutes).sum();
        self.line(&format!("{jobs} jobs: {cached} cached, {} to run", missing.len()));
        if let (Some(bars), false) = (&self.bars, missing.is_empty()) {
            let whole = ProgressBar::new((1000.0 * state.expected) as u64);
            let template = "{elapsed_precise} {bar:28.green/dim} {wide_msg}";
            state.whole = bars.add(whole.with_style(style(template)));
            state.whole.enable_steady_tick(Duration::from_secs(1));
        }
    }

    fn started(&self, job: &Job, device: &str, threads: usize) {
        let title = job.work.title();
        let mut state = self.state();
        let bar = if let Some(bars) = &self.bars {
            let template = "  {prefix} {bar:20.cyan/dim} {pos}/{len} {wide_msg}";
            let bar = ProgressBar::new(0).with_style(style(template));
            bars.insert_before(&state.whole, bar.with_prefix(title.clone()))
        } else {
            let threads =
                if threads == 1 { "1 thread".into() } else { format!("{threads} threads") };
            self.line(&format!("start {} {title} ({device}, {threads})", job.id.short()));
            ProgressBar::hidden()
        };
        if let Some(before) = state.running.remove(&job.id) {
            before.bar.finish_and_clear();
        }
        let (minutes, course) = (job.estimate.core_minutes, Course::default());
        let running = Running { bar, title, minutes, course };
        state.running.insert(job.id.clone(), running);
        state.refresh();
    }

    fn progress(&self, job: &Job, event: &Event) {
        let mut state = self.state();
        let Some(running) = state.running.get_mut(&job.id) else {
            // On a cluster a job may have come and gone before anybody saw it run.
            if let Event::Warn { message } = event {
                let title = job.work.title();
                self.line(&format!("warning: {} {title}: {message}", job.id.short()));
            }
            return;
        };
        running.course.hear(event);
        match event {
            Event::Begin { task, total, .. } => {
                running.bar.set_length(*total);
                running.bar.reset();
                running.bar.set_message(task.clone());
            }
            Event::At { done, .. } => {
                running.bar.set_position(*done);
                let Course { unit, .. } = &running.course;
                running.bar.set_message(format!("{unit}s, {}", running.course.words()));
                if self.bars.is_none() && running.course.is_due(PAUSE) {
                    let (id, title) = (job.id.short(), &running.title);
                    self.line(&format!("  at  {id} {title}: {}", running.course.line()));
                }
            }
            Event::Warn { message } => {
                let text = format!("warning: {} {}: {message}", job.id.short(), running.title);
                self.line(&text);
            }
        }
        state.refresh();
    }

    fn finished(&self, job: &Job, outcome: &Outcome, seconds: f64) {
        let mut state = self.state();
        let title = job.work.title();
        if let Some(running) = state.running.remove(&job.id) {
            running.bar.finish_and_clear();
        }
        state.done += job.estimate.core_minutes;
        state.ended += 1;
        let (id, time) = (job.id.short(), duration(seconds));
        self.line(&match outcome {
            Outcome::Ran => format!("done  {id} {title} ({time})"),
            Outcome::Shared => format!("done  {id} {title} (by another process)"),
            Outcome::Failed(message) => format!("FAILED {id} {title} ({time}): {message}"),
            Outcome::Skipped(cause) => {
                format!("skip  {id} {title} (needs {}, which failed)", cause.short())
            }
            Outcome::Interrupted => format!("stop  {id} {title} (saved after {time})"),
        });
        state.refresh();
        if state.ended == state.jobs {
            state.whole.finish_and_clear();
        }
    }

    fn stopping(&self) {
        self.line("stopping: running jobs save what they have (once more to end them at once)");
    }
}

//! What a run shows: bars with times on a terminal, plain lines elsewhere.

use std::{
    collections::HashMap,
    io::{IsTerminal, Write},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    digest::JobId,
    plan::Job,
    progress::Event,
    run::{Outcome, Watcher},
};

/// Between two plain lines about the same job.
const PAUSE: Duration = Duration::from_secs(20);

/// Writes `text` to standard output. A reader that has gone (`| head`) is no error.
pub fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{}", text.trim_end());
}

/// A time as people say it: `42 s`, `3 min 10 s`, `2 h 5 min`, `350 h`, `46 years`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..360_000 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        360_000..36_000_000 => format!("{} h", seconds / 3600),
        _ => format!("{:.1} years", seconds as f64 / (365.25 * 86400.0)),
    }
}

/// Bytes as people say them: `512 kB`, `3.1 GB`.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} kB", bytes / 1_000),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// Follows a run on standard error.
pub struct Screen {
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
    unit: String,
    minutes: f64,
    total: u64,
    at: u64,
    spoke: Instant,
}

impl Running {
    fn share(&self) -> f64 {
        if self.total == 0 { 0.0 } else { (self.at as f64 / self.total as f64).min(1.0) }
    }
}

impl Screen {
    /// Bars if standard error is a terminal, else lines.
    pub fn new() -> Self {
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
        let running: f64 = self.running.values().map(|job| job.minutes * job.share()).sum();
        let done = self.done + running;
        let elapsed = self.started.elapsed().as_secs_f64();
        (done > 0.02 * self.expected && elapsed > 1.0)
            .then(|| elapsed * (self.expected - done).max(0.0) / done)
    }

    fn refresh(&self) {
        let running: f64 = self.running.values().map(|job| job.minutes * job.share()).sum();
        self.whole.set_position((1000.0 * (self.done + running)) as u64);
        let left = self.remaining().map(|left| format!(", {} left", duration(left)));
        let left = left.unwrap_or_default();
        self.whole.set_message(format!("{} of {} jobs{left}", self.ended, self.jobs));
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a template").progress_chars("━╸─")
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
        let minutes = job.estimate.core_minutes;
        let (unit, spoke) = (String::new(), Instant::now());
        let running = Running { bar, title, unit, minutes, total: 0, at: 0, spoke };
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
        match event {
            Event::Begin { task, total, unit } => {
                (running.total, running.at) = (*total, 0);
                running.unit.clone_from(unit);
                running.bar.set_length(*total);
                running.bar.reset();
                running.bar.set_message(task.clone());
            }
            Event::At { done, note } => {
                running.at = *done;
                running.bar.set_position(*done);
                let left = running.bar.eta().as_secs_f64();
                running.bar.set_message(format!(
                    "{}  {note}  {} left",
                    running.unit,
                    duration(left)
                ));
                if self.bars.is_none() && running.spoke.elapsed() > PAUSE {
                    running.spoke = Instant::now();
                    let Running { title, total, unit, .. } = running;
                    self.line(&format!(
                        "  at  {} {title}: {unit} {done}/{total} {note}",
                        job.id.short()
                    ));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(duration(0.4), "0 s");
        assert_eq!(duration(190.0), "3 min 10 s");
        assert_eq!(duration(7500.0), "2 h 5 min");
        assert_eq!(duration(1.26e6), "350 h");
        assert_eq!(duration(1.446e9), "45.8 years");
    }
}

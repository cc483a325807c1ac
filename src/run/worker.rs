//! One worker process as its parent sees it.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::Sender,
    thread,
    time::Instant,
};

use crate::{
    error::{AtPath, Result},
    run::{Outcome, memory, wire::Line},
};

/// Exit code of a process that was asked to stop and saved its state.
const INTERRUPTED: i32 = 130;
/// Exit code of a process that the system refused something.
const SYSTEM: i32 = 3;

/// What reader threads send to the executor: the position of the job, and a line or the end.
pub(super) type Message = (usize, Option<Line>);

/// A running worker.
pub(super) struct Worker {
    child: Child,
    /// Open as long as the worker should go on.
    stdin: Option<ChildStdin>,
    log: PathBuf,
    /// Length of the log before this worker.
    log_start: u64,
    pub(super) started: Instant,
    pub(super) threads: usize,
    pub(super) device: usize,
    /// What the worker's last line said.
    pub(super) done: Option<bool>,
    /// Set by [`Worker::outcome`] where the job itself may be blameless.
    pub(super) crash: Option<Crash>,
}

/// Ends that may not come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crash {
    /// SIGKILL, by hand or by a system that ran out of memory; or an abort for want of it.
    Killed,
    /// Another signal, or the system refused a file.
    Other,
}

impl Worker {
    /// Starts `command` for the job at `position`; its lines arrive at `sender`, its errors in
    /// the file `log`.
    pub(super) fn start(
        mut command: Command,
        log: &Path,
        position: usize,
        sender: Sender<Message>,
        share: (usize, usize),
    ) -> Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).open(log).at(log)?;
        let log_start = file.metadata().at(log)?.len();
        writeln!(file, "--- {command:?}").at(log)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        // A group of its own: Ctrl-C reaches the parent, which asks its workers to stop.
        command.process_group(0);
        let program = PathBuf::from(command.get_program());
        let mut child = command.spawn().at(&program)?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("piped");
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
                if let Some(line) = Line::parse(&line) {
                    let _ = sender.send((position, Some(line)));
                }
            }
            let _ = sender.send((position, None));
        });
        let (threads, device) = share;
        let started = Instant::now();
        let log = log.to_owned();
        Ok(Self { child, stdin, log, log_start, started, threads, device, done: None, crash: None })
    }

    /// Asks the worker to save what it has and stop.
    pub(super) fn ask_to_stop(&mut self) {
        self.stdin = None;
    }

    /// Ends the worker at once.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// How it ended, once its output has.
    pub(super) fn outcome(&mut self, stopping: bool) -> Outcome {
        match self.child.wait() {
            Ok(status) if status.success() && self.done == Some(false) => Outcome::Shared,
            Ok(status) if status.success() => Outcome::Ran,
            Ok(_) if stopping => Outcome::Interrupted,
            Ok(status) => {
                self.crash = match (status.signal(), status.code()) {
                    (Some(9), _) => Some(Crash::Killed),
                    (Some(_), _) if memory::is_said_in(&self.said()) => Some(Crash::Killed),
                    (Some(_), _) | (_, Some(SYSTEM)) => Some(Crash::Other),
                    _ => None,
                };
                Outcome::Failed(self.reason(status))
            }
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }

    fn reason(&self, status: ExitStatus) -> String {
        if let Some(signal) = status.signal() {
            let hint = match signal {
                9 => "by hand, or for want of memory".to_owned(),
                _ => last_error(&self.said()).unwrap_or_else(|| "no word of error".to_owned()),
            };
            return format!(
                "killed by signal {signal} ({hint}); run again to go on from its last save"
            );
        }
        if status.code() == Some(INTERRUPTED) {
            return "asked to stop by a signal; run again to go on".to_owned();
        }
        last_error(&self.said())
            .unwrap_or_else(|| format!("ended with {status} and no word of error"))
    }

    /// What it wrote into the log.
    fn said(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(text.get(self.log_start as usize..).unwrap_or_default()).into()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Reached with a living child only when the executor itself fails.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
            let _ = self.child.wait();
        }
    }
}

/// The message after the last `error: `, or the last line that says anything.
fn last_error(log: &str) -> Option<String> {
    if let Some(start) = log.rfind("\nerror: ") {
        return Some(log[start + 8..].trim_end().to_owned());
    }
    let mut lines = log.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("---"));
    lines.next_back().map(str::to_owned)
}

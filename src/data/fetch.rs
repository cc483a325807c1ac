//! Downloads: resumed where they stopped, tried again, checked, and put in place whole or not at
//! all. What has arrived so far waits beside its place as `NAME.part`.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{
    data::catalog::Remote,
    error::{AtPath, Error, Result},
    formats::shelf::looks_like_html,
    progress::Progress,
};

/// How patient a download is.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Attempts in a row that bring nothing new before it gives up.
    pub attempts: u32,
    /// The pause after the first failure; it doubles with each further one.
    pub pause: Duration,
    /// How long a silent server is waited for.
    pub silence: Duration,
}

impl Patience {
    /// For servers far away.
    pub const USUAL: Self =
        Self { attempts: 6, pause: Duration::from_secs(1), silence: Duration::from_mins(1) };
}

/// Why an attempt ended.
enum Failure {
    /// Another attempt may go better.
    Passing(String),
    /// The same will come again.
    Final(Error),
}

/// Brings `remote` into `folder` from `url`. Returns its path, and whether it was there already.
///
/// # Errors
/// If it cannot be had whole after all attempts; [`Error::Interrupted`] if asked to stop (what has
/// arrived is kept for the next call). Under the final name nothing partial is ever seen.
pub fn fetch(
    remote: &Remote,
    url: &str,
    folder: &Path,
    patience: Patience,
    progress: &dyn Progress,
) -> Result<(PathBuf, bool)> {
    let target = folder.join(remote.file);
    if target.exists() {
        return match check(remote, &target)? {
            None => Ok((target, true)),
            Some(found) => Err(Error::in_file(
                &target,
                format!(
                    "is there already, but its MD5 is {found}, published {}; move it away and \
                     fetch again",
                    remote.md5.unwrap_or_default()
                ),
            )),
        };
    }
    let folder = target.parent().unwrap_or(folder);
    fs::create_dir_all(folder).at(folder)?;
    let download = Download {
        remote,
        url,
        part: folder.join(format!("{}.part", remote.name())),
        patience,
        progress,
    };
    download.run()?;
    fs::rename(&download.part, &target).at(&target)?;
    File::open(folder).and_then(|folder| folder.sync_all()).at(folder)?;
    Ok((target, false))
}

/// The MD5 of the file at `path`.
///
/// # Errors
/// If it cannot be read.
pub fn md5_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).at(path)?;
    let (mut context, mut buffer) = (md5::Context::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).at(path)? {
            0 => return Ok(format!("{:x}", context.finalize())),
            count => context.consume(&buffer[..count]),
        }
    }
}

/// The MD5 of the file if it is not the published one.
fn check(remote: &Remote, path: &Path) -> Result<Option<String>> {
    let Some(expected) = remote.md5 else { return Ok(None) };
    let found = md5_of(path)?;
    Ok((found != expected).then_some(found))
}

struct Download<'a> {
    remote: &'a Remote,
    url: &'a str,
    part: PathBuf,
    patience: Patience,
    progress: &'a dyn Progress,
}

impl Download<'_> {
    fn run(&self) -> Result<()> {
        let mut wrong_sums = 0;
        loop {
            self.receive()?;
            let Some(found) = check(self.remote, &self.part)? else { return Ok(()) };
            fs::remove_file(&self.part).at(&self.part)?;
            wrong_sums += 1;
            if wrong_sums > 1 {
                return Err(Error::input(format!(
                    "{}: what came has the MD5 {found}, published {}; it was thrown away",
                    self.url,
                    self.remote.md5.unwrap_or_default()
                )));
            }
            // What was resumed may have been another version, or a length a lie: once more, anew.
            self.progress.warn(format!("{}: wrong checksum; once more from the start", self.url));
        }
    }

    /// Attempts until all bytes are there.
    fn receive(&self) -> Result<()> {
        let (mut failures, mut pause) = (0, self.patience.pause);
        loop {
            let before = self.arrived();
            let message = match self.attempt(before) {
                Ok(()) => return Ok(()),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(message)) => message,
            };
            if self.arrived() > before {
                (failures, pause) = (0, self.patience.pause);
            }
            failures += 1;
            if failures >= self.patience.attempts {
                return Err(Error::input(format!(
                    "{}: {message}; gave up after {failures} attempts. The same command goes on \
                     after {} bytes",
                    self.url,
                    self.arrived()
                )));
            }
            self.progress.warn(format!("{}: {message}; trying again", self.url));
            let slices = pause.as_millis() / 50;
            for _ in 0..slices {
                if self.progress.stopping() {
                    return Err(Error::Interrupted);
                }
                thread::sleep(Duration::from_millis(50));
            }
            pause = (pause * 2).min(Duration::from_mins(1));
        }
    }

    fn arrived(&self) -> u64 {
        fs::metadata(&self.part).map_or(0, |found| found.len())
    }

    fn attempt(&self, have: u64) -> std::result::Result<(), Failure> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(self.patience.silence))
            .timeout_recv_response(Some(self.patience.silence))
            .timeout_per_read(Some(self.patience.silence))
            .user_agent(concat!("gauntlet/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent: ureq::Agent = config.into();
        let mut request = agent.get(self.url).header("Accept-Encoding", "identity");
        if have > 0 {
            request = request.header("Range", format!("bytes={have}-"));
        }
        let response = request.call().map_err(|error| match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::RequireHttpsOnly(_) => {
                Failure::Final(Error::input(format!("{}: {error}", self.url)))
            }
            other => Failure::Passing(other.to_string()),
        })?;
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        if header("content-type").is_some_and(|kind| kind.starts_with("text/html"))
            && response.status().is_success()
        {
            return Err(self.html());
        }
        let start = match response.status().as_u16() {
            200 => 0,
            206 => match header("content-range").and_then(range_start) {
                Some(start) if start == have => have,
                // Another part than was asked for: nothing of it fits.
                _ => return Err(self.afresh("the server sent another part than was asked for")),
            },
            416 => return Err(self.afresh("the server cannot go on there")),
            408 | 429 | 500..=599 => {
                return Err(Failure::Passing(format!("the server says {}", response.status())));
            }
            _ => {
                let status = response.status();
                return Err(Failure::Final(Error::input(format!(
                    "{}: the server says {status}",
                    self.url
                ))));
            }
        };
        let length = header("content-length").and_then(|text| text.parse::<u64>().ok());
        let total = length.map(|length| start + length);
        self.copy(response.into_body().into_reader(), start, total)
    }

    /// Appends the body to the part, or begins it anew at `start` 0.
    fn copy(
        &self,
        mut body: impl Read,
        start: u64,
        total: Option<u64>,
    ) -> std::result::Result<(), Failure> {
        let disk = |error| Failure::Final(Error::Io { path: self.part.clone(), source: error });
        let mut file = OpenOptions::new()
            .create(true)
            .append(start > 0)
            .write(true)
            .truncate(start == 0)
            .open(&self.part)
            .map_err(disk)?;
        const MEGA: u64 = 1_000_000;
        let task = format!("fetch {}", self.remote.file);
        self.progress.begin(&task, total.unwrap_or(0).div_ceil(MEGA), "MB");
        let (mut done, mut buffer) = (start, vec![0; 1 << 16]);
        loop {
            if self.progress.stopping() {
                file.sync_all().map_err(disk)?;
                return Err(Failure::Final(Error::Interrupted));
            }
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => return Err(Failure::Passing(format!("after {done} bytes: {error}"))),
            };
            if done == 0 && looks_like_html(&buffer[..count]) {
                drop(file);
                fs::remove_file(&self.part).map_err(disk)?;
                return Err(self.html());
            }
            file.write_all(&buffer[..count]).map_err(disk)?;
            done += count as u64;
            self.progress.at(done / MEGA, "MB");
        }
        file.sync_all().map_err(disk)?;
        match total {
            Some(total) if done != total => {
                Err(Failure::Passing(format!("{done} bytes came, {total} were announced")))
            }
            _ if done == 0 => Err(Failure::Passing("nothing came".to_owned())),
            _ => Ok(()),
        }
    }

    fn html(&self) -> Failure {
        Failure::Final(Error::input(format!(
            "{}: the server sent an HTML page instead of {} (a login or an error page?); nothing \
             was kept of it",
            self.url, self.remote.file
        )))
    }

    /// What is there is of no use: the next attempt begins at the start.
    fn afresh(&self, message: &str) -> Failure {
        match fs::remove_file(&self.part) {
            Ok(()) => Failure::Passing(message.to_owned()),
            Err(source) => Failure::Final(Error::Io { path: self.part.clone(), source }),
        }
    }
}

/// The first byte that `bytes 100-199/200` speaks of.
fn range_start(header: &str) -> Option<u64> {
    header.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;

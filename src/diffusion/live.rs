//! A ring buffer of images that a sampler refills while training goes on.
//!
//! Image `i` is that of the endless set which (denoiser, sampler, policy, seed, batch) define, so
//! what training sees depends on no thread's timing, and a training that goes on somewhere only
//! has the images of its buffer drawn again. As far as they lie in the work folder still, not even
//! that.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, MutexGuard},
};

use crate::{
    data::live::{Live, Ring},
    diffusion::{
        generate::Draw,
        set::{self, Part},
    },
    error::{AtPath, Error, Result},
};

/// Steps of training for which images are drawn ahead of need.
const AHEAD: u64 = 8;

/// The images that training may still ask for, in blocks of one batch of the sampler each.
#[derive(Debug)]
pub struct Buffer {
    ring: Ring,
    /// Images of a block.
    batch: u64,
    /// Height and width.
    size: (usize, usize),
    /// Image `i` has class `i mod n` of these, or that of the real image it starts from.
    labels: Vec<u16>,
    /// Where blocks lie for whoever goes on after an interruption.
    folder: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the first block held, from 0.
    first: u64,
    /// Bytes `[batch,h,w,3]` each.
    blocks: VecDeque<Vec<u8>>,
    /// Images up to here are wanted.
    wanted: u64,
    /// Nothing more will be drawn, or asked for.
    ended: bool,
    failed: Option<Error>,
}

impl State {
    /// The block that is drawn next.
    fn next(&self) -> u64 {
        self.first + self.blocks.len() as u64
    }
}

/// Ends a buffer when it goes out of scope, however that comes: nobody waits for ever.
#[derive(Debug)]
pub struct Ending<'a>(&'a Buffer);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.changed.notify_all();
    }
}

impl Buffer {
    /// An empty buffer for a training that goes on at `step`. `folder` belongs to it alone.
    ///
    /// # Errors
    /// If `draw` cannot be drawn, or `folder` cannot be made.
    pub fn new(draw: &Draw<'_>, ring: Ring, step: u64, folder: &Path) -> Result<Self> {
        draw.check()?;
        fs::create_dir_all(folder).at(folder)?;
        let [_, height, width] = draw.denoiser.shape();
        let batch = draw.spec.batch;
        let first = ring.window(step).start / batch;
        for entry in fs::read_dir(folder).at(folder)?.flatten() {
            let block: Option<u64> = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if block.is_none_or(|block| block < first) {
                let _ = fs::remove_file(entry.path());
            }
        }
        let buffer = Self {
            ring,
            batch,
            size: (height as usize, width as usize),
            labels: draw.labels(),
            folder: folder.to_owned(),
            state: Mutex::new(State { first, ..State::default() }),
            changed: Condvar::new(),
        };
        buffer.passed(step);
        Ok(buffer)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the state whole: each change is one assignment.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A guard that ends the buffer.
    pub fn ending(&self) -> Ending<'_> {
        Ending(self)
    }

    /// Why nothing more was drawn, if something went wrong.
    pub fn failure(&self) -> Option<Error> {
        self.state().failed.take()
    }

    /// Says that training is at `step`: images that left the buffer before are let go, those of the
    /// next steps drawn.
    pub fn passed(&self, step: u64) {
        let gone = {
            let mut state = self.state();
            let first = state.first;
            let keep = self.ring.window(step).start / self.batch;
            while state.first < keep {
                state.blocks.pop_front();
                state.first += 1;
            }
            state.wanted = state.wanted.max(self.ring.window(step + AHEAD).end);
            first..state.first
        };
        self.changed.notify_all();
        for block in gone {
            let _ = fs::remove_file(self.path(block));
        }
    }

    fn path(&self, block: u64) -> PathBuf {
        self.folder.join(block.to_string())
    }

    /// Draws what is wanted until the buffer ends, or something fails.
    pub fn fill(&self, draw: &Draw<'_>) {
        loop {
            let block = {
                let enough =
                    |state: &mut State| !state.ended && state.next() * self.batch >= state.wanted;
                let state = self.changed.wait_while(self.state(), enough);
                let state = state.unwrap_or_else(std::sync::PoisonError::into_inner);
                if state.ended {
                    return;
                }
                state.next()
            };
            match self.drawn(draw, block) {
                Ok(bytes) => {
                    let mut state = self.state();
                    // Training may have passed it meanwhile.
                    if state.next() == block {
                        state.blocks.push_back(bytes);
                    }
                }
                Err(error) => {
                    self.state().failed = Some(error);
                    return;
                }
            }
            self.changed.notify_all();
        }
    }

    fn drawn(&self, draw: &Draw<'_>, block: u64) -> Result<Vec<u8>> {
        let (path, start) = (self.path(block), block * self.batch);
        let length = self.batch as usize * self.image_bytes();
        if let Some(bytes) = fs::read(&path).ok().filter(|bytes| bytes.len() == length) {
            return Ok(bytes);
        }
        let bytes = draw.block(start, start..start + self.batch)?;
        set::write_part(&Part { path, start, count: self.batch }, &bytes)?;
        Ok(bytes)
    }

    fn image_bytes(&self) -> usize {
        3 * self.size.0 * self.size.1
    }
}

impl Live for Buffer {
    fn take(&self, index: u64, out: &mut [u8]) -> Option<u16> {
        let block = index / self.batch;
        let mut state = self.state();
        if state.wanted <= index {
            state.wanted = index + 1;
            self.changed.notify_all();
        }
        let missing = |state: &mut State| !state.ended && block >= state.next();
        let waited = self.changed.wait_while(state, missing);
        let state = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        let position = block.checked_sub(state.first).expect("training never goes back") as usize;
        let start = (index % self.batch) as usize * self.image_bytes();
        let image = &state.blocks.get(position)?[start..][..self.image_bytes()];
        ::pixels::layout::split_channels(image, out);
        Some(self.labels[(index % self.labels.len() as u64) as usize])
    }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;

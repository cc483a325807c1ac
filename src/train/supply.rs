//! Generated images of a training: a set that is there, or a sampler beside it.

use tch::Device;

use super::spec::TrainSpec;
use crate::{
    data::Dataset,
    diffusion::{generate::Draw, live::Buffer, spec::GenerateSpec},
    digest::JobId,
    error::{Error, Result},
    net::Denoiser,
};

/// Where generated images come from.
pub enum Supply<'a> {
    /// The parts of a set, in order; none where none are wanted.
    Set(&'a [&'a Dataset]),
    /// Drawn meanwhile, as [`TrainSpec::live`] says.
    Live {
        /// From this denoiser.
        denoiser: Box<dyn Denoiser>,
        /// Names all that fixes the training, the denoiser included.
        identity: &'a JobId,
    },
}

/// A sampler that has not begun; it is moved to its thread.
pub(super) struct Sampler<'a> {
    denoiser: Box<dyn Denoiser>,
    spec: &'a GenerateSpec,
    /// Image `i` has class `i` modulo their number.
    turns: Vec<i64>,
    origin: Option<&'a Dataset>,
    device: Device,
    threads: i32,
}

impl<'a> Sampler<'a> {
    /// The sampler of `spec`, if it has one, on `device`.
    ///
    /// # Errors
    /// If there is no denoiser, or it does not fit.
    pub(super) fn of(
        spec: &'a TrainSpec,
        denoiser: Option<Box<dyn Denoiser>>,
        real: &'a Dataset,
        device: Device,
    ) -> Result<Option<Self>> {
        let Some(live) = &spec.live else { return Ok(None) };
        let wrong = |what: String| Err(Error::input(format!("generated.supply: {what}")));
        let Some(denoiser) = denoiser else {
            return wrong("live images need a denoiser: name its file".to_owned());
        };
        let [_, height, width] = denoiser.shape();
        if real.size != (height as usize, width as usize) {
            return wrong(format!(
                "the denoiser makes images of {height}x{width} pixels, those of {} are {}x{}",
                real.name, real.size.0, real.size.1
            ));
        }
        let (known, classes) = (denoiser.classes(), spec.network.classes);
        if !(1..=classes).contains(&known) {
            return wrong(format!("the denoiser knows {known} classes, the classifier {classes}"));
        }
        let turns = (0..live.draw.classes).collect();
        let origin = live.draw.origin.is_some().then_some(real);
        let threads = tch::get_num_threads();
        Ok(Some(Self { denoiser, spec: &live.draw, turns, origin, device, threads }))
    }

    /// Runs `action` with what is to be drawn.
    pub(super) fn with<T>(&self, action: impl FnOnce(&Draw<'_>) -> T) -> T {
        let &Self { spec, ref turns, origin, device, .. } = self;
        action(&Draw { spec, denoiser: self.denoiser.as_ref(), device, turns, origin })
    }

    /// Draws into `buffer` until that ends: the work of a thread of its own.
    pub(super) fn fill(self, buffer: &Buffer) {
        let _ending = buffer.ending();
        // As many as training has: a sum in other parts rounds otherwise.
        crate::device::set_threads(self.threads as usize);
        self.with(|draw| buffer.fill(draw));
    }
}

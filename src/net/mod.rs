//! Networks: classifiers and denoisers, their weights by published names.

pub mod arch;
pub mod architecture;
pub mod checkpoint;
pub mod classifier;
mod closest;
pub mod denoiser;
pub mod formula;
mod identify;
pub mod layers;
pub mod load;
pub mod preact;
pub mod precond;
pub mod resnet;
pub mod script;
pub mod small;
pub mod spec;
pub mod tensors;
pub mod unet;
mod unet_block;
mod unet_build;
pub mod weights;
mod winograd;
pub mod wrn;
mod zoo;

pub use classifier::Network;
pub use denoiser::DenoiserNet;
pub use load::{load_classifier, load_denoiser, load_network, save_classifier, save_denoiser};
use tch::Tensor;

/// Anything that gives logits for images, in evaluation mode. Normalisation happens inside.
pub trait Classifier {
    /// How many classes the logits have.
    fn classes(&self) -> i64;

    /// Logits `[b,k]` of images `x` `[b,3,h,w]`, `Float` in `[0, 1]`. Differentiable with respect
    /// to `x`; no gradient reaches parameters; running statistics do not move.
    fn logits(&self, x: &Tensor) -> Tensor;

    /// The same function in a form that is faster and, because it rounds otherwise, not equal to
    /// the last bit: batch normalisation folded into the convolutions before it. `None` where
    /// nothing is gained. For attacks that are verified by [`Classifier::logits`] afterwards.
    fn fused(&self) -> Option<Box<dyn Classifier>> {
        None
    }

    /// The architecture that it was taken for, with the normalisation inside, for people to look
    /// at: `resnet20, 10 classes, normalised by mean 0.485 0.456 0.406 and deviation ...`. `None` for programs, which bring their own.
    fn architecture(&self) -> Option<String> {
        None
    }

    /// What whoever trusts a robust accuracy should know of how it answers, in sentences: that it
    /// optimises at test time, that it was saved in training mode.
    fn remarks(&self) -> &[String] {
        &[]
    }
}

/// Anything that removes noise: `D(x; σ)` of Karras et al. 2022.
pub trait Denoiser: Send {
    /// Channels, height and width of the images.
    fn shape(&self) -> [i64; 3];

    /// How many classes condition it; 0 when unconditional.
    fn classes(&self) -> i64;

    /// Smallest and largest supported noise level.
    fn sigma_range(&self) -> (f64, f64);

    /// The supported noise level nearest to `sigma` (only iDDPM rounds).
    fn round_sigma(&self, sigma: f64) -> f64;

    /// The denoised image `[b,c,h,w]`, `Float`, for `x` of the same shape (any float kind), pixels
    /// in `[-1, 1]` plus noise of deviation `sigma` (`[b]` or `[1]`), `label` one-hot `[b,k]`.
    /// Evaluation mode.
    fn denoise(&self, x: &Tensor, sigma: &Tensor, label: Option<&Tensor>) -> Tensor;
}

/// What a forward pass does with batch normalisation (and dropout).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// Running statistics, nothing moves.
    Eval,
    /// Batch statistics, running statistics frozen: how TRADES crafts its adversarial images.
    Frozen,
    /// Batch statistics; running statistics move by `momentum`.
    Train {
        /// 0.01 in the paper's networks, 1.0 at the very first step.
        momentum: f64,
    },
}

//! TorchScript programs as classifiers.

use std::{path::Path, sync::Once};

use tch::{CModule, Device, Kind, Tensor};

use super::Classifier;
use crate::error::{Error, Result};

/// A TorchScript program that takes images in `[0, 1]` and gives logits. Whether it really does
/// (rather than probabilities, or something random) is checked where it is evaluated.
#[derive(Debug)]
pub struct Script {
    module: CModule,
    classes: i64,
}

/// TorchScript's optimiser rewrites a program after its first runs and may then round otherwise:
/// results would depend on how often a model ran. It is one switch for the whole process.
static PLAIN_EXECUTOR: Once = Once::new();

impl Script {
    /// The program at `path` in evaluation mode, on `device`. It is run once, on one black image
    /// of edge `resolution`.
    ///
    /// # Errors
    /// If the file is no TorchScript program, or does not map `[1,3,h,w]` to `[1,k]`.
    pub fn load(path: &Path, resolution: i64, device: Device) -> Result<Self> {
        PLAIN_EXECUTOR.call_once(|| tch::jit::set_graph_executor_optimize(false));
        let failed = |error: tch::TchError| {
            let text = error.to_string();
            let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
            Error::in_file(path, format!("as a TorchScript program: {first}"))
        };
        let mut module = CModule::load_on_device(path, device).map_err(failed)?;
        module.f_set_eval().map_err(failed)?;
        for (_, parameter) in module.named_parameters().map_err(failed)? {
            let _ = parameter.set_requires_grad(false);
        }
        let black = Tensor::zeros([1, 3, resolution, resolution], (Kind::Float, device));
        let guard = tch::no_grad_guard();
        let logits = module.forward_ts(&[black]).map_err(failed)?;
        drop(guard);
        match logits.size()[..] {
            [1, classes] if classes > 0 && logits.kind() == Kind::Float => {
                Ok(Self { module, classes })
            }
            _ => Err(Error::in_file(
                path,
                format!(
                    "gives {:?} {:?} for one image; expected float32 logits [1, classes]",
                    logits.kind(),
                    logits.size()
                ),
            )),
        }
    }
}

impl Classifier for Script {
    fn classes(&self) -> i64 {
        self.classes
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        self.module.forward_ts(&[x]).expect("the program ran when it was loaded")
    }
}

//! TorchScript programs as classifiers.

use std::{
    panic::resume_unwind,
    path::{Path, PathBuf},
};

use tch::{CModule, Device, IValue, Kind, TchError, Tensor};

use super::Classifier;
use crate::{
    error::{Error, Result},
    formats::{archive::Archive, bytes::Bytes},
    rng::torch_turn,
};

/// A TorchScript program that takes images in `[0, 1]` and gives logits. Whether it really does
/// (rather than probabilities, or something random) is checked where it is evaluated.
#[derive(Debug)]
pub struct Script {
    path: PathBuf,
    module: CModule,
    classes: i64,
    form: Form,
    remarks: Vec<String>,
}

/// Where in what the program returns the logits are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Alone,
    /// The first of a tuple or list.
    First,
    /// A dictionary's `logits`.
    Named,
}

/// Switches TorchScript's optimiser off in this thread: it rewrites a program after its first runs
/// and may then round otherwise, so that results would depend on how often a model ran.
pub fn keep_plain() {
    tch::jit::set_graph_executor_optimize(false);
}

impl Script {
    /// The program at `path` in evaluation mode, on `device`. It is run on one black image of
    /// `size`, height and width.
    ///
    /// # Errors
    /// If the file is no TorchScript program, or does not map `[1,3,h,w]` to `[1,k]`.
    pub fn load(path: &Path, (height, width): (i64, i64), device: Device) -> Result<Self> {
        keep_plain();
        let failed = |error: TchError| {
            Error::in_file(path, format!("as a TorchScript program: {}", sentence(&error)))
        };
        let black = Tensor::zeros([1, 3, height, width], (Kind::Float, device));
        let _guard = tch::no_grad_guard();
        let _turn = torch_turn();
        let run = |module: &CModule, form: Form| {
            // A program that draws random numbers draws the same ones each time.
            tch::manual_seed(0);
            answer(module, form, &black)
        };
        let as_saved = CModule::load_on_device(path, device).map_err(failed)?;
        let mut module = CModule::load_on_device(path, device).map_err(failed)?;
        module.f_set_eval().map_err(failed)?;
        for (_, parameter) in module.named_parameters().map_err(failed)? {
            let _ = parameter.set_requires_grad(false);
        }
        let about = format!("for an image [1, 3, {height}, {width}]");
        let said = |error: TchError| {
            let what = format!("{about} the TorchScript program says: {}", sentence(&error));
            Error::in_file(path, what)
        };
        let (form, logits) = match run(&module, Form::Alone) {
            Err(error) if error.to_string().contains("did not return a tensor") => {
                let input = IValue::Tensor(black.shallow_clone()); // the same image, as a value
                let form =
                    form(&module.forward_is(&[input]).map_err(failed)?).ok_or_else(|| {
                        Error::in_file(path, "returns no tensor [1, classes] of logits")
                    })?;
                (form, run(&module, form).map_err(said)?)
            }
            alone => (Form::Alone, alone.map_err(said)?),
        };
        let &[1, classes] = &logits.size()[..] else {
            let size = logits.size();
            let what = format!("gives {size:?} numbers {about}; expected logits [1, classes]");
            return Err(Error::in_file(path, what));
        };
        let mut remarks = remarks(path);
        // Dropout or batch statistics; not even running it may fail differently.
        let scale = logits.abs().max().double_value(&[]);
        let differs = |other: Tensor| !other.allclose(&logits, 1e-3, 1e-3 * scale, true);
        if run(&as_saved, form).is_ok_and(differs) {
            remarks.push(
                "the program was saved in training mode; it is evaluated in evaluation mode \
                 (no dropout, running statistics)"
                    .to_owned(),
            );
        }
        Ok(Self { path: path.to_owned(), module, classes, form, remarks })
    }
}

/// Where the logits are in `value`, if anywhere.
fn form(value: &IValue) -> Option<Form> {
    let tensor = |value: &IValue| matches!(value, IValue::Tensor(z) if z.dim() == 2);
    match value {
        IValue::Tuple(values) if values.first().is_some_and(tensor) => Some(Form::First),
        IValue::TensorList(values) if values.first().is_some_and(|z| z.dim() == 2) => {
            Some(Form::First)
        }
        IValue::GenericDict(entries) => {
            let named = |(key, value): &(IValue, IValue)| {
                matches!(key, IValue::String(name) if name == "logits") && tensor(value)
            };
            entries.iter().any(named).then_some(Form::Named)
        }
        _ => None,
    }
}

/// `Float` logits.
fn answer(module: &CModule, form: Form, x: &Tensor) -> std::result::Result<Tensor, TchError> {
    let lost = || TchError::Kind("no logits where they were before".to_owned());
    let logits = match form {
        Form::Alone => module.forward_ts(&[x])?,
        Form::First | Form::Named => {
            let input = IValue::Tensor(x.shallow_clone()); // the same images, as a value
            match module.forward_is(&[input])? {
                IValue::Tuple(mut values) => match values.swap_remove(0) {
                    IValue::Tensor(logits) => logits,
                    _ => return Err(lost()),
                },
                IValue::TensorList(mut values) => values.swap_remove(0),
                IValue::GenericDict(entries) => {
                    let logits = entries.into_iter().find_map(|entry| match entry {
                        (IValue::String(name), IValue::Tensor(z)) if name == "logits" => Some(z),
                        _ => None,
                    });
                    logits.ok_or_else(lost)?
                }
                _ => return Err(lost()),
            }
        }
    };
    Ok(logits.to_kind(Kind::Float))
}

/// What libtorch complains about, without its traces.
fn sentence(error: &TchError) -> String {
    let text = error.to_string();
    let start = text.rfind("Error: ").map_or(0, |at| at + "Error: ".len());
    let said = text[start..].lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let said = said.trim_start_matches("Internal torch error: ").trim();
    // What follows is about the inside of libtorch.
    let said = said.split(". ").next().unwrap_or(said);
    let hint = if said.contains("NVIDIA driver") || said.contains("CUDA") {
        "; the program names a GPU in its code: move model and images to the CPU before tracing or \
         scripting it"
    } else if said.contains("but got 3 channels") {
        "; images have three channels here"
    } else if said.contains("does not require grad") {
        "; the program takes gradients inside; it must switch them on itself \
         (torch.set_grad_enabled(True))"
    } else {
        ""
    };
    format!("{said}{hint}")
}

/// Lines of the program's code that take gradients: it optimises something at test time.
fn remarks(path: &Path) -> Vec<String> {
    let Ok(archive) = Bytes::map(path).and_then(Archive::open) else { return Vec::new() };
    for entry in archive.entries() {
        if !entry.name.contains("/code/") || !entry.name.ends_with(".py") || entry.size > 1 << 24 {
            continue;
        }
        let Ok(bytes) = archive.read(entry) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        let marks = ["torch.autograd.grad(", "torch.autograd.backward(", ".backward("];
        let found =
            text.lines().enumerate().find(|(_, line)| marks.iter().any(|mark| line.contains(mark)));
        if let Some((number, line)) = found {
            let file = entry.name.split_once('/').map_or(&*entry.name, |(_, rest)| rest);
            return vec![format!(
                "the program takes gradients in its own forward pass ({file}:{}: `{}`): it \
                 optimises at test time, which these attacks see through only as far as gradients \
                 flow; attack it adaptively, and by transfer from the model without that step",
                number + 1,
                line.trim()
            )];
        }
    }
    Vec::new()
}

impl Classifier for Script {
    fn classes(&self) -> i64 {
        self.classes
    }

    /// A program that fails on images unlike those that it was loaded with unwinds with an
    /// [`Error`], which [`crate::error::caught`] hands on.
    fn logits(&self, x: &Tensor) -> Tensor {
        answer(&self.module, self.form, x).unwrap_or_else(|error| {
            let what = format!("for images {:?} the program says: {}", x.size(), sentence(&error));
            resume_unwind(Box::new(Error::in_file(&self.path, what)))
        })
    }

    fn remarks(&self) -> &[String] {
        &self.remarks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::caught;

    /// A program that computes `of` for one image of 4x6, saved to `path`.
    fn traced(path: &Path, of: impl Fn(&Tensor) -> Tensor) {
        let image = Tensor::zeros([1, 3, 4, 6], (Kind::Float, Device::Cpu));
        let mut run = |inputs: &[Tensor]| vec![of(&inputs[0])];
        let module = CModule::create_by_tracing("Traced", "forward", &[image], &mut run).unwrap();
        module.save(path).unwrap();
    }

    fn means(x: &Tensor) -> Tensor {
        x.mean_dim([2i64, 3].as_slice(), false, Kind::Float) - 0.5
    }

    #[test]
    fn programs_of_other_shapes_and_kinds_work_or_say_why_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program.pt");
        let load = |size| Script::load(&path, size, Device::Cpu);
        traced(&path, |x| means(x).to_kind(Kind::Double));
        let script = load((4, 6)).unwrap();
        let x = Tensor::rand([5, 3, 4, 6], (Kind::Float, Device::Cpu));
        assert!(script.logits(&x).allclose(&means(&x), 1e-5, 1e-6, false));
        assert!(script.classes() == 3 && script.remarks().is_empty());
        traced(&path, |x| means(x).view([3]));
        assert!(load((4, 6)).unwrap_err().to_string().contains("expected logits [1, classes]"));
        traced(&path, |x| x.view([1, 72]));
        let wrong = load((8, 8)).unwrap_err().to_string();
        assert!(wrong.contains("[1, 3, 8, 8]") && wrong.contains("72"), "{wrong}");
        assert!(!wrong.contains("Exception raised"), "{wrong}");
        // Fails for more images than it was traced with: an error, not a panic.
        let script = load((4, 6)).unwrap();
        let error = caught(|| Ok(script.logits(&x))).unwrap_err().to_string();
        assert!(error.contains("program.pt") && error.contains("[5, 3, 4, 6]"), "{error}");
    }

    #[test]
    fn gradients_inside_a_program_are_found_in_its_code() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program.pt");
        let write = |line: &str| {
            let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
            let stored = zip::write::SimpleFileOptions::default();
            zip.start_file("program/code/__torch__.py", stored).unwrap();
            write!(zip, "def forward(self, x: Tensor) -> Tensor:\n  {line}\n").unwrap();
            zip.finish().unwrap();
            remarks(&path)
        };
        assert!(write("return torch.relu(x)").is_empty());
        let found = write("g = (torch.autograd.grad([l], [y]))[0]");
        assert!(found[0].contains("code/__torch__.py:2") && found[0].contains("test time"));
    }
}

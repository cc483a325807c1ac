//! One attack call: the images, who still stands, the passes spent, and how a break is accepted.

use tch::{Device, Kind, Tensor};

use super::{
    Batch, Break, Kind as Attack, Mode, Outcome, Spec, geometry, host, loss::Loss, noise::Noise,
};
use crate::{
    device::upload,
    error::{Error, Result},
    net::Classifier,
    progress::Progress,
};

/// State that every attack shares.
pub(crate) struct Trial<'a> {
    pub(crate) spec: &'a Spec,
    model: &'a dyn Classifier,
    batch: &'a Batch<'a>,
    progress: &'a dyn Progress,
    pub(crate) noise: Noise,
    /// Rows that are not broken yet, ascending.
    pub(crate) standing: Vec<usize>,
    /// Logits of the clean images `[b,k]`.
    clean: Tensor,
    breaks: Vec<Option<Break>>,
    adversarial: Tensor,
    forward: Vec<u64>,
    backward: Vec<u64>,
    pub(crate) zero_gradients: u64,
    /// For each row the classes to aim at `[b,k]`, best first; `None` for AutoAttack's order.
    pub(crate) order: Option<Tensor>,
    /// The iteration that messages name.
    pub(crate) iteration: u64,
}

/// Logits `[n,k]`, loss `[n]` and its gradient `[n,c,h,w]` at some images.
pub(crate) struct Slope {
    pub(crate) logits: Tensor,
    pub(crate) loss: Tensor,
    pub(crate) gradient: Tensor,
}

impl<'a> Trial<'a> {
    /// Starts a call: clean pass, random numbers seeded. Rows that the clean pass already gets wrong
    /// count as broken by nothing and are not attacked.
    pub(crate) fn begin(
        spec: &'a Spec,
        model: &'a dyn Classifier,
        batch: &'a Batch<'a>,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let count = batch.examples.len();
        let mut trial = Self {
            spec,
            model,
            batch,
            progress,
            noise: Noise::begin(spec, batch),
            standing: (0..count).collect(),
            clean: Tensor::new(),
            breaks: vec![None; count],
            adversarial: batch.images.copy(),
            forward: vec![0; count],
            backward: vec![0; count],
            zero_gradients: 0,
            order: None,
            iteration: 0,
        };
        if count == 0 {
            return Ok(trial);
        }
        let rows = trial.standing.clone();
        trial.clean = trial.logits(&rows, batch.images)?;
        let wrong = wrong(&trial.clean, batch.labels);
        let start = Break { restart: 0, target: None, iteration: 0 };
        match spec.mode {
            Mode::Reference => trial.standing.retain(|&row| !wrong[row]),
            Mode::Strict => {
                trial.claim(&rows, &wrong, batch.images, &|_| start)?;
            }
        }
        Ok(trial)
    }

    pub(crate) fn device(&self) -> Device {
        self.batch.images.device()
    }

    pub(crate) fn strict(&self) -> bool {
        self.spec.mode == Mode::Strict
    }

    /// Whether the arithmetic runs over plain slices ([`host`]).
    pub(crate) fn host(&self) -> bool {
        self.strict() && host::plain(&self.adversarial)
    }

    /// The clean images of `rows`.
    pub(crate) fn images(&self, rows: &[usize]) -> Tensor {
        self.batch.images.index_select(0, &positions(rows, self.device()))
    }

    /// The labels of `rows`.
    pub(crate) fn labels(&self, rows: &[usize]) -> Tensor {
        self.batch.labels.index_select(0, &positions(rows, self.device()))
    }

    /// How many classes the logits have.
    pub(crate) fn classes(&self) -> i64 {
        self.clean.size()[1]
    }

    /// How many target classes there are to try.
    pub(crate) fn targets(&self) -> u64 {
        self.spec.targets.min(self.model.classes().max(1) as u64 - 1)
    }

    /// How many examples the batch had.
    pub(crate) fn batch_size(&self) -> usize {
        self.batch.examples.len()
    }

    /// The class with the `rank`-th largest clean logit (1 is the prediction) of each of `rows`, or
    /// what `order` says.
    pub(crate) fn target_class(&mut self, rows: &[usize], rank: u64) -> Result<Tensor> {
        if let Some(order) = &self.order {
            return Ok(order
                .index_select(0, &positions(rows, self.device()))
                .select(1, rank as i64 - 2));
        }
        let logits = if self.strict() || rows.len() == self.batch.examples.len() {
            self.clean.index_select(0, &positions(rows, self.device()))
        } else {
            // AutoAttack asks the model again for the rows left, and a smaller batch may round
            // differently.
            let images = self.images(rows);
            self.logits(rows, &images)?
        };
        let classes = logits.size()[1];
        Ok(logits.sort(1, false).1.select(1, classes - rank as i64))
    }

    /// Logits of `images`, which belong to `rows`.
    pub(crate) fn logits(&mut self, rows: &[usize], images: &Tensor) -> Result<Tensor> {
        if self.progress.stopping() {
            return Err(Error::Interrupted);
        }
        let _guard = tch::no_grad_guard();
        let logits = self.model.logits(images);
        rows.iter().for_each(|&row| self.forward[row] += 1);
        self.finite(rows, &logits)?;
        Ok(logits)
    }

    /// Logits with their graph: `leaf` is what the gradient is taken with respect to.
    pub(crate) fn traced(&mut self, rows: &[usize], images: &Tensor) -> Result<(Tensor, Tensor)> {
        if self.progress.stopping() {
            return Err(Error::Interrupted);
        }
        let leaf = images.detach().set_requires_grad(true);
        let logits = tch::with_grad(|| self.model.logits(&leaf));
        rows.iter().for_each(|&row| self.forward[row] += 1);
        self.finite(rows, &logits.detach())?;
        Ok((leaf, logits))
    }

    /// The gradient of the sum of `values` with respect to `leaf`.
    pub(crate) fn pull(
        &mut self,
        rows: &[usize],
        value: &Tensor,
        leaf: &Tensor,
        keep: bool,
    ) -> Tensor {
        rows.iter().for_each(|&row| self.backward[row] += 1);
        Tensor::run_backward(&[value], &[leaf], keep, false).remove(0)
    }

    /// Loss and gradient at `images`, the gradient averaged over `eot` passes; logits and loss are
    /// the last pass's.
    pub(crate) fn slope(&mut self, rows: &[usize], images: &Tensor, loss: &Loss) -> Result<Slope> {
        let labels = self.labels(rows);
        let mut total: Option<Tensor> = None;
        let mut last = None;
        for _ in 0..self.spec.eot.max(1) {
            let (leaf, logits) = self.traced(rows, images)?;
            let (value, sum) = if self.host() {
                closed(loss, &logits, &labels)
            } else {
                tch::with_grad(|| {
                    let value = loss.of(&logits, &labels);
                    let sum = value.sum(Kind::Float);
                    (value, sum)
                })
            };
            let gradient = self.pull(rows, &sum, &leaf, false);
            total = Some(match total {
                None => gradient,
                Some(total) => total + gradient,
            });
            last = Some((logits.detach(), value.detach()));
        }
        let (logits, loss) = last.expect("at least one pass");
        let gradient = total.expect("at least one pass");
        let gradient = if self.spec.eot > 1 { gradient / self.spec.eot as f64 } else { gradient };
        let gradient = if self.host() { gradient.contiguous() } else { gradient };
        Ok(Slope { logits, loss, gradient })
    }

    /// Names the example and the attack when a logit is not finite.
    fn finite(&self, rows: &[usize], logits: &Tensor) -> Result<()> {
        // A sum is finite only if all terms are: one small reduction instead of a mask.
        if logits.sum(Kind::Double).double_value(&[]).is_finite() {
            return Ok(());
        }
        let bad: Vec<bool> =
            Vec::try_from(logits.isfinite().all_dim(1, false).logical_not().to_device(Device::Cpu))
                .expect("one flag a row");
        let Some(position) = bad.iter().position(|bad| *bad) else { return Ok(()) };
        Err(self.broken_model("logits", rows[position]))
    }

    /// What to say of a model whose `what` is not finite for `row`.
    pub(crate) fn broken_model(&self, what: &str, row: usize) -> Error {
        Error::Numerics(format!(
            "the model's {what} for example {} are not finite under {}, iteration {}, after {} \
             passes, though its logits are on the clean image: look for roots, logarithms and \
             divisions that perturbed images reach",
            self.batch.examples[row], self.spec.kind, self.iteration, self.forward[row]
        ))
    }

    /// Accepts those of `images` (one for each of `rows`, where `candidate` holds) that stay wrong
    /// after norm and box are enforced, by a fresh forward pass. Returns which of `rows` fell.
    pub(crate) fn claim(
        &mut self,
        rows: &[usize],
        candidate: &[bool],
        images: &Tensor,
        how: &dyn Fn(usize) -> Break,
    ) -> Result<Vec<bool>> {
        let mut fell = vec![false; rows.len()];
        let chosen: Vec<usize> = (0..rows.len()).filter(|&i| candidate[i]).collect();
        if chosen.is_empty() {
            return Ok(fell);
        }
        let chosen_rows: Vec<usize> = chosen.iter().map(|&i| rows[i]).collect();
        let images = images.index_select(0, &positions(&chosen, self.device()));
        let clean = self.images(&chosen_rows);
        let threat = (self.spec.norm, self.spec.epsilon);
        let images = geometry::admissible(&images, &clean, threat, self.spec.bounds);
        let logits = self.logits(&chosen_rows, &images)?;
        let verified = wrong(&logits, &self.labels(&chosen_rows));
        for (at, &i) in chosen.iter().enumerate().filter(|(at, _)| verified[*at]) {
            fell[i] = true;
            self.record(rows[i], &images.get(at as i64), how(i));
        }
        Ok(fell)
    }

    /// Notes that `row` is broken by `image` `[c,h,w]` and takes it from those standing.
    pub(crate) fn record(&mut self, row: usize, image: &Tensor, how: Break) {
        self.breaks[row] = Some(how);
        self.adversarial.get(row as i64).copy_(image);
        self.standing.retain(|&standing| standing != row);
    }

    /// What the call did. In reference mode the last word is one pass over the whole batch, as in
    /// AutoAttack's driver.
    pub(crate) fn finish(mut self) -> Result<Outcome> {
        if !self.strict() && !self.batch.examples.is_empty() {
            let rows: Vec<usize> = (0..self.batch.examples.len()).collect();
            let images = self.adversarial.copy();
            let logits = self.logits(&rows, &images)?;
            let start = Break { restart: 0, target: None, iteration: 0 };
            for (row, wrong) in wrong(&logits, self.batch.labels).into_iter().enumerate() {
                self.breaks[row] = wrong.then(|| self.breaks[row].unwrap_or(start));
            }
        }
        Ok(Outcome {
            breaks: self.breaks,
            adversarial: self.adversarial,
            forward: self.forward,
            backward: self.backward,
            zero_gradients: self.zero_gradients,
        })
    }

    /// Whether the attack aims at classes one after the other.
    pub(crate) fn targeted(&self) -> bool {
        matches!(self.spec.kind, Attack::ApgdTargeted | Attack::FabTargeted | Attack::Malt)
    }
}

/// The loss `[n]` and a scalar whose gradient is that of its sum, without a graph of the loss.
fn closed(loss: &Loss, logits: &Tensor, labels: &Tensor) -> (Tensor, Tensor) {
    let host = host::values(&logits.detach().flatten(0, -1));
    let labels: Vec<i64> = Vec::try_from(labels).expect("a label for each row");
    let slope = loss.differential(&host, logits.size()[1] as usize, &labels);
    let by_logit = Tensor::from_slice(&slope.by_logit).view_as(logits);
    let sum = tch::with_grad(|| (logits * by_logit).sum(Kind::Float));
    (Tensor::from_slice(&slope.value), sum)
}

/// `rows` as an index tensor.
pub(crate) fn positions(rows: &[usize], device: Device) -> Tensor {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    upload(&Tensor::from_slice(&rows), device)
}

/// Whether the largest logit of each row is not the label's (the first of equals counts).
pub(crate) fn wrong(logits: &Tensor, labels: &Tensor) -> Vec<bool> {
    flags(&logits.argmax(1, false).ne_tensor(labels))
}

/// A boolean tensor `[n]` on the host.
pub(crate) fn flags(mask: &Tensor) -> Vec<bool> {
    Vec::try_from(mask.to_device(Device::Cpu)).expect("a boolean for each row")
}

//! The fast adaptive boundary attack (Croce and Hein 2020b): a minimal-norm attack that walks along
//! the linearised decision boundary.

use pixels::plane;
use tch::{Kind, Tensor};

use super::{
    Break,
    geometry::{flat, norm, normalize, per_row, replace_rows, row_sum},
    host,
    hyperplane::{self, Hyperplane},
    hyperplane_linear::Planes,
    loss::pick,
    trial::{Trial, flags, positions, wrong},
};
use crate::{error::Result, threat::Norm};

/// Largest weight of the step towards the original image.
const ALPHA_MAX: f64 = 0.1;
/// Overshoot beyond the boundary.
const ETA: f64 = 1.05;
/// Backward step towards the original image.
const BETA: f64 = 0.9;

/// Runs all targets and restarts on the rows that stand.
pub(crate) fn attack(trial: &mut Trial) -> Result<()> {
    let ranks: Vec<u64> =
        if trial.targeted() { (2..trial.targets() + 2).collect() } else { vec![0] };
    for rank in ranks {
        for restart in 0..trial.spec.restarts {
            let rows = trial.standing.clone();
            if rows.is_empty() {
                return Ok(());
            }
            let targets =
                if trial.targeted() { Some(trial.target_class(&rows, rank)?) } else { None };
            let mut walk = Walk::begin(trial, rows, targets, restart);
            walk.go(trial)?;
            walk.settle(trial)?;
        }
    }
    Ok(())
}

/// The state of one run; tensors hold one row for each of `rows`.
struct Walk {
    rows: Vec<usize>,
    restart: u64,
    x: Tensor,
    labels: Tensor,
    /// `None`: the nearest class is found anew at each step.
    targets: Option<Tensor>,
    /// For a target, the difference of logits as weights: +1 at the target, -1 at the label.
    contrast: Tensor,
    at: Tensor,
    /// On a host: where each row's last projections ended.
    warm: Vec<[f32; 2]>,
    /// Reference mode: the closest adversarial image so far, its norm and when it was.
    closest: Tensor,
    distance: Tensor,
    when: Tensor,
}

impl Walk {
    fn begin(trial: &mut Trial, rows: Vec<usize>, targets: Option<Tensor>, restart: u64) -> Self {
        let x = trial.images(&rows);
        let count = rows.len() as i64;
        let options = (Kind::Float, x.device());
        let at = if restart == 0 { x.copy() } else { random_start(trial, &rows, &x) };
        let labels = trial.labels(&rows);
        let contrast = targets.as_ref().map_or_else(Tensor::new, |targets| {
            Tensor::zeros([count, trial.classes()], options)
                .scatter_value(1, &targets.unsqueeze(1), 1.0)
                .scatter_value(1, &labels.unsqueeze(1), -1.0)
        });
        Self {
            labels,
            contrast,
            closest: if trial.strict() { Tensor::new() } else { x.copy() },
            warm: vec![[0.0; 2]; rows.len()],
            distance: Tensor::full([count], 1e10, options),
            when: Tensor::zeros([count], (Kind::Int64, x.device())),
            rows,
            restart,
            targets,
            at,
            x,
        }
    }

    fn go(&mut self, trial: &mut Trial) -> Result<()> {
        // A pass that already holds the graph at `at`, when the last step left `at` unmoved.
        let mut known: Option<(Tensor, Tensor)> = None;
        // Whether that is likely: nobody was misclassified a step ago.
        let mut calm = false;
        for iteration in 1..=trial.spec.steps {
            trial.iteration = iteration;
            let (leaf, logits) = match known.take() {
                Some(pass) => pass,
                None => trial.traced(&self.rows, &self.at)?,
            };
            let (difference, gradient) = self.boundary(trial, &leaf, &logits);
            drop((leaf, logits));
            if trial.host() {
                self.stride(trial, &difference, gradient)?;
            } else if trial.strict() {
                self.step(trial, &difference, &gradient);
            } else {
                self.published_step(trial, &difference, &gradient);
            }
            let mask = if calm {
                let pass = trial.traced(&self.rows, &self.at)?;
                let mask = pass.1.detach().argmax(1, false).ne_tensor(&self.labels);
                known = Some(pass);
                mask
            } else {
                trial.logits(&self.rows, &self.at)?.argmax(1, false).ne_tensor(&self.labels)
            };
            let adversarial = flags(&mask);
            calm = !adversarial.contains(&true);
            if calm {
                continue;
            }
            known = None;
            let fell = self.note(trial, &mask, &adversarial, iteration)?;
            if trial.host() {
                host::between(&mut self.at, &self.x, &adversarial, BETA as f32);
            } else {
                self.back(trial, &mask);
            }
            self.leave(&fell);
            if self.rows.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Difference of logits `[n]` and its gradient `[n,c,h,w]` to the target, or to the class whose
    /// linearised boundary is nearest.
    fn boundary(&self, trial: &mut Trial, leaf: &Tensor, logits: &Tensor) -> (Tensor, Tensor) {
        if self.targets.is_none() {
            return self.nearest(trial, leaf, logits);
        }
        let (value, sum) = tch::with_grad(|| {
            let value = (logits * &self.contrast).sum_dim_intlist([1].as_slice(), false, None);
            let sum = value.sum(Kind::Float);
            (value.detach(), sum)
        });
        (value, trial.pull(&self.rows, &sum, leaf, false))
    }

    /// Difference of logits and its gradient for the class whose linearised boundary is nearest.
    fn nearest(&self, trial: &mut Trial, leaf: &Tensor, logits: &Tensor) -> (Tensor, Tensor) {
        let classes = logits.size()[1];
        let gradients: Vec<Tensor> = (0..classes)
            .map(|class| {
                let sum = tch::with_grad(|| logits.select(1, class).sum(Kind::Float));
                trial.pull(&self.rows, &sum, leaf, class + 1 < classes)
            })
            .collect();
        let gradients = Tensor::stack(&gradients, 1); // [n,k,c,h,w]
        let at_label = self
            .labels
            .view([-1, 1, 1, 1, 1])
            .expand([-1, 1, gradients.size()[2], gradients.size()[3], gradients.size()[4]], true);
        let gradients = &gradients - gradients.gather(1, &at_label, false);
        let logits = logits.detach();
        let difference = &logits - pick(&logits, &self.labels).unsqueeze(1);
        let difference = difference.scatter_value(1, &self.labels.unsqueeze(1), 1e10);
        let flat = gradients.reshape([gradients.size()[0], classes, -1]);
        let sum = |v: Tensor| v.sum_dim_intlist([-1].as_slice(), false, None);
        let dual = match trial.spec.norm {
            Norm::Linf => sum(flat.abs()),
            Norm::L2 => sum(flat.square()).sqrt(),
            Norm::L1 => flat.abs().amax([2], false),
        };
        let (_, class) = (difference.abs() / (dual + 1e-12)).min_dim(1, false);
        let index = class.view([-1, 1, 1]).expand([-1, 1, flat.size()[2]], true);
        let gradient = flat.gather(1, &index, false).view_as(&self.at);
        (pick(&difference, &class), gradient)
    }

    /// Between the projections of the current point and of the original image.
    fn step(&mut self, trial: &Trial, difference: &Tensor, gradient: &Tensor) {
        let (at, x, normal) = (flat(&self.at), flat(&self.x), flat(gradient)); // [n,d]
        let bounds = trial.spec.bounds;
        let planes = Planes::new(&normal, trial.spec.norm, bounds);
        // The plane is the logits' linearisation, so `at` exceeds it by their difference itself.
        let excess = difference.unsqueeze(1);
        let mut apart = &at - &x;
        apart *= &normal;
        let (mut near, a1) = planes.toward(&at, &excess);
        let (mut far, a2) = planes.toward(&x, &(excess - row_sum(&apart)));
        let (a1, a2) = (a1.clamp_min(1e-8), a2.clamp_min(1e-8));
        let alpha = (&a1 / (&a1 + a2)).clamp(0.0, ALPHA_MAX);
        near *= -ETA;
        near += &at;
        far *= -ETA;
        far += &x;
        let _ = near.lerp_tensor_(&far, &alpha);
        self.at = near.clamp_(bounds.low, bounds.high).view_as(&self.at);
    }

    /// The same over plain slices.
    fn stride(&mut self, trial: &Trial, difference: &Tensor, gradient: Tensor) -> Result<()> {
        let normals = gradient.contiguous();
        let walk = plane::Walk {
            alpha: ALPHA_MAX as f32,
            overshoot: ETA as f32,
            walls: trial.spec.bounds.walls(),
        };
        let planes = (&self.x, &normals, &host::values(difference)[..]);
        match host::walk(trial.spec.norm, &mut self.at, planes, &mut self.warm, &walk) {
            Some(row) => Err(trial.broken_model("gradients", self.rows[row])),
            None => Ok(()),
        }
    }

    /// The same with the published arithmetic, to the last bit.
    fn published_step(&mut self, trial: &Trial, difference: &Tensor, gradient: &Tensor) {
        let offset = -difference
            + flat(&(gradient * &self.at)).sum_dim_intlist([-1].as_slice(), false, None);
        let normal = flat(gradient);
        let count = self.rows.len() as i64;
        let both = Tensor::cat(&[flat(&self.at), flat(&self.x)], 0); // [2n,d]
        let twice = Hyperplane {
            normal: Tensor::cat(&[&normal, &normal], 0),
            offset: Tensor::cat(&[&offset, &offset], 0),
        };
        let moves = hyperplane::project(&both, &twice, trial.spec.norm, trial.spec.bounds);
        let lengths = per_row(&norm(&moves, trial.spec.norm).clamp_min(1e-8));
        let (a1, a2) = (lengths.narrow(0, 0, count), lengths.narrow(0, count, count));
        let d1 = moves.narrow(0, 0, count).view_as(&self.at);
        let d2 = moves.narrow(0, count, count).view_as(&self.at);
        let alpha = (&a1 / (&a1 + a2)).clamp(0.0, ALPHA_MAX);
        let bounds = trial.spec.bounds;
        self.at = ((&self.at + d1 * ETA) * (-&alpha + 1.0) + (&self.x + d2 * ETA) * alpha)
            .clamp(bounds.low, bounds.high);
    }

    /// Moves the misclassified back towards their original images.
    fn back(&mut self, trial: &Trial, mask: &Tensor) {
        if trial.strict() {
            // A weight of exactly 1 leaves a row as it is.
            let weight = mask.to_kind(Kind::Float) * (BETA - 1.0) + 1.0;
            self.at = self.x.lerp_tensor(&self.at, &per_row(&weight));
        } else {
            let back = &self.x + (&self.at - &self.x) * BETA;
            replace_rows(&mut self.at, mask, &back);
        }
    }

    /// Takes note of who is misclassified now. Strict mode: who fell, being close enough.
    fn note(
        &mut self,
        trial: &mut Trial,
        mask: &Tensor,
        adversarial: &[bool],
        iteration: u64,
    ) -> Result<Vec<bool>> {
        let kind = trial.spec.norm;
        if trial.strict() {
            let candidate = if trial.host() {
                host::within(&self.at, &self.x, (kind, trial.spec.epsilon), adversarial)
            } else {
                let distance = norm(&(&self.at - &self.x), kind);
                let close = flags(&distance.le(trial.spec.epsilon));
                adversarial.iter().zip(close).map(|(wrong, close)| *wrong && close).collect()
            };
            let targets = self.target_list();
            let restart = self.restart;
            let how =
                |i: usize| Break { restart, target: targets.as_ref().map(|t| t[i]), iteration };
            return trial.claim(&self.rows, &candidate, &self.at, &how);
        }
        let distance = norm(&(&self.at - &self.x), kind);
        let closer = mask.logical_and(&distance.lt_tensor(&self.distance));
        replace_rows(&mut self.closest, &closer, &self.at);
        self.distance = distance.where_self(&closer, &self.distance);
        self.when = self.when.full_like(iteration as i64).where_self(&closer, &self.when);
        Ok(Vec::new())
    }

    /// Drops the rows that fell.
    fn leave(&mut self, fell: &[bool]) {
        if !fell.contains(&true) {
            return;
        }
        let stay: Vec<usize> = (0..self.rows.len()).filter(|&i| !fell[i]).collect();
        let index = positions(&stay, self.x.device());
        self.rows = stay.iter().map(|&i| self.rows[i]).collect();
        self.warm = stay.iter().map(|&i| self.warm[i]).collect();
        self.targets = self.targets.as_ref().map(|t| t.index_select(0, &index));
        for tensor in [
            &mut self.x,
            &mut self.labels,
            &mut self.contrast,
            &mut self.at,
            &mut self.closest,
            &mut self.distance,
            &mut self.when,
        ] {
            if tensor.dim() > 0 && tensor.size()[0] > 0 {
                *tensor = tensor.index_select(0, &index);
            }
        }
    }

    fn target_list(&self) -> Option<Vec<i64>> {
        self.targets.as_ref().map(|t| Vec::try_from(t).expect("a class for each row"))
    }

    /// Reference mode: broken is who is misclassified, by a fresh pass, within ε exactly.
    fn settle(&self, trial: &mut Trial) -> Result<()> {
        if trial.strict() {
            return Ok(());
        }
        let logits = trial.logits(&self.rows, &self.closest)?;
        let wrong = wrong(&logits, &self.labels);
        let far = flags(&norm(&(&self.x - &self.closest), trial.spec.norm).gt(trial.spec.epsilon));
        let when: Vec<i64> = Vec::try_from(&self.when).expect("an iteration for each row");
        let targets = self.target_list();
        for i in (0..self.rows.len()).filter(|&i| wrong[i] && !far[i]) {
            let target = targets.as_ref().map(|t| t[i]);
            let how = Break { restart: self.restart, target, iteration: when[i] as u64 };
            trial.record(self.rows[i], &self.closest.get(i as i64), how);
        }
        Ok(())
    }
}

/// A point at distance ε/2.
fn random_start(trial: &mut Trial, rows: &[usize], x: &Tensor) -> Tensor {
    let (epsilon, bounds) = (trial.spec.epsilon, trial.spec.bounds);
    let (shape, device) = (x.size(), x.device());
    let kind = trial.spec.norm;
    let noise = match kind {
        Norm::Linf => trial.noise.uniform(rows, &shape, device),
        Norm::L2 | Norm::L1 => trial.noise.normal(rows, &shape, device),
    };
    let at = if trial.strict() {
        x + normalize(&noise, kind) * (epsilon / 2.0)
    } else {
        // The published order of operations, which rounds differently.
        x + &noise * epsilon / per_row(&norm(&noise, kind)) * 0.5
    };
    at.clamp(bounds.low, bounds.high)
}

//! Auto-PGD (Croce and Hein 2020), with the sparse steps and stages of its L1 form (Croce and Hein
//! 2021). Quirks of the published code are kept and named where they stand.

use tch::{Kind, Tensor};

use super::{
    Break, Kind as Attack,
    apgd_step::{by_slices, direction, starting_point},
    geometry::{flat, norm, replace_rows, support},
    host,
    loss::Loss,
    trial::{Slope, Trial, flags, positions},
};
use crate::{error::Result, threat::Norm};

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
            let loss = match trial.spec.kind {
                Attack::ApgdTargeted | Attack::Malt => {
                    Loss::DlrTargeted(trial.target_class(&rows, rank)?)
                }
                Attack::ApgdDlr => Loss::Dlr,
                _ => Loss::CrossEntropy,
            };
            if trial.spec.staged && trial.spec.norm == Norm::L1 {
                staged(trial, rows, loss, restart)?;
            } else {
                let stage =
                    Stage { epsilon: trial.spec.epsilon, steps: trial.spec.steps, last: true };
                let mut ascent = Ascent::begin(trial, rows, loss, (restart, 0), &stage, None)?;
                ascent.climb(trial, &stage)?;
                ascent.settle(trial);
            }
        }
    }
    Ok(())
}

/// One radius and its iterations.
pub(super) struct Stage {
    pub(super) epsilon: f64,
    steps: u64,
    /// Only breaks of the last stage count.
    last: bool,
}

/// L1: 3ε, 2ε and ε, each from the best point of the one before.
fn staged(trial: &mut Trial, rows: Vec<usize>, loss: Loss, restart: u64) -> Result<()> {
    let (epsilon, steps) = (trial.spec.epsilon, trial.spec.steps);
    let share = (0.3 * steps as f64).ceil() as u64;
    let stages = [
        Stage { epsilon: 3.0 * epsilon, steps: share, last: false },
        Stage { epsilon: 2.0 * epsilon, steps: share, last: false },
        Stage { epsilon, steps: steps.saturating_sub(2 * share), last: true },
    ];
    let x = trial.images(&rows);
    let noise = trial.noise.normal(&rows, &x.size(), x.device());
    let mut start = trial.start_in_l1_ball(&(&x + noise), &x, 3.0 * epsilon);
    let (mut rows, mut loss, mut done) = (rows, Some(loss), 0);
    for stage in &stages {
        let x = trial.images(&rows);
        start = trial.start_in_l1_ball(&start, &x, stage.epsilon);
        let begun = (restart, done);
        let objective = loss.take().expect("each stage hands it on");
        let mut ascent = Ascent::begin(trial, rows, objective, begun, stage, Some(&start))?;
        ascent.climb(trial, stage)?;
        if stage.last {
            ascent.settle(trial);
        }
        (rows, loss, start) = (ascent.rows, Some(ascent.loss), ascent.best);
        done += stage.steps;
    }
    Ok(())
}

/// The state of one run; tensors hold one row for each of `rows`.
pub(super) struct Ascent {
    pub(super) rows: Vec<usize>,
    loss: Loss,
    restart: u64,
    /// Iterations of earlier stages.
    done: u64,
    pub(super) x: Tensor,
    labels: Tensor,
    /// L-infinity: the ball's intersection with the box.
    pub(super) low: Tensor,
    pub(super) high: Tensor,
    pub(super) at: Tensor,
    pub(super) previous: Tensor,
    pub(super) best: Tensor,
    /// On a host: rows better than `best`, to be copied there when they are next touched.
    pub(super) better: Vec<bool>,
    /// L-infinity: its signs, or on a host the gradient itself.
    pub(super) gradient: Tensor,
    pub(super) best_gradient: Tensor,
    best_loss: Tensor,
    /// Reference mode: the latest misclassified image, whether there is one, and when it was.
    latest: Tensor,
    fooled: Tensor,
    when: Tensor,
    pub(super) pace: Pace,
}

/// What decides the step size; vectors `[n]`.
pub(super) struct Pace {
    pub(super) step: Tensor,
    /// How often the loss rose since the last checkpoint.
    rises: Tensor,
    last_loss: Tensor,
    checkpoint_loss: Tensor,
    halved: Tensor,
    /// L1: share of coordinates moved, and the support at the last checkpoint.
    pub(super) density: Tensor,
    sparsity: Tensor,
}

impl Ascent {
    fn begin(
        trial: &mut Trial,
        rows: Vec<usize>,
        loss: Loss,
        (restart, done): (u64, u64),
        stage: &Stage,
        start: Option<&Tensor>,
    ) -> Result<Self> {
        trial.iteration = done;
        let x = trial.images(&rows);
        let at = starting_point(trial, &rows, &x, stage, start);
        let Slope { logits, loss: value, gradient } = trial.slope(&rows, &at, &loss)?;
        if !matches!(loss, Loss::CrossEntropy) {
            let still = norm(&gradient, Norm::L1).eq(0.0).sum(Kind::Int64).int64_value(&[]);
            trial.zero_gradients += still as u64;
        }
        let gradient = direction(trial, gradient);
        let labels = trial.labels(&rows);
        let features = flat(&x).size()[1] as f64;
        let unit = if trial.spec.norm == Norm::L1 { 1.0 } else { 2.0 };
        let (density, sparsity) = match start {
            None => (value.full_like(0.2), value.full_like(features)),
            Some(_) => {
                let sparsity = support(&(&at - &x));
                (&sparsity / features / 1.5, sparsity)
            }
        };
        let pace = Pace {
            step: value.full_like(unit * stage.epsilon),
            rises: value.zeros_like(),
            last_loss: value.zeros_like(), // the published history starts with a zero
            checkpoint_loss: value.copy(),
            halved: value.ones_like().to_kind(Kind::Bool),
            density,
            sparsity,
        };
        let bounds = trial.spec.bounds;
        let linf = trial.spec.norm == Norm::Linf && !trial.host();
        let fooled = logits.argmax(1, false).ne_tensor(&labels);
        let mut ascent = Self {
            low: if linf { (&x - stage.epsilon).clamp_min_(bounds.low) } else { Tensor::new() },
            high: if linf { (&x + stage.epsilon).clamp_max_(bounds.high) } else { Tensor::new() },
            labels,
            previous: at.copy(),
            best: at.copy(),
            better: Vec::new(),
            best_gradient: gradient.copy(),
            best_loss: value.copy(),
            latest: if trial.strict() { Tensor::new() } else { at.copy() },
            when: Tensor::zeros([rows.len() as i64], (Kind::Int64, x.device())),
            fooled,
            at,
            rows,
            loss,
            restart,
            done,
            x,
            gradient,
            pace,
        };
        if trial.strict() && stage.last {
            let fooled = flags(&ascent.fooled);
            ascent.claim(trial, &fooled, 0)?;
        }
        Ok(ascent)
    }

    fn climb(&mut self, trial: &mut Trial, stage: &Stage) -> Result<()> {
        let l1 = trial.spec.norm == Norm::L1;
        let part = |share: f64| ((share * stage.steps as f64) as u64).max(1);
        // The windows follow the whole length of the attack, those of L1 the stage's.
        let whole = |share: f64| ((share * trial.spec.steps as f64) as u64).max(1);
        let (mut window, shortest, shorter) =
            if l1 { (part(0.04), part(0.04), 0) } else { (whole(0.22), whole(0.06), whole(0.03)) };
        let mut since = 0;
        for iteration in 0..stage.steps {
            if self.rows.is_empty() {
                return Ok(());
            }
            trial.iteration = self.done + iteration + 1;
            self.step(trial, stage, iteration)?;
            let Slope { logits, loss, gradient } = trial.slope(&self.rows, &self.at, &self.loss)?;
            self.gradient = direction(trial, gradient);
            let fooled = logits.argmax(1, false).ne_tensor(&self.labels);
            self.improve(&loss, by_slices(trial));
            since += 1;
            let checkpoint = since == window;
            // Before the checkpoint, which may move `at` back to the best point.
            let fell = self.note(trial, stage, &fooled, iteration + 1)?;
            if checkpoint {
                self.keep_better();
                if l1 {
                    self.check_sparsity(stage);
                } else {
                    self.check_progress(window);
                }
                window = (window.saturating_sub(shorter)).max(shortest);
                since = 0;
            }
            self.leave(&fell);
        }
        self.keep_better();
        Ok(())
    }

    /// Does what [`Self::improve`] put off.
    fn keep_better(&mut self) {
        let better = std::mem::take(&mut self.better);
        host::copy_rows(&mut self.best, &better, &self.at);
        host::copy_rows(&mut self.best_gradient, &better, &self.gradient);
    }

    /// Keeps point and gradient where the loss rose above the best so far.
    fn improve(&mut self, loss: &Tensor, host: bool) {
        let better = loss.gt_tensor(&self.best_loss);
        if host {
            self.better = flags(&better);
        } else {
            replace_rows(&mut self.best, &better, &self.at);
            replace_rows(&mut self.best_gradient, &better, &self.gradient);
        }
        self.best_loss = loss.where_self(&better, &self.best_loss);
        let pace = &mut self.pace;
        pace.rises = &pace.rises + loss.gt_tensor(&pace.last_loss).to_kind(Kind::Float);
        pace.last_loss = loss.copy();
    }

    /// Halves the step where the loss rose too seldom or the best has not moved.
    fn check_progress(&mut self, window: u64) {
        let pace = &mut self.pace;
        let oscillates = pace.rises.le(window as f64 * 0.75);
        let stuck =
            pace.halved.logical_not().logical_and(&pace.checkpoint_loss.ge_tensor(&self.best_loss));
        let halve = oscillates.logical_or(&stuck);
        pace.step = (&pace.step / 2.0).where_self(&halve, &pace.step);
        pace.checkpoint_loss = self.best_loss.copy();
        pace.rises = pace.rises.zeros_like();
        pace.halved = halve.copy();
        self.back_to_best(&halve);
    }

    /// L1: full step again where the support shrank, else a smaller one.
    fn check_sparsity(&mut self, stage: &Stage) {
        let support = if host::plain(&self.best) {
            host::support(&self.best, &self.x)
        } else {
            support(&(&self.best - &self.x))
        };
        let features = flat(&self.x).size()[1] as f64;
        let pace = &mut self.pace;
        let shrank = (&support / &pace.sparsity).lt(0.95);
        pace.density = &support / features / 1.5;
        pace.step = pace
            .step
            .full_like(stage.epsilon)
            .where_self(&shrank, &(&pace.step / 1.5))
            .clamp(stage.epsilon / 10.0, stage.epsilon);
        pace.sparsity = support;
        self.back_to_best(&shrank);
    }

    /// `previous` stays: the published momentum spans the jump.
    fn back_to_best(&mut self, rows: &Tensor) {
        replace_rows(&mut self.at, rows, &self.best);
        replace_rows(&mut self.gradient, rows, &self.best_gradient);
    }

    /// Takes note of who is misclassified now. Strict mode: who fell for good.
    fn note(
        &mut self,
        trial: &mut Trial,
        stage: &Stage,
        fooled: &Tensor,
        iteration: u64,
    ) -> Result<Vec<bool>> {
        if !stage.last {
            return Ok(Vec::new());
        }
        if trial.strict() {
            let candidate = flags(fooled);
            return self.verify(trial, &candidate, iteration);
        }
        // The latest misclassified image wins, not the one of highest loss.
        replace_rows(&mut self.latest, fooled, &self.at);
        self.when = self.when.full_like(iteration as i64).where_self(fooled, &self.when);
        self.fooled = self.fooled.logical_or(fooled);
        Ok(Vec::new())
    }

    fn verify(&self, trial: &mut Trial, candidate: &[bool], iteration: u64) -> Result<Vec<bool>> {
        let (restart, iteration) = (self.restart, self.done + iteration);
        let targets = self.targets();
        let how = |i: usize| Break { restart, target: targets.as_ref().map(|t| t[i]), iteration };
        trial.claim(&self.rows, candidate, &self.at, &how)
    }

    fn claim(&mut self, trial: &mut Trial, candidate: &[bool], iteration: u64) -> Result<()> {
        let fell = self.verify(trial, candidate, iteration)?;
        self.leave(&fell);
        Ok(())
    }

    /// Drops the rows that fell.
    fn leave(&mut self, fell: &[bool]) {
        if !fell.contains(&true) {
            return;
        }
        let stay: Vec<usize> = (0..self.rows.len()).filter(|&i| !fell[i]).collect();
        let index = positions(&stay, self.x.device());
        self.rows = stay.iter().map(|&i| self.rows[i]).collect();
        self.loss = self.loss.rows(&index);
        if !self.better.is_empty() {
            self.better = stay.iter().map(|&i| self.better[i]).collect();
        }
        let pace = &mut self.pace;
        for tensor in [
            &mut self.x,
            &mut self.labels,
            &mut self.low,
            &mut self.high,
            &mut self.at,
            &mut self.previous,
            &mut self.best,
            &mut self.gradient,
            &mut self.best_gradient,
            &mut self.best_loss,
            &mut self.fooled,
            &mut self.when,
            &mut pace.step,
            &mut pace.rises,
            &mut pace.last_loss,
            &mut pace.checkpoint_loss,
            &mut pace.halved,
            &mut pace.density,
            &mut pace.sparsity,
        ] {
            if tensor.dim() > 0 && tensor.size()[0] > 0 {
                *tensor = tensor.index_select(0, &index);
            }
        }
    }

    fn targets(&self) -> Option<Vec<i64>> {
        match &self.loss {
            Loss::DlrTargeted(t) => Some(Vec::try_from(t).expect("a class for each row")),
            _ => None,
        }
    }

    /// Reference mode: whoever was ever misclassified is broken.
    fn settle(&self, trial: &mut Trial) {
        if trial.strict() {
            return;
        }
        let when: Vec<i64> = Vec::try_from(&self.when).expect("an iteration for each row");
        let targets = self.targets();
        for (i, _) in flags(&self.fooled).iter().enumerate().filter(|(_, fooled)| **fooled) {
            let iteration = self.done + when[i] as u64;
            let target = targets.as_ref().map(|t| t[i]);
            let how = Break { restart: self.restart, target, iteration };
            trial.record(self.rows[i], &self.latest.get(i as i64), how);
        }
    }
}

//! Square attack (Andriushchenko et al. 2020): random search with square patches, no gradients.

use tch::{Kind, Tensor};

use super::{
    Break,
    geometry::{l1_correction, norm, normalize, per_row},
    host,
    loss::margin,
    square_host::{self, Desk},
    square_shape::{Windows, edge, profile},
    trial::{Trial, flags, positions, wrong},
};
use crate::{device::upload, error::Result, threat::Norm};

/// The published L1 projection aims a hair inside the ball.
const L1_MARGIN: f64 = 1.0 - 1e-6;

/// Runs all restarts on the rows that stand.
pub(crate) fn attack(trial: &mut Trial) -> Result<()> {
    for restart in 0..trial.spec.restarts {
        let rows = trial.standing.clone();
        if rows.is_empty() {
            return Ok(());
        }
        Search::begin(trial, rows, restart)?.go(trial)?;
    }
    Ok(())
}

/// The state of one run; tensors hold one row for each of `rows`, all of them unbroken.
struct Search {
    rows: Vec<usize>,
    restart: u64,
    x: Tensor,
    labels: Tensor,
    best: Tensor,
    margin: Tensor,
    /// On a host, instead of `margin`.
    desk: Option<Desk>,
    /// Reference mode: every row of the run, its image and when it was broken.
    all: Vec<usize>,
    finals: Tensor,
    when: Vec<u64>,
    /// The unit profile of the current edge and its transpose, `[2,edge,edge]`.
    shapes: (i64, Tensor),
}

impl Search {
    fn begin(trial: &mut Trial, rows: Vec<usize>, restart: u64) -> Result<Self> {
        let x = trial.images(&rows);
        let best = start(trial, &rows, &x);
        let labels = trial.labels(&rows);
        trial.iteration = 0;
        let logits = trial.logits(&rows, &best)?;
        let desk = (trial.host() && host::plain(&best))
            .then(|| Desk::begin(trial, (&x, &best), square_host::margins(&logits, &labels)));
        let margin = margin(&logits, &labels);
        Ok(Self {
            desk,
            finals: if trial.strict() { Tensor::new() } else { best.copy() },
            when: vec![0; rows.len()],
            all: rows.clone(),
            rows,
            restart,
            x,
            labels,
            best,
            margin,
            shapes: (0, Tensor::new()),
        })
    }

    fn go(&mut self, trial: &mut Trial) -> Result<()> {
        self.leave(trial, 0)?;
        for iteration in 0..trial.spec.steps {
            if self.rows.is_empty() {
                break;
            }
            trial.iteration = iteration + 1;
            let images = (&self.x, &self.labels, &mut self.best);
            match (&mut self.desk, trial.spec.norm) {
                (Some(desk), Norm::Linf) => desk.paint(trial, &self.rows, images, iteration)?,
                (Some(desk), _) => {
                    desk.shift(trial, &self.rows, images, (iteration, L1_MARGIN))?;
                }
                (None, Norm::Linf) => self.paint(trial, iteration)?,
                (None, _) => self.shift(trial, iteration)?,
            }
            self.leave(trial, iteration + 1)?;
        }
        self.settle(trial)
    }

    /// L-infinity: one square of one colour at ±ε; only its pixels change.
    fn paint(&mut self, trial: &mut Trial, iteration: u64) -> Result<()> {
        let (height, width, channels) = (self.x.size()[2], self.x.size()[3], self.x.size()[1]);
        let (epsilon, bounds) = (trial.spec.epsilon, trial.spec.bounds);
        let edge = edge(iteration, (height, width), Norm::Linf);
        let windows = self.windows(trial, edge);
        let colours = trial.noise.colours(&self.rows, channels, self.x.device());
        let original = windows.cut(&self.x);
        let old = windows.cut(&self.best);
        let new = (&old + colours * (2.0 * epsilon))
            .clamp_tensor(Some(&(&original - epsilon)), Some(&(&original + epsilon)))
            .clamp(bounds.low, bounds.high);
        windows.paste(&self.best, &new);
        let margin = margin(&trial.logits(&self.rows, &self.best)?, &self.labels);
        let keep = self.better(&margin);
        windows.paste(&self.best, &new.where_self(&per_row(&keep), &old));
        self.margin = margin.where_self(&keep, &self.margin);
        Ok(())
    }

    /// L2 and L1: moves the perturbation's mass from one window into another.
    fn shift(&mut self, trial: &mut Trial, iteration: u64) -> Result<()> {
        let size = (self.x.size()[2], self.x.size()[3]);
        let edge = edge(iteration, size, trial.spec.norm);
        let into = self.windows(trial, edge);
        let from = self.windows(trial, edge);
        let candidate = self.moved(trial, edge, &into, &from);
        let margin = margin(&trial.logits(&self.rows, &candidate)?, &self.labels);
        let keep = self.better(&margin);
        self.best = candidate.where_self(&per_row(&keep), &self.best);
        self.margin = margin.where_self(&keep, &self.margin);
        Ok(())
    }

    fn moved(&mut self, trial: &mut Trial, edge: i64, into: &Windows, from: &Windows) -> Tensor {
        let (epsilon, bounds, kind) = (trial.spec.epsilon, trial.spec.bounds, trial.spec.norm);
        let channels = self.x.size()[1];
        let delta = &self.best - &self.x;
        let inside = |v: &Tensor| window_norm(v, kind);
        let length = per_row(&norm(&delta, kind));
        let both = into.mask(&delta).maximum(&from.mask(&delta));
        let available = inside(&(&delta * both)); // [n,c,1,1]
        let shape = self.shape(trial, edge);
        let count = self.rows.len() as i64;
        let signs = trial.noise.signs(&self.rows, &[count, channels, 1, 1], self.x.device());
        let old = into.cut(&delta);
        let pattern = shape * signs + &old / (inside(&old) + 1e-12);
        let pattern_size = inside(&pattern) + 1e-12;
        let content = match kind {
            Norm::L1 => {
                let unused = (-length + epsilon).clamp_min(0.0);
                pattern / pattern_size * (unused / channels as f64 + available) * channels as f64
            }
            _ => {
                let device = self.x.device();
                let whole = Tensor::full([0i64; 0], epsilon, (Kind::Float, device)).square();
                let unused = (whole - length.square()).clamp_min(0.0);
                pattern / pattern_size * (unused / channels as f64 + available.square()).sqrt()
            }
        };
        from.paste(&delta, &Tensor::zeros([1, 1, 1, 1], (Kind::Float, self.x.device())));
        into.paste(&delta, &content);
        match kind {
            Norm::L1 => {
                let correction = l1_correction(&self.x, &delta, epsilon * L1_MARGIN, bounds);
                &self.x + &delta + correction
            }
            _ => (&self.x + normalize(&delta, kind) * epsilon).clamp(bounds.low, bounds.high),
        }
    }

    fn windows(&self, trial: &mut Trial, edge: i64) -> Windows {
        let (height, width) = (self.x.size()[2], self.x.size()[3]);
        let rows = trial.noise.corner(&self.rows, height - edge);
        let columns = trial.noise.corner(&self.rows, width - edge);
        Windows::new(edge, (&rows, &columns), (height, width), self.x.device())
    }

    /// The profile, transposed or not: `[n,1,edge,edge]` or `[1,1,edge,edge]`.
    fn shape(&mut self, trial: &mut Trial, edge: i64) -> Tensor {
        if self.shapes.0 != edge {
            let shape = profile(edge, trial.spec.norm).to_device(self.x.device());
            self.shapes = (edge, Tensor::stack(&[&shape, &shape.tr()], 0));
        }
        turned(trial, &self.rows, &self.shapes.1)
    }

    /// A smaller margin, or a misclassification.
    fn better(&self, margin: &Tensor) -> Tensor {
        margin.lt_tensor(&self.margin).logical_or(&margin.le(0.0))
    }

    /// Takes the rows without positive margin out of the search.
    fn leave(&mut self, trial: &mut Trial, iteration: u64) -> Result<()> {
        let broken = match &self.desk {
            Some(desk) => desk.margin.iter().map(|margin| *margin <= 0.0).collect(),
            None => flags(&self.margin.gt(0.0).logical_not()),
        };
        if !broken.contains(&true) {
            return Ok(());
        }
        // Strict mode: a margin of zero is no break where the label comes first, and rounding may
        // undo one; whoever is not confirmed goes on.
        let gone = if trial.strict() {
            let restart = self.restart;
            let how = |_: usize| Break { restart, target: None, iteration };
            trial.claim(&self.rows, &broken, &self.best, &how)?
        } else {
            self.store(&broken, iteration);
            broken
        };
        let stay: Vec<usize> = (0..self.rows.len()).filter(|&i| !gone[i]).collect();
        let index = positions(&stay, self.x.device());
        self.rows = stay.iter().map(|&i| self.rows[i]).collect();
        if let Some(desk) = &mut self.desk {
            desk.keep(&stay);
        }
        for tensor in [&mut self.x, &mut self.labels, &mut self.best, &mut self.margin] {
            *tensor = tensor.index_select(0, &index);
        }
        Ok(())
    }

    /// Writes the images of some rows to where the run's results are.
    fn store(&mut self, which: &[bool], iteration: u64) {
        for i in (0..self.rows.len()).filter(|&i| which[i]) {
            let place = self.all.binary_search(&self.rows[i]).expect("rows are ascending");
            self.finals.get(place as i64).copy_(&self.best.get(i as i64));
            self.when[place] = iteration;
        }
    }

    /// Reference mode: broken is who is misclassified by a fresh pass over the run's rows.
    fn settle(&mut self, trial: &mut Trial) -> Result<()> {
        if trial.strict() {
            return Ok(());
        }
        self.store(&vec![true; self.rows.len()], trial.spec.steps);
        let labels = trial.labels(&self.all);
        let logits = trial.logits(&self.all, &self.finals)?;
        for (place, _) in wrong(&logits, &labels).iter().enumerate().filter(|(_, wrong)| **wrong) {
            let iteration = self.when[place];
            let how = Break { restart: self.restart, target: None, iteration };
            trial.record(self.all[place], &self.finals.get(place as i64), how);
        }
        Ok(())
    }
}

/// The norm of each channel's window, `[n,c,1,1]`.
fn window_norm(content: &Tensor, kind: Norm) -> Tensor {
    let sum = |v: Tensor| v.sum_dim_intlist([-2i64, -1].as_slice(), true, None);
    match kind {
        Norm::L1 => sum(content.abs()),
        _ => sum(content.square()).sqrt(),
    }
}

/// `shapes` `[2,s,s]`: the first or, where the flip says so, the second, `[m,1,s,s]`.
fn turned(trial: &mut Trial, rows: &[usize], shapes: &Tensor) -> Tensor {
    let flips: Vec<i64> = trial.noise.flip(rows).into_iter().map(i64::from).collect();
    let flips = upload(&Tensor::from_slice(&flips), shapes.device());
    shapes.index_select(0, &flips).unsqueeze(1)
}

/// L-infinity: vertical stripes; L2 and L1: a grid of tiles.
fn start(trial: &mut Trial, rows: &[usize], x: &Tensor) -> Tensor {
    let (epsilon, bounds) = (trial.spec.epsilon, trial.spec.bounds);
    let (count, channels, height, width) = x.size4().expect("images are [n,c,h,w]");
    if trial.spec.norm == Norm::Linf {
        let stripes = trial.noise.signs(rows, &[count, channels, 1, width], x.device());
        return (x + stripes * epsilon).clamp(bounds.low, bounds.high);
    }
    let edge = (height / 5).max(1);
    let first = ((height - 5 * edge) / 2).max(0);
    let shape = profile(edge, trial.spec.norm).to_device(x.device());
    let shapes = Tensor::stack(&[&shape, &shape.tr()], 0);
    let delta = x.zeros_like();
    for tile_row in 0..height / edge {
        for tile_column in 0..width / edge {
            let shape = turned(trial, rows, &shapes);
            let signs = trial.noise.signs(rows, &[count, channels, 1, 1], x.device());
            let (top, left) = (first + tile_row * edge, first + tile_column * edge);
            // Small or oblong images: the published loop runs over the edge, where it paints nothing.
            if top + edge <= height && left + edge <= width {
                let mut tile = delta.narrow(2, top, edge).narrow(3, left, edge);
                tile += shape * signs;
            }
        }
    }
    match trial.spec.norm {
        Norm::L1 => {
            let correction = l1_correction(x, &delta, epsilon * L1_MARGIN, bounds);
            x + &delta + correction
        }
        _ => (x + normalize(&delta, Norm::L2) * epsilon).clamp(bounds.low, bounds.high),
    }
}

//! Square over plain slices: see [`super::host`]. The draws are those of the tensor form.

use pixels::square::{self, Shift, Size, Window};
use tch::Tensor;

use super::{
    host,
    square_shape::{edge, profile},
    trial::Trial,
};
use crate::{error::Result, threat::Norm};

/// What the search keeps beside the images.
#[derive(Default)]
pub(crate) struct Desk {
    /// The margin of each row's best image.
    pub(crate) margin: Vec<f32>,
    /// L2: squared length of each row's perturbation, L1: its sum of magnitudes.
    mass: Vec<f32>,
    /// Profile of the edge and its transpose.
    shapes: (i64, [Vec<f32>; 2]),
    candidate: Option<Tensor>,
    delta: Vec<f32>,
}

/// The margin of each row: logit of the label less the largest other one.
pub(crate) fn margins(logits: &Tensor, labels: &Tensor) -> Vec<f32> {
    let classes = logits.size()[1] as usize;
    let labels: Vec<i64> = Vec::try_from(labels).expect("a label for each row");
    let flat = host::values(&logits.flatten(0, -1));
    let margin = |(z, &label): (&[f32], &i64)| {
        let label = label as usize;
        let others = z.iter().enumerate().filter(|(i, _)| *i != label);
        z[label] - others.map(|(_, z)| *z).fold(f32::NEG_INFINITY, f32::max)
    };
    flat.chunks_exact(classes).zip(&labels).map(margin).collect()
}

impl Desk {
    pub(crate) fn begin(trial: &Trial, (x, best): (&Tensor, &Tensor), margin: Vec<f32>) -> Self {
        let each = host::stride(x);
        let rows = host::read(x).chunks_exact(each).zip(host::read(best).chunks_exact(each));
        let mass = |(x, best)| match trial.spec.norm {
            Norm::L1 => pixels::mass_between(best, x),
            _ => pixels::squared_distance(best, x),
        };
        Self { margin, mass: rows.map(mass).collect(), ..Self::default() }
    }

    /// Keeps the rows `stay`.
    pub(crate) fn keep(&mut self, stay: &[usize]) {
        self.margin = stay.iter().map(|&i| self.margin[i]).collect();
        self.mass = stay.iter().map(|&i| self.mass[i]).collect();
        self.candidate = None;
    }

    /// A smaller margin, or a misclassification; takes note of the better ones.
    fn judge(&mut self, found: &[f32]) -> Vec<bool> {
        let judge = |(kept, &found): (&mut f32, &f32)| {
            let better = found < *kept || found <= 0.0;
            if better {
                *kept = found;
            }
            better
        };
        self.margin.iter_mut().zip(found).map(judge).collect()
    }

    /// L-infinity: one square of one colour; only its pixels change.
    pub(crate) fn paint(
        &mut self,
        trial: &mut Trial,
        rows: &[usize],
        (x, labels, best): (&Tensor, &Tensor, &mut Tensor),
        iteration: u64,
    ) -> Result<()> {
        let (size, channels) = size(x);
        let edge = edge(iteration, (size.height as i64, size.width as i64), Norm::Linf);
        let windows = windows(trial, rows, size, edge);
        let reach = 2.0 * trial.spec.epsilon as f32;
        let colours: Vec<f32> = trial.noise.coins(rows, channels);
        let colours: Vec<f32> = colours.into_iter().map(|sign| sign * reach).collect();
        let ball = (trial.spec.epsilon as f32, trial.spec.bounds.walls());
        let each = host::stride(x);
        let old = &mut self.delta;
        old.clear();
        let images = host::write(best).chunks_exact_mut(each).zip(host::read(x).chunks_exact(each));
        for (row, (best, x)) in images.enumerate() {
            let colours = &colours[row * channels..(row + 1) * channels];
            square::paint(best, x, (windows[row], size), colours, ball, old);
        }
        let found = margins(&trial.logits(rows, best)?, labels);
        let keep = self.judge(&found);
        let content = channels * (edge * edge) as usize;
        let olds = self.delta.chunks_exact(content);
        let images = host::write(best).chunks_exact_mut(each).zip(olds);
        for (row, (best, old)) in images.enumerate().filter(|(row, _)| !keep[*row]) {
            square::unpaint(best, (windows[row], size), channels, old);
        }
        Ok(())
    }

    /// L2 and L1: moves the perturbation's mass from one window into another.
    pub(crate) fn shift(
        &mut self,
        trial: &mut Trial,
        rows: &[usize],
        (x, labels, best): (&Tensor, &Tensor, &mut Tensor),
        (iteration, inside): (u64, f64),
    ) -> Result<()> {
        let (size, channels) = size(x);
        let (norm, epsilon) = (trial.spec.norm, trial.spec.epsilon);
        let edge = edge(iteration, (size.height as i64, size.width as i64), norm);
        self.shape(edge, norm);
        let into = windows(trial, rows, size, edge);
        let from = windows(trial, rows, size, edge);
        let flips = trial.noise.flip(rows);
        let signs: Vec<f32> = trial.noise.coins(rows, channels);
        let each = host::stride(x);
        let mut candidate = self.candidate.take().unwrap_or_else(|| x.empty_like());
        self.delta.resize(each, 0.0);
        let images = host::read(best).chunks_exact(each).zip(host::read(x).chunks_exact(each));
        let mut masses = Vec::with_capacity(rows.len());
        let candidates = host::write(&mut candidate).chunks_exact_mut(each);
        for (row, ((best, x), candidate)) in images.zip(candidates).enumerate() {
            let shift = Shift {
                into: into[row],
                from: from[row],
                size,
                profile: &self.shapes.1[usize::from(flips[row])],
                signs: &signs[row * channels..(row + 1) * channels],
                epsilon: epsilon as f32,
                walls: trial.spec.bounds.walls(),
            };
            let mass = self.mass[row];
            masses.push(match norm {
                Norm::L1 => {
                    let sizes = (mass, (epsilon * inside) as f32);
                    square::shift_l1(best, x, &shift, sizes, (&mut self.delta, candidate))
                }
                _ => square::shift_l2(best, x, &shift, mass, candidate),
            });
        }
        let found = margins(&trial.logits(rows, &candidate)?, labels);
        let keep = self.judge(&found);
        host::copy_rows(best, &keep, &candidate);
        for ((kept, mass), _) in self.mass.iter_mut().zip(masses).zip(&keep).filter(|(_, k)| **k) {
            *kept = mass;
        }
        self.candidate = Some(candidate);
        Ok(())
    }

    fn shape(&mut self, edge: i64, norm: Norm) {
        if self.shapes.0 != edge {
            let shape = profile(edge, norm);
            let turned = shape.tr().contiguous();
            self.shapes = (edge, [&shape, &turned].map(|s| host::values(&s.flatten(0, -1))));
        }
    }
}

fn size(x: &Tensor) -> (Size, usize) {
    let (_, channels, height, width) = x.size4().expect("images are [n,c,h,w]");
    (Size { height: height as usize, width: width as usize }, channels as usize)
}

fn windows(trial: &mut Trial, rows: &[usize], size: Size, edge: i64) -> Vec<Window> {
    let edge = edge as usize;
    let tops = trial.noise.corner(rows, (size.height - edge) as i64);
    let lefts = trial.noise.corner(rows, (size.width - edge) as i64);
    let window = |(top, left)| Window { top: top as usize, left: left as usize, edge };
    tops.into_iter().zip(lefts).map(window).collect()
}

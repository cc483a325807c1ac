//! The Fréchet distance between two sets of features (Heusel et al. 2017).

use std::path::Path;

use tch::{Device, Kind, Tensor};

use crate::{
    error::{Error, Result},
    formats::npz,
};

/// Running mean and covariance of features: a set is never held whole.
#[derive(Debug)]
pub struct Statistics {
    count: i64,
    sum: Tensor,
    /// Sum of outer products, `[d,d]`.
    products: Tensor,
    /// The first batch's mean: sums are of what is left after it, lest large means cancel.
    origin: Option<Tensor>,
}

impl Statistics {
    /// Of no features of `width` numbers each.
    pub fn new(width: i64) -> Self {
        let options = (Kind::Double, Device::Cpu);
        Self {
            count: 0,
            sum: Tensor::zeros([width], options),
            products: Tensor::zeros([width, width], options),
            origin: None,
        }
    }

    /// Takes features `[n,d]` of any float kind from any device.
    pub fn push(&mut self, features: &Tensor) {
        let features = features.to_device(Device::Cpu).to_kind(Kind::Double);
        let mean = || features.mean_dim([0].as_slice(), false, Kind::Double);
        let origin = self.origin.get_or_insert_with(mean);
        let centred = &features - &*origin;
        self.count += features.size()[0];
        self.sum += centred.sum_dim_intlist([0].as_slice(), false, Kind::Double);
        self.products += centred.tr().matmul(&centred);
    }

    /// Adds what another saw.
    fn join(&mut self, other: &Self) {
        let Some(theirs) = &other.origin else { return };
        let shift = theirs - self.origin.get_or_insert_with(|| theirs.copy()) as &Tensor;
        let n = other.count as f64;
        let cross = other.sum.outer(&shift);
        self.products += &other.products + &cross + cross.tr() + shift.outer(&shift) * n;
        self.sum += &other.sum + shift * n;
        self.count += other.count;
    }

    /// Mean `[d]` and unbiased covariance `[d,d]`, `Double`.
    ///
    /// # Errors
    /// If there are fewer than two features, or some are not finite.
    pub fn finish(&self) -> Result<Moments> {
        let Some(origin) = self.origin.as_ref().filter(|_| self.count > 1) else {
            return Err(Error::input(format!(
                "{} images have no covariance: give at least two",
                self.count
            )));
        };
        let n = self.count as f64;
        let offset = &self.sum / n;
        let covariance = (&self.products - offset.outer(&offset) * n) / (n - 1.0);
        if !covariance.isfinite().all().int64_value(&[]).eq(&1) {
            return Err(Error::Numerics("features are not finite".to_owned()));
        }
        Ok(Moments { mean: origin + offset, covariance })
    }
}

/// Mean and covariance of the features of one set.
#[derive(Debug)]
pub struct Moments {
    /// `[d]`, `Double`.
    pub mean: Tensor,
    /// `[d,d]`, `Double`, unbiased.
    pub covariance: Tensor,
}

impl Clone for Moments {
    fn clone(&self) -> Self {
        Self { mean: self.mean.copy(), covariance: self.covariance.copy() }
    }
}

impl Moments {
    /// Of features `[n,d]`.
    ///
    /// # Errors
    /// As [`Statistics::finish`].
    pub fn of(features: &Tensor) -> Result<Self> {
        let mut statistics = Statistics::new(features.size()[1]);
        statistics.push(features);
        statistics.finish()
    }

    /// Whether the `.npz` file at `path` holds moments (`mu`, `sigma`), as published reference
    /// statistics do, and not images.
    pub fn are_in(path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension == "npz")
            && npz::read(path).is_ok_and(|arrays| arrays.iter().any(|(name, _)| name == "mu"))
    }

    /// Reads `mu` `[d]` and `sigma` `[d,d]`.
    ///
    /// # Errors
    /// If the file does not hold them.
    pub fn read(path: &Path) -> Result<Self> {
        let arrays = npz::read(path)?;
        let array = |name: &str| {
            arrays.iter().find(|(own, _)| own == name).map(|(_, array)| array).ok_or_else(|| {
                Error::in_file(path, format!("holds no `{name}`: expected `mu` [d], `sigma` [d,d]"))
            })
        };
        let (mu, sigma) = (array("mu")?, array("sigma")?);
        let width = mu.len();
        if mu.shape() != [width] || sigma.shape() != [width, width] || width == 0 {
            return Err(Error::in_file(
                path,
                format!(
                    "mu is {:?} and sigma {:?}; expected [d] and [d,d]",
                    mu.shape(),
                    sigma.shape()
                ),
            ));
        }
        let covariance = Tensor::from_slice(&sigma.to_f64()).view([width as i64, width as i64]);
        let mean = Tensor::from_slice(&mu.to_f64());
        if (mean.isfinite().all() * covariance.isfinite().all()).int64_value(&[]) != 1 {
            return Err(Error::in_file(path, "holds numbers that are not finite"));
        }
        Ok(Self { mean, covariance })
    }

    /// Writes `mu` and `sigma`, as the published reference statistics have them.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let values = |tensor: &Tensor| -> Vec<f64> {
            tensor.contiguous().view([-1]).try_into().expect("Double on the CPU")
        };
        let width = self.mean.size()[0] as usize;
        let (mu, sigma) = (values(&self.mean), values(&self.covariance));
        npz::write_reals(path, &[("mu", &[width], &mu), ("sigma", &[width, width], &sigma)])
    }

    /// Refuses moments of other features than these.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn like(&self, other: &Self) -> Result<()> {
        let (own, theirs) = (self.mean.size()[0], other.mean.size()[0]);
        if own == theirs {
            return Ok(());
        }
        Err(Error::input(format!(
            "statistics of {own} and of {theirs} features: both must come from one network (the \
             published ones have 2048, of the Inception network)"
        )))
    }
}

/// `|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))`.
///
/// The trace of the root is the sum of the roots of the eigenvalues of `S1^(1/2) S2 S1^(1/2)`,
/// which is symmetric: no general matrix root, no imaginary parts to discard.
pub fn distance(a: &Moments, b: &Moments) -> f64 {
    distance_from(a, &root(&a.covariance), b)
}

/// The symmetric root of a covariance.
fn root(covariance: &Tensor) -> Tensor {
    let (values, vectors) = covariance.linalg_eigh("L");
    (&vectors * values.clamp_min(0.0).sqrt()).matmul(&vectors.tr())
}

/// The distance, where the root of `a`'s covariance is known.
fn distance_from(a: &Moments, root: &Tensor, b: &Moments) -> f64 {
    let inner = root.matmul(&b.covariance).matmul(root);
    let inner = (&inner + inner.tr()) * 0.5;
    let cross = inner.linalg_eigvalsh("L").clamp_min(0.0).sqrt().sum(Kind::Double);
    let mean = (&a.mean - &b.mean).square().sum(Kind::Double);
    let traces = a.covariance.trace() + b.covariance.trace();
    (mean + traces - cross * 2.0).double_value(&[])
}

/// Standard error of the distance between `real` and a set, of which `groups` saw one random part
/// each, all as large: the jackknife that leaves out one group at a time (Efron and Tibshirani 1993,
/// section 11.5). That `real` is a sample too does not enter.
///
/// # Errors
/// As [`Statistics::finish`], of the set without one of its groups.
pub fn standard_error(groups: &[Statistics], real: &Moments) -> Result<f64> {
    let root = root(&real.covariance);
    let without = |left_out: usize| {
        let mut rest = Statistics::new(real.mean.size()[0]);
        for (_, group) in groups.iter().enumerate().filter(|(at, _)| *at != left_out) {
            rest.join(group);
        }
        Ok(distance_from(real, &root, &rest.finish()?))
    };
    let distances = (0..groups.len()).map(without).collect::<Result<Vec<f64>>>()?;
    let n = distances.len() as f64;
    let mean = distances.iter().sum::<f64>() / n;
    let squares = distances.iter().map(|one| (one - mean).powi(2)).sum::<f64>();
    Ok(((n - 1.0) / n * squares).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    fn normal(seed: u64, shape: [i64; 2]) -> Tensor {
        let values = Stream::new(seed, "features", 0).normals((shape[0] * shape[1]) as usize);
        Tensor::from_slice(&values).view(shape).to_kind(Kind::Double)
    }

    #[test]
    fn scaled_and_shifted_features_have_a_closed_form() {
        // Features a and 3a + 2: |m|^2 as it is, and (3 - 1)^2 tr S.
        let features = normal(0, [500, 6]);
        let (a, b) =
            (Moments::of(&features).unwrap(), Moments::of(&(&features * 3.0 + 2.0)).unwrap());
        let shift = (&a.mean * 2.0 + 2.0).square().sum(Kind::Double).double_value(&[]);
        let expected = shift + 4.0 * a.covariance.trace().double_value(&[]);
        assert!((distance(&a, &b) - expected).abs() < 1e-9 * expected);
        assert!(distance(&a, &a).abs() < 1e-10);
    }

    #[test]
    fn batches_and_large_means_change_nothing() {
        let features = normal(1, [300, 5]) + 1e6;
        let mut pieces = Statistics::new(5);
        for piece in features.split(64, 0) {
            pieces.push(&piece);
        }
        let (a, b) = (pieces.finish().unwrap(), Moments::of(&features).unwrap());
        assert!((&a.covariance - &b.covariance).abs().max().double_value(&[]) < 1e-9);
        assert!(
            (b.covariance - features.tr().cov(1, None::<&Tensor>, None::<&Tensor>))
                .abs()
                .max()
                .double_value(&[])
                < 1e-8
        );
        assert!(Statistics::new(3).finish().is_err());
    }

    #[test]
    fn the_standard_error_is_how_far_sets_scatter() {
        let real = Moments::of(&normal(2, [2000, 4])).unwrap();
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for seed in 0..200 {
            let set = normal(10 + seed, [400, 4]) * 1.3 + 0.2;
            found.push(distance(&Moments::of(&set).unwrap(), &real));
            let group = |part: Tensor| {
                let mut one = Statistics::new(4);
                // In two pieces: joined groups must not depend on where their origin lies.
                part.split(25, 0).iter().for_each(|piece| one.push(piece));
                one
            };
            let groups: Vec<Statistics> = set.split(40, 0).into_iter().map(group).collect();
            errors.push(standard_error(&groups, &real).unwrap());
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let at = mean(&found);
        let scatter = mean(&found.iter().map(|one| (one - at).powi(2)).collect::<Vec<_>>()).sqrt();
        let told = mean(&errors.iter().map(|one| one.powi(2)).collect::<Vec<_>>()).sqrt();
        assert!((told / scatter - 1.0).abs() < 0.25, "told {told}, scatter {scatter}");
    }

    #[test]
    fn joined_groups_are_the_whole() {
        let features = normal(3, [90, 5]) * 2.0 + 100.0;
        let mut whole = Statistics::new(5);
        for part in features.split(40, 0) {
            let mut own = Statistics::new(5);
            own.push(&part);
            whole.join(&own);
        }
        let (a, b) = (whole.finish().unwrap(), Moments::of(&features).unwrap());
        assert!((&a.mean - &b.mean).abs().max().double_value(&[]) < 1e-10);
        assert!((&a.covariance - &b.covariance).abs().max().double_value(&[]) < 1e-10);
    }

    #[test]
    fn moments_come_back_from_their_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reference.npz");
        let features = Tensor::from_slice(&[0.0, 1.0, 2.0, 5.0, 4.0, 3.5]).view([3, 2]);
        let moments = Moments::of(&features).unwrap();
        moments.write(&path).unwrap();
        assert!(Moments::are_in(&path));
        let again = Moments::read(&path).unwrap();
        assert_eq!((&again.mean, &again.covariance), (&moments.mean, &moments.covariance));
        assert!(again.like(&Moments::of(&Tensor::eye(3, tch::kind::DOUBLE_CPU)).unwrap()).is_err());
        npz::write_reals(&path, &[("mu", &[2], &[0.0, 1.0]), ("sigma", &[2], &[1.0, 1.0])])
            .unwrap();
        let message = Moments::read(&path).unwrap_err().to_string();
        assert!(message.contains("expected [d] and [d,d]"), "{message}");
    }
}

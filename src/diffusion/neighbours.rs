//! Quality by nearest neighbours: precision and recall (Kynkäänniemi et al. 2019), density and
//! coverage (Naeem et al. 2020).

use tch::{Kind, Tensor};

use crate::error::{Error, Result};

/// Rows of the distance matrix held at once.
const ROWS: i64 = 1024;

/// How well generated features cover real ones, and the other way round.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Coverage {
    /// Share of generated features inside some real feature's ball.
    pub precision: f64,
    /// Share of real features inside some generated feature's ball.
    pub recall: f64,
    /// In how many real balls a generated feature lies, divided by `k`.
    pub density: f64,
    /// Share of real features whose ball holds a generated one.
    pub coverage: f64,
}

/// Compares features `real` `[n,d]` and `generated` `[m,d]`; a ball reaches to the `k`-th nearest
/// neighbour in its own set.
///
/// # Errors
/// If a set has not more than `k` features.
pub fn coverage(real: &Tensor, generated: &Tensor, k: i64) -> Result<Coverage> {
    let fewest = real.size()[0].min(generated.size()[0]);
    if k < 1 || fewest <= k {
        return Err(Error::input(format!(
            "{fewest} images have no {k} nearest neighbours: give more images"
        )));
    }
    let (real, generated) = (real.to_kind(Kind::Double), generated.to_kind(Kind::Double));
    let (real_radii, generated_radii) = (radii(&real, k), radii(&generated, k));
    let (n, m) = (real.size()[0], generated.size()[0]);
    let (mut inside_any, mut inside) = (0.0, 0.0);
    let mut reached = Tensor::zeros([n], (Kind::Bool, real.device()));
    let mut recalled = Tensor::zeros([n], (Kind::Bool, real.device()));
    for rows in generated.split(ROWS, 0).iter().zip(generated_radii.split(ROWS, 0)) {
        let distances = Tensor::cdist(rows.0, &real, 2.0, 1); // [rows,n]
        let in_real = distances.le_tensor(&real_radii.unsqueeze(0));
        inside += in_real.sum(Kind::Double).double_value(&[]);
        inside_any += in_real.any_dim(1, false).sum(Kind::Double).double_value(&[]);
        reached = reached.logical_or(&in_real.any_dim(0, false));
        let in_generated = distances.le_tensor(&rows.1.unsqueeze(1));
        recalled = recalled.logical_or(&in_generated.any_dim(0, false));
    }
    let share = |flags: &Tensor| flags.sum(Kind::Double).double_value(&[]) / n as f64;
    Ok(Coverage {
        precision: inside_any / m as f64,
        recall: share(&recalled),
        density: inside / (k as f64 * m as f64),
        coverage: share(&reached),
    })
}

/// Distance of each feature to its `k`-th nearest neighbour within the set, `[n]`.
fn radii(features: &Tensor, k: i64) -> Tensor {
    let radii: Vec<Tensor> = features
        .split(ROWS, 0)
        .iter()
        // The nearest of all is the feature itself.
        .map(|rows| Tensor::cdist(rows, features, 2.0, 1).kthvalue(k + 1, 1, false).0)
        .collect();
    Tensor::cat(&radii, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: &[f64]) -> Tensor {
        Tensor::from_slice(points).view([-1, 1])
    }

    #[test]
    fn points_on_a_line_by_hand() {
        // Balls with k = 1: real 0, 1, 3, 10 have radii 1, 1, 2, 7; generated 0.5, 3.5, 20, 21
        // have radii 3, 3, 1, 1.
        let real = line(&[0.0, 1.0, 3.0, 10.0]);
        let generated = line(&[0.5, 3.5, 20.0, 21.0]);
        let seen = coverage(&real, &generated, 1).unwrap();
        // 0.5 lies in the balls of 0 and 1; 3.5 in those of 3 and 10; the others in none.
        assert_eq!(seen.precision, 0.5);
        assert_eq!(seen.density, 1.0);
        assert_eq!(seen.coverage, 1.0);
        // 0, 1 and 3 lie in generated balls, 10 does not.
        assert_eq!(seen.recall, 0.75);
        assert!(coverage(&real, &generated, 4).is_err());
    }
}

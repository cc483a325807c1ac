//! Two shares that are not paired: a run against a published figure, or against a run on other
//! images.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

use super::statistics::wilson;
use crate::units::Tally;

/// The difference of two independent shares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// First minus second, in percentage points.
    pub points: f64,
    /// Lower end of its 95% interval (Newcombe 1998, method 10), in percentage points.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Two-sided p of the pooled z test, which is Pearson's chi-squared test.
    pub p: f64,
}

/// Compares two shares; without examples on either side nothing can be told (p = 1).
pub fn difference(first: Tally, second: Tally) -> Difference {
    let points = first.percent() - second.percent();
    if first.total == 0 || second.total == 0 {
        return Difference { points, low: -100.0, high: 100.0, p: 1.0 };
    }
    let (a, b) = (wilson(first, 0.95), wilson(second, 0.95));
    let (p, q) = (first.percent(), second.percent());
    let low = points - (p - a.0).hypot(b.1 - q);
    let high = points + (a.1 - p).hypot(q - b.0);
    Difference { points, low, high, p: pooled(first, second) }
}

fn pooled(first: Tally, second: Tally) -> f64 {
    let (n, m) = (first.total as f64, second.total as f64);
    let share = (first.correct + second.correct) as f64 / (n + m);
    let error = (share * (1.0 - share) * (1.0 / n + 1.0 / m)).sqrt();
    if error <= 0.0 {
        return 1.0;
    }
    let z = (first.percent() - second.percent()) / 100.0 / error;
    2.0 * Normal::standard().cdf(-z.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(correct: u64, total: u64) -> Tally {
        Tally { correct, total }
    }

    #[test]
    fn intervals_agree_with_newcombe_1998() {
        // Newcombe 1998b, table II, method 10.
        for (first, second, low, high) in [
            (tally(56, 70), tally(48, 80), 5.24, 33.39),
            (tally(9, 10), tally(3, 10), 17.05, 80.90),
            (tally(10, 10), tally(0, 20), 67.91, 100.0),
        ] {
            let found = difference(first, second);
            assert!((found.low - low).abs() < 0.01, "{found:?}");
            assert!((found.high - high).abs() < 0.01, "{found:?}");
        }
    }

    #[test]
    fn p_values_agree_with_scipy() {
        // scipy.stats.chi2_contingency([[a, n - a], [b, m - b]], correction=False).pvalue
        for (first, second, p) in [
            (tally(56, 70), tally(48, 80), SCIPY[0]),
            (tally(6731, 10_000), tally(6592, 10_000), SCIPY[1]),
            (tally(312, 1000), tally(6731, 10_000), SCIPY[2]),
        ] {
            let found = difference(first, second).p;
            assert!((found / p - 1.0).abs() < 1e-8, "{found} {p}");
        }
        assert!((difference(tally(3, 3), tally(5, 5)).p - 1.0).abs() < 1e-12);
        assert!((difference(tally(0, 0), tally(5, 5)).p - 1.0).abs() < 1e-12);
    }

    const SCIPY: [f64; 3] = [0.008045081368196585, 0.03714254406925646, 6.129663797913729e-114];
}

//! Intervals, paired tests and spreads.

use serde::{Deserialize, Serialize};
use statrs::{
    distribution::{ContinuousCDF, Normal},
    function::beta::beta_reg,
    function::factorial::ln_binomial,
};

use crate::units::Tally;

/// The Wilson score interval in percent (Wilson 1927). `confidence` in (0, 1), such as 0.95.
///
/// No examples at all say nothing: the whole range comes back.
pub fn wilson(tally: Tally, confidence: f64) -> (f64, f64) {
    if tally.total == 0 {
        return (0.0, 100.0);
    }
    let z = normal_quantile(0.5 + confidence / 2.0);
    let n = tally.total as f64;
    let p = tally.correct as f64 / n;
    let scale = 1.0 + z * z / n;
    let centre = (p + z * z / (2.0 * n)) / scale;
    let half = z / scale * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    (100.0 * (centre - half).max(0.0), 100.0 * (centre + half).min(1.0))
}

/// The Clopper-Pearson interval in percent: never covers less than `confidence` promises.
pub fn clopper_pearson(tally: Tally, confidence: f64) -> (f64, f64) {
    let Tally { correct: k, total: n } = tally;
    if n == 0 {
        return (0.0, 100.0);
    }
    let tail = (1.0 - confidence) / 2.0;
    let (k_real, n_real) = (k as f64, n as f64);
    let low = if k == 0 { 0.0 } else { beta_quantile(tail, k_real, n_real - k_real + 1.0) };
    let high = if k == n { 1.0 } else { beta_quantile(1.0 - tail, k_real + 1.0, n_real - k_real) };
    (100.0 * low, 100.0 * high)
}

/// McNemar's test of two classifiers on the same examples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Examples that only the first has right.
    pub only_first: u64,
    /// Examples that only the second has right.
    pub only_second: u64,
    /// Two-sided exact binomial p-value.
    pub exact: f64,
    /// Two-sided mid-p value: less conservative, still close to its level (Fagerland et al. 2013).
    pub mid_p: f64,
}

/// McNemar's exact and mid-p test from the two discordant counts.
pub fn mcnemar(only_first: u64, only_second: u64) -> McNemar {
    let n = only_first + only_second;
    let k = only_first.min(only_second);
    // P(X <= k) of Binomial(n, 1/2), by the regularised incomplete beta function.
    let below = if k == n { 1.0 } else { beta_reg((n - k) as f64, (k + 1) as f64, 0.5) };
    let point = (ln_binomial(n, k) - n as f64 * std::f64::consts::LN_2).exp();
    let exact = (2.0 * below).min(1.0);
    let mid_p = if n == 0 { 1.0 } else { (2.0 * below - point).clamp(0.0, 1.0) };
    McNemar { only_first, only_second, exact, mid_p }
}

/// The difference in percentage points (first minus second) of two paired shares with its
/// interval (Agresti and Min 2005: Wald after adding half an example to each cell).
pub fn paired_difference(test: McNemar, total: u64, confidence: f64) -> (f64, f64, f64) {
    if total == 0 {
        return (0.0, -100.0, 100.0);
    }
    let (b, c) = (test.only_first as f64, test.only_second as f64);
    let n = total as f64 + 2.0;
    let (first, second) = (b + 0.5, c + 0.5);
    let centre = (first - second) / n;
    let z = normal_quantile(0.5 + confidence / 2.0);
    let half = z * (first + second - (first - second).powi(2) / n).max(0.0).sqrt() / n;
    let difference = (b - c) / total as f64;
    (100.0 * difference, 100.0 * (centre - half).max(-1.0), 100.0 * (centre + half).min(1.0))
}

/// The difference in percentage points (first minus second) of two independent shares with its
/// interval (Newcombe 1998, method 10: from the Wilson intervals of both).
pub fn difference(first: Tally, second: Tally, confidence: f64) -> (f64, f64, f64) {
    let ((a_low, a_high), (b_low, b_high)) =
        (wilson(first, confidence), wilson(second, confidence));
    let (a, b) = (first.percent(), second.percent());
    if first.total == 0 || second.total == 0 {
        return (0.0, -100.0, 100.0);
    }
    let below = ((a - a_low).powi(2) + (b_high - b).powi(2)).sqrt();
    let above = ((a_high - a).powi(2) + (b - b_low).powi(2)).sqrt();
    (a - b, (a - b - below).max(-100.0), (a - b + above).min(100.0))
}

/// Mean and spread over repetitions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Sample standard deviation (n - 1 below); `None` for a single repetition.
    pub deviation: Option<f64>,
    /// How many repetitions.
    pub count: u64,
}

/// Mean and sample standard deviation; `None` for no values.
pub fn spread(values: &[f64]) -> Option<Spread> {
    if values.is_empty() {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    let deviation = (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt());
    Some(Spread { mean, deviation, count: values.len() as u64 })
}

fn normal_quantile(p: f64) -> f64 {
    Normal::standard().inverse_cdf(p)
}

/// Where the regularised incomplete beta function reaches `p`, by bisection to the last bits:
/// slower than Newton and never astray, which suits a handful of table cells.
fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if beta_reg(a, b, middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: (f64, f64), expected: (f64, f64), tolerance: f64) {
        let near = |a: f64, b: f64| (a - b).abs() < tolerance;
        assert!(near(found.0, expected.0) && near(found.1, expected.1), "{found:?} {expected:?}");
    }

    #[test]
    fn wilson_agrees_with_tallies_and_tables() {
        let tally = Tally { correct: 6731, total: 10_000 };
        close(wilson(tally, 0.95), tally.interval(), 1e-9);
        // Newcombe 1998, table I, method 3: 81/263, 15/148, 0/20, 1/29.
        for (correct, total, low, high) in [
            (81, 263, 25.53, 36.62),
            (15, 148, 6.24, 16.05),
            (0, 20, 0.0, 16.11),
            (1, 29, 0.61, 17.18),
        ] {
            close(wilson(Tally { correct, total }, 0.95), (low, high), 0.006);
        }
        assert_eq!(wilson(Tally { correct: 0, total: 0 }, 0.95), (0.0, 100.0));
    }

    #[test]
    fn clopper_pearson_agrees_with_scipy() {
        // scipy.stats.binomtest(k, n).proportion_ci(0.95, "exact"); the same figures follow from
        // bisection on sums of math.comb(n, i) * p**i * (1 - p)**(n - i).
        for (correct, total, low, high) in [
            (0, 10, 0.0, 30.849_710_781_876_07),
            (1, 10, 0.252_857_854_446_181_25, 44.501_611_702_819_53),
            (5, 10, 18.708_602_844_739_858, 81.291_397_155_260_14),
            (10, 10, 69.150_289_218_123_92, 100.0),
            (312, 1000, 28.337_317_638_728_937, 34.173_837_614_456_92),
        ] {
            close(clopper_pearson(Tally { correct, total }, 0.95), (low, high), 1e-8);
        }
        // Newcombe 1998, table I, method 5.
        close(clopper_pearson(Tally { correct: 81, total: 263 }, 0.95), (25.27, 36.76), 0.006);
    }

    #[test]
    fn mcnemar_agrees_with_scipy() {
        // scipy.stats.binomtest(min(b, c), b + c).pvalue, and for the mid-p value that minus
        // math.comb(b + c, b) / 2**(b + c). (59, 6) is Fagerland et al. 2013's second example.
        for (b, c, exact, mid_p) in [
            (5, 15, 0.041_389_465_332_031_25, 0.026_603_698_730_468_75),
            (15, 5, 0.041_389_465_332_031_25, 0.026_603_698_730_468_75),
            (6, 16, 0.052_478_790_283_203_125, 0.034_689_664_840_698_24),
            (59, 6, 4.964_650_327_128_617e-12, 2.725_803_198_606_88e-12),
            (1, 0, 1.0, 0.5),
            (0, 0, 1.0, 1.0),
            (10, 10, 1.0, 1.0),
        ] {
            let test = mcnemar(b, c);
            assert!((test.exact / exact - 1.0).abs() < 1e-9, "{b} {c} {test:?}");
            assert!((test.mid_p / mid_p - 1.0).abs() < 1e-9, "{b} {c} {test:?}");
        }
    }

    #[test]
    fn paired_differences_cover_zero_exactly_when_balanced() {
        let (difference, low, high) = paired_difference(mcnemar(10, 10), 100, 0.95);
        assert!(difference == 0.0 && (low + high).abs() < 1e-12 && low < 0.0);
        // Agresti and Min 2005 by hand: n* = 102, b* = 20.5, c* = 5.5, centre = 15/102,
        // half = 1.959964 * sqrt(26 - 225/102) / 102.
        let (difference, low, high) = paired_difference(mcnemar(20, 5), 100, 0.95);
        assert!((difference - 15.0).abs() < 1e-12);
        close((low, high), (5.332794, 24.078971), 1e-5);
    }

    #[test]
    fn independent_differences_agree_with_newcombe() {
        // Newcombe 1998 (Statistics in Medicine 17:873), table II, method 10.
        let tally = |correct, total| Tally { correct, total };
        let (points, low, high) = difference(tally(56, 70), tally(48, 80), 0.95);
        assert!((points - 20.0).abs() < 1e-9);
        close((low, high), (5.24, 33.39), 0.006);
        let (_, low, high) = difference(tally(9, 10), tally(3, 10), 0.95);
        close((low, high), (17.05, 80.90), 0.006);
        assert_eq!(difference(tally(0, 0), tally(3, 10), 0.95), (0.0, -100.0, 100.0));
    }

    #[test]
    fn spreads_agree_with_python() {
        // statistics.mean([31.2, 30.5, 32.4]), statistics.stdev(...)
        let found = spread(&[31.2, 30.5, 32.4]).unwrap();
        close((found.mean, found.deviation.unwrap()), (31.366_666_67, 0.960_902_35), 1e-8);
        assert_eq!(spread(&[4.0]).unwrap().deviation, None);
        assert_eq!(spread(&[]), None);
    }
}

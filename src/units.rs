//! Numbers that must stay exact: perturbation bounds and counts.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;

/// A perturbation bound as the literature writes it: `8/255`, `0.5`. Kept as a reduced fraction,
/// so that equal bounds hash alike and 8/255 never becomes 0.031.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epsilon {
    numerator: u64,
    denominator: u64,
}

impl Epsilon {
    /// `numerator / denominator`, reduced.
    ///
    /// # Panics
    /// If `denominator` is zero.
    pub fn new(numerator: u64, denominator: u64) -> Self {
        assert!(denominator > 0, "an epsilon needs a positive denominator");
        let divisor = gcd(numerator, denominator).max(1);
        Self { numerator: numerator / divisor, denominator: denominator / divisor }
    }

    /// The bound as the nearest `f64`.
    pub fn value(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl FromStr for Epsilon {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::input(format!(
                "epsilon `{text}` is not a bound: expected a fraction like 8/255 or a decimal like 0.5"
            ))
        };
        let parsed = match text.trim().split_once('/') {
            Some((over, under)) => {
                let over = over.trim().parse().map_err(|_| wrong())?;
                let under: u64 = under.trim().parse().map_err(|_| wrong())?;
                if under == 0 {
                    return Err(wrong());
                }
                Self::new(over, under)
            }
            None => decimal(text.trim()).ok_or_else(wrong)?,
        };
        Ok(parsed)
    }
}

/// `0.031` as 31/1000, exactly.
fn decimal(text: &str) -> Option<Epsilon> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{fraction}");
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let under = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    plain.then(|| digits.parse().ok().map(|over| Epsilon::new(over, under))).flatten()
}

impl fmt::Display for Epsilon {
    /// Fractions of 255 as the literature writes them, otherwise a decimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.denominator > 1 && 255 % self.denominator == 0 {
            write!(f, "{}/255", self.numerator * (255 / self.denominator))
        } else {
            // A decimal only where it says the bound exactly.
            let text = format!("{}", self.value());
            match decimal(&text) {
                Some(same) if same == *self => f.write_str(&text),
                _ => write!(f, "{}/{}", self.numerator, self.denominator),
            }
        }
    }
}

impl Serialize for Epsilon {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Epsilon {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Standard deviations to either side that hold 95% of a normal distribution.
pub(crate) const NORMAL_95: f64 = 1.959_963_984_540_054;

/// How many of how many: the form in which every accuracy is kept. Percents are for display.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Tally {
    /// Examples that count as right.
    pub correct: u64,
    /// All examples.
    pub total: u64,
}

impl Tally {
    /// The share in percent; 0 of 0 is 0.
    pub fn percent(self) -> f64 {
        if self.total == 0 { 0.0 } else { 100.0 * self.correct as f64 / self.total as f64 }
    }

    /// The Wilson score interval at 95%, in percent (Wilson 1927).
    pub fn interval(self) -> (f64, f64) {
        if self.total == 0 {
            return (0.0, 100.0);
        }
        let z = NORMAL_95;
        let n = self.total as f64;
        let p = self.correct as f64 / n;
        let scale = 1.0 + z * z / n;
        let centre = (p + z * z / (2.0 * n)) / scale;
        let half = z / scale * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        // Exactly the ends, where rounding would miss them.
        let low = if self.correct == 0 { 0.0 } else { (centre - half).max(0.0) };
        let high = if self.correct == self.total { 1.0 } else { (centre + half).min(1.0) };
        (100.0 * low, 100.0 * high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epsilons_stay_exact() {
        let parse = |text: &str| text.parse::<Epsilon>().unwrap();
        assert_eq!(parse("8/255").to_string(), "8/255");
        assert_eq!(parse("128/255").to_string(), "128/255");
        assert_eq!(parse("0.5"), Epsilon::new(1, 2));
        assert_eq!(parse("0.5").to_string(), "0.5");
        assert_eq!(parse("0.031").to_string(), "0.031");
        assert_eq!(parse("1/3").to_string(), "85/255");
        assert_eq!(parse("1/7").to_string(), "1/7");
        assert_eq!(parse("3").to_string(), "3");
        for bad in ["", "8/0", "-1/255", "abc", "8/255/3", "1e-3", "."] {
            assert!(bad.parse::<Epsilon>().is_err(), "{bad}");
        }
    }

    #[test]
    fn wilson_matches_published_values() {
        // statsmodels.stats.proportion.proportion_confint(6731, 10000, method="wilson")
        let (low, high) = Tally { correct: 6731, total: 10000 }.interval();
        assert!((low - 66.384_45).abs() < 1e-3 && (high - 68.222_25).abs() < 1e-3, "{low} {high}");
        assert_eq!(Tally { correct: 0, total: 0 }.interval(), (0.0, 100.0));
        assert!(Tally { correct: 0, total: 64 }.interval().0 == 0.0);
        assert!(Tally { correct: 64, total: 64 }.interval().1 == 100.0);
    }
}

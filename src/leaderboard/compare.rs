//! Two evaluations of the same images, paired by example.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::statistics::{McNemar, mcnemar};
use crate::{
    error::{Error, Result},
    evaluate::Record,
    units::Tally,
};

/// Two evaluations, example by example.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The first's accuracies on the shared examples: clean, robust.
    pub first: (Tally, Tally),
    /// The second's.
    pub second: (Tally, Tally),
    /// McNemar's test of clean correctness.
    pub clean: McNemar,
    /// McNemar's test of robust correctness.
    pub robust: McNemar,
    /// Examples that one withstands and the other does not, by index.
    pub flips: Vec<Flip>,
    /// Examples that only one of the two has.
    pub unpaired: u64,
}

/// An example on which two robust classifiers disagree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flip {
    /// Place in the data.
    pub index: u64,
    /// The right class.
    pub label: i64,
    /// Whether the first withstood every attack (then the second did not).
    pub first_robust: bool,
    /// What broke the loser: an attack's name, or `None` if it erred without one.
    pub broken_by: Option<String>,
}

/// Pairs `first` and `second` by index.
///
/// # Errors
/// If they share no example, or an index holds different images or labels.
pub fn compare(first: &[Record], second: &[Record]) -> Result<Comparison> {
    let others: HashMap<u64, &Record> = second.iter().map(|r| (r.index, r)).collect();
    let mut pairs = Vec::new();
    for a in first {
        let Some(b) = others.get(&a.index) else { continue };
        if a.image_hash != b.image_hash || a.label != b.label {
            return Err(Error::input(format!(
                "example {}: the two evaluations saw different images or labels; only evaluations \
                 of the same data can be paired",
                a.index
            )));
        }
        pairs.push((a, *b));
    }
    if pairs.is_empty() {
        return Err(Error::input("the two evaluations share no example, so nothing can be paired"));
    }
    pairs.sort_by_key(|(a, _)| a.index);
    let count = |right: &dyn Fn(&Record, &Record) -> bool| {
        pairs.iter().filter(|(a, b)| right(a, b)).count() as u64
    };
    let tally = |correct| Tally { correct, total: pairs.len() as u64 };
    Ok(Comparison {
        first: (tally(count(&|a, _| a.clean())), tally(count(&|a, _| a.robust()))),
        second: (tally(count(&|_, b| b.clean())), tally(count(&|_, b| b.robust()))),
        clean: mcnemar(
            count(&|a, b| a.clean() && !b.clean()),
            count(&|a, b| !a.clean() && b.clean()),
        ),
        robust: mcnemar(
            count(&|a, b| a.robust() && !b.robust()),
            count(&|a, b| !a.robust() && b.robust()),
        ),
        flips: pairs.iter().filter_map(|(a, b)| flip(a, b)).collect(),
        unpaired: (first.len() + second.len() - 2 * pairs.len()) as u64,
    })
}

fn flip(a: &Record, b: &Record) -> Option<Flip> {
    let loser = match (a.robust(), b.robust()) {
        (true, false) => b,
        (false, true) => a,
        _ => return None,
    };
    Some(Flip {
        index: a.index,
        label: a.label,
        first_robust: a.robust(),
        broken_by: loser.broken_by.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaderboard::records::tests::sample;

    #[test]
    fn pairs_flips_and_refuses_strangers() {
        let first = [
            sample(0, true, None),
            sample(1, true, Some("square")),
            sample(2, true, None),
            sample(3, false, None),
            sample(9, true, None),
        ];
        let mut second = [
            sample(3, true, None),
            sample(2, true, Some("apgd-t")),
            sample(1, true, Some("apgd-ce")),
            sample(0, false, None),
        ];
        let found = compare(&first, &second).unwrap();
        assert_eq!(found.first.1, Tally { correct: 2, total: 4 });
        assert_eq!(found.second.1, Tally { correct: 1, total: 4 });
        assert_eq!((found.robust.only_first, found.robust.only_second), (2, 1));
        assert_eq!((found.clean.only_first, found.clean.only_second), (1, 1));
        assert_eq!(found.unpaired, 1);
        let flips: Vec<_> =
            found.flips.iter().map(|f| (f.index, f.first_robust, f.broken_by.as_deref())).collect();
        assert_eq!(flips, [(0, true, None), (2, true, Some("apgd-t")), (3, false, None)]);
        second[1].image_hash = "other".into();
        assert!(compare(&first, &second).unwrap_err().to_string().contains("example 2"));
        assert!(compare(&first[4..], &second).is_err());
    }
}

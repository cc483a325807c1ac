//! Published numbers, each with the cells that it speaks of.

use serde::{Deserialize, Serialize};

use crate::suite::{Suite, axes::Draft, problem::Problem, reference::Numbers, table::FIELDS};

/// One published result and the cells that it speaks of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanReference {
    /// Positions of the cells.
    pub cells: Vec<usize>,
    /// What it says of them.
    pub numbers: Numbers,
}

/// The references of `suite`; one that speaks of no cell is a mistake, unless the command line has
/// fixed axes.
pub(super) fn resolve(
    suite: &Suite,
    drafts: &[Draft],
    problems: &mut Vec<Problem>,
) -> Vec<PlanReference> {
    let fixed = suite.base.iter().any(|given| given.setting.origin.mark().is_none());
    let mut found = Vec::new();
    for reference in &suite.reference {
        let cells: Vec<usize> = drafts
            .iter()
            .enumerate()
            .filter(|(_, draft)| suite.is_cell(draft, &reference.cell))
            .map(|(index, _)| index)
            .collect();
        if cells.is_empty() && !fixed {
            let named = |given: &crate::suite::settings::Given| {
                format!("{}: {}", FIELDS[given.field].path, given.setting.value)
            };
            let cell: Vec<_> = reference.cell.iter().map(named).collect();
            let message = format!("no cell has {}", cell.join(", "));
            problems.push(Problem::new(Some(reference.at), "reference", message));
        }
        if !cells.is_empty() {
            found.push(PlanReference { cells, numbers: reference.numbers.clone() });
        }
    }
    found
}

//! Cells as people name them on the command line.

use crate::{
    error::{Error, Result},
    plan::Plan,
};

/// The position of the cell that `name` means: its number, its title, or `path=label` pairs.
///
/// # Errors
/// If no cell, or more than one, is meant.
pub fn find(plan: &Plan, name: &str) -> Result<usize> {
    match select(plan, name)?.as_slice() {
        [only] => Ok(*only),
        several => Err(Error::input(format!(
            "`{name}` means {} cells ({} to {}): give one number",
            several.len(),
            several[0],
            several[several.len() - 1]
        ))),
    }
}

/// The positions of all cells that `name` means.
///
/// # Errors
/// If there is none.
pub fn select(plan: &Plan, name: &str) -> Result<Vec<usize>> {
    let name = name.trim();
    if let Ok(number) = name.parse::<usize>()
        && number < plan.cells.len()
    {
        return Ok(vec![number]);
    }
    let pairs: Vec<(&str, &str)> = name
        .split([',', ' '])
        .filter_map(|pair| pair.split_once('='))
        .map(|(path, label)| (path.trim(), label.trim()))
        .collect();
    let fits = |cell: &crate::plan::Cell| {
        let value = |path: &str| {
            let known = |value: &&crate::plan::CellValue| {
                value.path == path || value.path.ends_with(&format!(".{path}"))
            };
            cell.values.iter().find(known)
        };
        let all = |(path, label): &(&str, &str)| value(path).is_some_and(|v| v.label == *label);
        cell.title() == name || (!pairs.is_empty() && pairs.iter().all(all))
    };
    let found: Vec<usize> =
        plan.cells.iter().enumerate().filter(|(_, cell)| fits(cell)).map(|(at, _)| at).collect();
    if found.is_empty() {
        let last = plan.cells.len().saturating_sub(1);
        return Err(Error::input(format!(
            "`{name}` is no cell: expected a number from 0 to {last}, a label, or values of axes \
             like generated.count=1M,threat=linf (`gauntlet plan` lists the cells)"
        )));
    }
    Ok(found)
}

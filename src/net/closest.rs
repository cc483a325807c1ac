//! Which known architecture the names in a file resemble most: for messages.

use std::collections::BTreeSet;

use tch::Device;

use super::{Network, spec::ClassifierSpec, tensors::Arrays};

/// One small network of every family; depths and widths do not change the kinds of names.
const FAMILIES: [&str; 9] = [
    "wrn-16-1-swish",
    "wrn-16-1-classic",
    "preact-resnet18",
    "preact-resnet18-swish",
    "resnet20",
    "resnet18",
    "cnn-a",
    "resnet-2b",
    "resnet-4b",
];

/// What to say of `arrays`, which fit no architecture: the family with most kinds of names in
/// common. `None` where there is hardly anything in common.
pub(super) fn describe(arrays: &Arrays) -> Option<String> {
    let found = kinds(arrays.keys());
    let likeness = |name: &str| {
        let spec = ClassifierSpec { arch: name.to_owned(), dataset: "cifar10".into(), classes: 10 };
        let network = Network::blank(&spec, Device::Cpu).ok()?;
        let own = kinds(network.state().iter().map(|(name, _)| name));
        Some((own.intersection(&found).count(), own.union(&found).count()))
    };
    let ratio = |(shared, all): (usize, usize)| shared as f64 / all.max(1) as f64;
    let (name, (shared, _)) = FAMILIES
        .into_iter()
        .filter_map(|name| Some((name, likeness(name)?)))
        .max_by(|(_, a), (_, b)| ratio(*a).total_cmp(&ratio(*b)))?;
    let total = found.len();
    (4 * shared >= total).then(|| {
        format!("the closest family is that of {name} ({shared} of {total} kinds of names agree)")
    })
}

/// Names with their numbers blanked.
fn kinds<'a>(names: impl Iterator<Item = &'a String>) -> BTreeSet<String> {
    let blank = |part: &str| {
        let end = part.trim_end_matches(|c: char| c.is_ascii_digit());
        if end.is_empty() { "#".to_owned() } else { part.to_owned() }
    };
    names.map(|name| name.split('.').map(blank).collect::<Vec<_>>().join(".")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::array::Array;

    #[test]
    fn strangers_are_told_whom_they_resemble() {
        let arrays = |names: &[&str]| -> Arrays {
            let one = || Array::from_f32(&[1], &[1.0]).unwrap();
            names.iter().map(|name| ((*name).to_owned(), one())).collect()
        };
        let names = ["init_conv.weight", "layer.0.block.0.conv_0.weight", "logits.bias", "extra"];
        let text = describe(&arrays(&names)).unwrap();
        assert!(text.contains("wrn-16-1-swish (3 of 4"), "{text}");
        assert_eq!(describe(&arrays(&["features.0.weight", "classifier.weight"])), None);
    }
}

//! Finding the state dict of a classifier in a checkpoint, whoever wrote it, and telling the
//! architecture from names and shapes.

use tch::Device;

use super::tensors::{self, Named};
use crate::{
    error::{Error, Result},
    formats::tree::{self, Tree},
};

/// A state dict with its names as the bare network has them.
#[derive(Debug)]
pub struct StateDict {
    /// Tensors by name.
    pub named: Named,
    /// Whether the network stood second in a pair (`module.1.`): behind a normalisation.
    pub behind_normalisation: bool,
}

/// Where checkpoints keep their weights, best first: averaged weights before those of the last
/// step.
const PLACES: [&str; 12] = [
    "model_state_dict",
    "ema_state_dict",
    "state_dict_ema",
    "ema",
    "state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "params",
    "weights",
    "unaveraged_model_state_dict",
];

/// The state dict in `tree`: the tree itself, or the first of the known places, through lists
/// (their first entry) and maps.
///
/// # Errors
/// If there is none; the message says what there is.
pub fn state_dict(tree: &Tree) -> Result<StateDict> {
    let mut tree = tree;
    loop {
        match tree {
            Tree::List(items) if !items.is_empty() => tree = &items[0],
            Tree::Map(fields) if !fields.iter().any(|(_, value)| value.tensor().is_some()) => {
                let place = PLACES.iter().find_map(|place| tree.get(place));
                tree = place.ok_or_else(|| {
                    let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
                    Error::input(format!("no weights found; the file has {names:?}"))
                })?;
            }
            Tree::Map(_) | Tree::Object { .. } => return stripped(tree),
            other => return Err(Error::input(format!("no weights found, only {}", other.kind()))),
        }
    }
}

fn stripped(tree: &Tree) -> Result<StateDict> {
    let mut named = tree::flatten(tree);
    if named.is_empty() {
        return Err(Error::input("no weights found, only an object without tensors"));
    }
    let mut behind_normalisation = false;
    while let Some(prefix) = ["module.", "model.", "net.", "_orig_mod.", "0.", "1."]
        .into_iter()
        .find(|prefix| named.iter().all(|(name, _)| name.starts_with(prefix)))
    {
        behind_normalisation |= prefix == "1.";
        for (name, _) in &mut named {
            name.drain(..prefix.len());
        }
    }
    let named = named
        .into_iter()
        .map(|(name, array)| Ok((name, tensors::from_array(&array, Device::Cpu)?)))
        .collect::<Result<_>>()?;
    Ok(StateDict { named, behind_normalisation })
}

/// The architecture and the number of classes that `named` belongs to, if its names and shapes
/// tell. Nonlinearities leave no trace: wide networks are taken for Swish, as the paper's are, and
/// `cifar-small` for `cnn-a`.
pub fn infer(named: &Named) -> Option<(String, i64)> {
    let shape = |name: &str| named.get(name).map(tch::Tensor::size);
    let width = |name: &str| shape(name).and_then(|shape| shape.first().copied());
    let count = |prefix: &str| {
        let index = |name: &String| {
            name.strip_prefix(prefix)?.split('.').next()?.parse::<i64>().ok().map(|i| i + 1)
        };
        named.keys().filter_map(index).max().unwrap_or(0)
    };
    let preact = |prefix: &str| match count(prefix) {
        2 => Some(18),
        3 => Some(34),
        _ => None,
    };
    if shape("init_conv.weight").is_some() {
        let depth = 6 * count("layer.0.block.") + 4;
        let width_factor = width("layer.0.block.0.conv_0.weight")? / 16;
        return Some((format!("wrn-{depth}-{width_factor}-swish"), width("logits.weight")?));
    }
    if shape("conv_2d.weight").is_some() {
        let layers = preact("layer_0.")?;
        return Some((format!("preact-resnet{layers}-swish"), width("logits.weight")?));
    }
    if shape("layer4.0.bn1.weight").is_some() && shape("bn.weight").is_some() {
        return Some((format!("preact-resnet{}", preact("layer1.")?), width("linear.weight")?));
    }
    if shape("linear1.weight").is_some() && shape("conv1.bias").is_some() {
        let arch = if shape("layer2.0.conv1.weight").is_some() { "resnet-4b" } else { "resnet-2b" };
        return Some((arch.to_owned(), width("linear2.weight")?));
    }
    if shape("conv1.weight")? == [16, 3, 3, 3] && shape("layer3.0.bn2.weight").is_some() {
        return Some((format!("resnet{}", 6 * count("layer1.") + 2), width("linear.weight")?));
    }
    None
}

/// As [`infer`] for the networks whose layers have numbers for names.
pub fn infer_numbered(named: &Named) -> Option<(String, i64)> {
    let shape = |name: &str| named.get(name).map(tch::Tensor::size);
    let fits = named.len() == 8
        && shape("0.weight")? == [16, 3, 4, 4]
        && shape("2.weight")? == [32, 16, 4, 4];
    fits.then(|| shape("7.weight")).flatten().map(|head| ("cnn-a".to_owned(), head[0]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        formats::array::Array,
        net::{Network, spec::ClassifierSpec},
    };

    #[test]
    fn every_architecture_is_told_from_its_weights() {
        let archs = [
            "wrn-10-1-swish",
            "wrn-16-2-swish",
            "preact-resnet18",
            "preact-resnet18-swish",
            "resnet20",
            "resnet32",
            "resnet-2b",
            "resnet-4b",
            "cnn-a",
        ];
        for arch in archs {
            let (name, classes) = (arch.to_owned(), 7);
            let spec = ClassifierSpec { arch: name.clone(), dataset: "cifar10".into(), classes };
            let network = Network::blank(&spec, Device::Cpu).unwrap();
            let named: Named = network.state().into_iter().collect();
            let found = infer(&named).or_else(|| infer_numbered(&named));
            assert_eq!(found, Some((name, classes)));
        }
    }

    fn map(fields: Vec<(&str, Tree)>) -> Tree {
        Tree::Map(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    #[test]
    fn weights_are_found_where_people_keep_them() {
        let tensor = || Tree::Tensor(Array::from_f32(&[1], &[2.0]).unwrap());
        let names = |tree: &Tree| state_dict(tree).unwrap().named.into_keys().collect::<Vec<_>>();
        assert_eq!(names(&map(vec![("a.b", tensor())])), ["a.b"]);
        let wrapped = map(vec![("module.0.a", tensor()), ("module.0.b", tensor())]);
        let both = map(vec![("epoch", Tree::Int(3)), ("model_state_dict", wrapped)]);
        assert_eq!(names(&both), ["a", "b"]);
        let cascade =
            map(vec![("state_dict", Tree::List(vec![map(vec![("0.weight", tensor())])]))]);
        assert_eq!(names(&cascade), ["weight"]);
        let second = map(vec![("module.1.a", tensor())]);
        assert!(state_dict(&second).unwrap().behind_normalisation);
        let message = state_dict(&map(vec![("epoch", Tree::Int(3))])).unwrap_err().to_string();
        assert!(message.contains("epoch"), "{message}");
    }
}

//! Finding the state dict of a classifier in a checkpoint, whoever wrote it, and telling the
//! architecture from names and shapes.

use super::{arch::BARE, tensors::Arrays};
use crate::{
    error::{Error, Result},
    formats::{
        array::Array,
        tree::{self, Tree},
    },
};

/// A state dict with its names as the bare network has them.
#[derive(Debug)]
pub struct StateDict {
    /// Arrays by name.
    pub arrays: Arrays,
    /// What stood before the network, if anything did.
    pub normalisation: Normalisation,
}

/// A normalisation of the images in front of a network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Normalisation {
    /// None, or the one that the architecture has anyway.
    Inside,
    /// One without numbers in the file (the network stood second in a pair, `module.1.`).
    Before,
    /// One with these means and deviations; whether it stood in a layer of its own before the
    /// network, rather than beside the network's layers.
    Given([[f64; 3]; 2], bool),
}

/// Where checkpoints keep their weights, best first: averaged weights before those of the last
/// step.
const PLACES: [&str; 17] = [
    "model_state_dict",
    "ema_state_dict",
    "state_dict_ema",
    "ema",
    "model_ema",
    "state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "shadow",
    "params",
    "params_ema",
    "weights",
    // Beside `best`: RobustBench takes the last ones.
    "last",
    "unaveraged_model_state_dict",
];

/// The state dict in `tree`: what is called `chosen` (a dotted path), or else the tree itself or
/// the first of the known places, through lists (their first entry) and maps.
///
/// # Errors
/// If there is none; the message says what there is.
pub fn state_dict(tree: &Tree, chosen: Option<&str>) -> Result<StateDict> {
    let mut tree = tree;
    if let Some(path) = chosen {
        for part in path.split('.') {
            let next = match tree {
                Tree::List(items) => part.parse::<usize>().ok().and_then(|i| items.get(i)),
                _ => tree.get(part),
            };
            tree = next.ok_or_else(|| nothing(tree, &format!("no `{part}`")))?;
        }
    }
    loop {
        match tree {
            Tree::List(items) if !items.is_empty() => tree = &items[0],
            Tree::Map(fields) => match place(tree, fields) {
                Some(place) => tree = place,
                None if fields.iter().any(|(_, value)| holds_arrays(value)) => {
                    return stripped(tree);
                }
                None => return Err(nothing(tree, "no weights found")),
            },
            Tree::Object { .. } => return stripped(tree),
            other => return Err(Error::input(format!("no weights found, only {}", other.kind()))),
        }
    }
}

/// The field of a map that holds the weights, if it is not the map itself: one of the known
/// places, or the only one besides what optimisers leave.
fn place<'a>(tree: &'a Tree, fields: &'a [(String, Tree)]) -> Option<&'a Tree> {
    let nested = |value: &Tree| value.tensor().is_none() && holds_arrays(value);
    if let Some(known) = PLACES.iter().filter_map(|name| tree.get(name)).find(|v| nested(v)) {
        return Some(known);
    }
    let arrays = fields.iter().filter(|(_, value)| value.tensor().is_some()).count();
    let beside = ["optim", "sched", "scaler", "rng", "amp"];
    let mut candidates = fields.iter().filter(|(name, value)| {
        nested(value) && !beside.iter().any(|part| name.to_lowercase().contains(part))
    });
    match (candidates.next(), candidates.next()) {
        (Some((_, only)), None) if arrays == 0 => Some(only),
        _ => None,
    }
}

fn holds_arrays(tree: &Tree) -> bool {
    match tree {
        Tree::Tensor(_) => true,
        Tree::List(items) => items.iter().any(holds_arrays),
        Tree::Map(fields) | Tree::Object { fields, .. } => {
            fields.iter().any(|(_, value)| holds_arrays(value))
        }
        _ => false,
    }
}

fn nothing(tree: &Tree, what: &str) -> Error {
    let (Tree::Map(fields) | Tree::Object { fields, .. }) = tree else {
        return Error::input(format!("{what}, only {}", tree.kind()));
    };
    let mut names: Vec<_> = fields.iter().take(20).map(|(name, _)| format!("`{name}`")).collect();
    if fields.len() > names.len() {
        names.push(format!("{} more", fields.len() - names.len()));
    }
    Error::input(format!("{what}; the file has {}", names.join(", ")))
}

/// What wrappers put before every name.
const PREFIXES: [&str; 12] = [
    "module.",
    "model.",
    "net.",
    "network.",
    "backbone.",
    "base_model.",
    "basic_net.",
    "attacker.model.",
    "basic_model.",
    "_orig_mod.",
    "0.",
    "1.",
];

fn stripped(tree: &Tree) -> Result<StateDict> {
    let mut named = tree::flatten(tree);
    if named.is_empty() {
        return Err(Error::input("no weights found, only an object without tensors"));
    }
    let given = take_normalisation(&mut named);
    let mut second = false;
    while let Some(prefix) =
        PREFIXES.into_iter().find(|prefix| named.iter().all(|(name, _)| name.starts_with(prefix)))
    {
        second |= prefix == "1.";
        for (name, _) in &mut named {
            name.drain(..prefix.len());
        }
    }
    // Networks of TRADES carry a second first block that they never use.
    if named.iter().any(|(name, _)| name.starts_with("block1.layer.")) {
        named.retain(|(name, _)| !name.starts_with("sub_block1."));
    }
    let normalisation = match given {
        Some((beside, values)) => Normalisation::Given(values, !beside),
        None if second => Normalisation::Before,
        None => Normalisation::Inside,
    };
    Ok(StateDict { arrays: named.into_iter().collect(), normalisation })
}

/// Takes mean and deviation of a normalisation out of `named`, and whether they stood beside the
/// network's own layers rather than in a layer of their own.
fn take_normalisation(named: &mut Vec<(String, Array)>) -> Option<(bool, [[f64; 3]; 2])> {
    let values = |ends: [&str; 2]| {
        let found = named.iter().find(|(name, array)| {
            array.len() == 3 && ends.contains(&name.rsplit('.').next().unwrap_or(name))
        })?;
        Some((found.0.clone(), <[f64; 3]>::try_from(found.1.to_f64()).ok()?))
    };
    let (mean_name, mean) = values(["mean", "mu"])?;
    let (deviation_name, deviation) = values(["std", "sigma"])?;
    named.retain(|(name, _)| *name != mean_name && *name != deviation_name);
    let layer = &mean_name[..mean_name.rfind('.').map_or(0, |dot| dot + 1)];
    let beside = named.iter().all(|(name, _)| name.starts_with(layer));
    Some((beside, [mean, deviation]))
}

/// The architecture and the number of classes that `named` belongs to, if its names and shapes
/// tell. Nonlinearities leave no trace: wide networks are taken for Swish, as the paper's are, and
/// `cifar-small` for `cnn-a`, which a caller tells apart by the list around it.
pub fn infer(named: &Arrays) -> Option<(String, i64)> {
    let shape = |name: &str| named.get(name).map(Array::shape);
    let width = |name: &str| shape(name)?.first().map(|&width| width as i64);
    let count = |prefix: &str| {
        let index = |name: &String| {
            name.strip_prefix(prefix)?.split('.').next()?.parse::<i64>().ok().map(|i| i + 1)
        };
        named.keys().filter_map(index).max().unwrap_or(0)
    };
    // How many layers so many blocks in the first, third and fourth stage make.
    let layers = |first: &str, third: &str, three: bool| match (count(first), count(third), three) {
        (2, 2, false) => Some(18),
        (3, 6, false) => Some(34),
        (3, 6, true) => Some(50),
        (3, 23, true) => Some(101),
        (3, 36, true) => Some(152),
        _ => None,
    };
    let three = shape("layer1.0.conv3.weight").is_some();
    if shape("init_conv.weight").is_some() {
        let depth = 6 * count("layer.0.block.") + 4;
        let width_factor = width("layer.0.block.0.conv_0.weight")? / 16;
        return Some((format!("wrn-{depth}-{width_factor}-swish"), width("logits.weight")?));
    }
    if shape("block1.layer.0.conv1.weight").is_some() {
        let depth = 6 * count("block1.layer.") + 4;
        let width_factor = width("block1.layer.0.conv1.weight")? / 16;
        return Some((format!("wrn-{depth}-{width_factor}-classic"), width("fc.weight")?));
    }
    if shape("conv_2d.weight").is_some() {
        let layers = layers("layer_0.", "layer_2.", false)?;
        return Some((format!("preact-resnet{layers}-swish"), width("logits.weight")?));
    }
    if shape("layer4.0.bn1.weight").is_some() && shape("conv1.weight").is_some() {
        let layers = layers("layer1.", "layer3.", three)?;
        let normed = |name: &str| shape(name).is_some();
        let arch = match (normed("bn1.weight"), normed("bn.weight")) {
            (true, _) => format!("resnet{layers}"),
            (false, true) => format!("preact-resnet{layers}"),
            (false, false) => format!("preact-resnet{layers}{BARE}"),
        };
        return Some((arch, width("linear.weight")?));
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
pub fn infer_numbered(named: &Arrays) -> Option<(String, i64)> {
    let shape = |name: &str| named.get(name).map(Array::shape);
    let fits = named.len() == 8
        && shape("0.weight")? == [16, 3, 4, 4]
        && shape("2.weight")? == [32, 16, 4, 4];
    fits.then(|| shape("7.weight")).flatten().map(|head| ("cnn-a".to_owned(), head[0] as i64))
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::net::{Network, spec::ClassifierSpec, tensors};

    #[test]
    fn every_architecture_is_told_from_its_weights() {
        let archs = [
            "wrn-10-1-swish",
            "wrn-16-2-swish",
            "wrn-16-3-classic",
            "resnet18",
            "resnet34",
            "resnet50",
            "resnet101",
            "preact-resnet18",
            "preact-resnet18-bare",
            "preact-resnet50",
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
            let arrays = network.state().into_iter();
            let named: Arrays =
                arrays.map(|(name, tensor)| (name, tensors::to_array(&tensor).unwrap())).collect();
            let found = infer(&named).or_else(|| infer_numbered(&named));
            assert_eq!(found, Some((name, classes)));
        }
    }

    fn map(fields: Vec<(&str, Tree)>) -> Tree {
        Tree::Map(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn one() -> Tree {
        Tree::Tensor(Array::from_f32(&[1], &[2.0]).unwrap())
    }

    fn names(tree: &Tree) -> Vec<String> {
        state_dict(tree, None).unwrap().arrays.into_keys().collect()
    }

    #[test]
    fn weights_are_found_where_people_keep_them() {
        assert_eq!(names(&map(vec![("a.b", one())])), ["a.b"]);
        let wrapped = || map(vec![("module.0.a", one()), ("module.0.b", one())]);
        let last = map(vec![("module.0.c", one())]);
        let both = map(vec![
            ("epoch", Tree::Int(3)),
            ("unaveraged_model_state_dict", last),
            ("model_state_dict", wrapped()),
        ]);
        assert_eq!(names(&both), ["a", "b"]);
        let chosen = state_dict(&both, Some("unaveraged_model_state_dict")).unwrap();
        assert!(chosen.arrays.contains_key("c"));
        let missing = state_dict(&both, Some("ema")).unwrap_err().to_string();
        assert!(
            missing.contains("no `ema`") && missing.contains("`model_state_dict`"),
            "{missing}"
        );
        let cascade = map(vec![("state_dict", Tree::List(vec![map(vec![("0.weight", one())])]))]);
        assert_eq!(names(&cascade), ["weight"]);
        let optimiser = || map(vec![("0", map(vec![("momentum_buffer", one())]))]);
        // Numbers kept as tensors beside the weights; a name that nobody has heard of.
        for place in ["net", "model", "params_ema", "my_student"] {
            let scalar = if place == "my_student" { Tree::Float(0.5) } else { one() };
            let checkpoint = map(vec![
                ("best_acc", scalar),
                ("optimizer", optimiser()),
                (place, map(vec![("module.model.a", one()), ("module.model.b", one())])),
            ]);
            assert_eq!(names(&checkpoint), ["a", "b"], "{place}");
        }
        let tuple = Tree::List(vec![wrapped(), optimiser()]);
        assert_eq!(names(&tuple), ["a", "b"]);
        let compiled = map(vec![("_orig_mod.module.a", one())]);
        assert_eq!(names(&compiled), ["a"]);
        let message = state_dict(&map(vec![("epoch", Tree::Int(3))]), None).unwrap_err();
        assert!(message.to_string().contains("epoch"), "{message}");
    }

    #[test]
    fn normalisations_before_the_network_are_noticed() {
        let numbers = |a: f32| Tree::Tensor(Array::from_f32(&[1, 3, 1, 1], &[a; 3]).unwrap());
        let of = |fields| {
            let state = state_dict(&map(fields), None).unwrap();
            (state.arrays.into_keys().collect::<Vec<_>>(), state.normalisation)
        };
        let given = |before| Normalisation::Given([[0.5; 3], [0.25; 3]], before);
        assert_eq!(of(vec![("module.1.a", one())]), (vec!["a".into()], Normalisation::Before));
        let pair = vec![
            ("module.0.mean", numbers(0.5)),
            ("module.0.std", numbers(0.25)),
            ("module.1.a", one()),
        ];
        assert_eq!(of(pair), (vec!["a".into()], given(true)));
        let named = vec![
            ("normalize.mu", numbers(0.5)),
            ("normalize.sigma", numbers(0.25)),
            ("model.conv1", one()),
        ];
        assert_eq!(of(named), (vec!["conv1".into()], given(true)));
        let own = vec![("mean", numbers(0.5)), ("std", numbers(0.25)), ("init_conv.weight", one())];
        assert_eq!(of(own), (vec!["init_conv.weight".into()], given(false)));
        let unused = vec![("block1.layer.0.a", one()), ("sub_block1.layer.0.a", one())];
        assert_eq!(of(unused), (vec!["block1.layer.0.a".into()], Normalisation::Inside));
    }
}

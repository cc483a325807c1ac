//! Networks as EDM pickles them: class names, constructor arguments and weights. The source code
//! in such files is neither run nor read.
//!
//! Source: NVlabs/edm, torch_utils/persistence.py.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{
    error::{Error, Result},
    formats::{
        array::Array,
        bytes::Bytes,
        in_file,
        tree::{self, Tree},
    },
};

/// A network of an EDM pickle.
#[derive(Debug, Clone)]
pub struct Network {
    /// The outermost module's class: `EDMPrecond`.
    pub class: String,
    /// The arguments it was made with: the whole architecture.
    pub arguments: Map<String, Value>,
    /// All modules with a class of their own, outermost (name `""`) first.
    pub modules: Vec<Module>,
    /// Parameters and buffers by the names of `state_dict()`, in file order.
    pub tensors: Vec<(String, Array)>,
    /// What the file says on the training images (`dataset_kwargs`), if it does.
    pub dataset: Map<String, Value>,
}

/// One module of a network.
#[derive(Debug, Clone)]
pub struct Module {
    /// Dotted name inside the network: `model.enc.32x32_conv`.
    pub name: String,
    /// Its class.
    pub class: String,
    /// The arguments it was made with.
    pub arguments: Map<String, Value>,
    /// Its plain fields: numbers, text, lists of these.
    pub fields: Map<String, Value>,
}

/// Reads the network called `which` (`ema` in EDM's files) of the pickle at `path`.
///
/// # Errors
/// If the pickle is bad, asks for names that gauntlet does not know, or has no such network.
pub fn read(path: &Path, which: &str) -> Result<Network> {
    let bytes = Bytes::map(path)?;
    in_file(path, tree::pickled(&bytes, tree::ALL_NAMES).and_then(|tree| network(&tree, which)))
}

/// The network called `which` in a tree that was read before.
///
/// # Errors
/// If there is none.
pub fn network(tree: &Tree, which: &str) -> Result<Network> {
    let Tree::Map(fields) = tree else {
        return Err(Error::input(format!(
            "expected a dictionary with `{which}`, found {}",
            tree.kind()
        )));
    };
    let Some(root @ Tree::Object { class, fields: state }) = tree.get(which) else {
        let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Error::input(format!("no network `{which}`; the file has {names:?}")));
    };
    let mut modules = Vec::new();
    collect_modules(root, "", &mut modules);
    let mut tensors = Vec::new();
    collect_tensors(state, "", &mut tensors);
    let dataset = tree.get("dataset_kwargs").map_or_else(Map::new, plain_fields);
    Ok(Network { class: class.clone(), arguments: arguments(root), modules, tensors, dataset })
}

fn arguments(module: &Tree) -> Map<String, Value> {
    module.get("_init_kwargs").map_or_else(Map::new, plain_fields)
}

fn joined(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

fn children<'a>(module: &'a Tree, part: &str) -> &'a [(String, Tree)] {
    match module.get(part) {
        Some(Tree::Map(fields)) => fields,
        _ => &[],
    }
}

fn collect_modules(module: &Tree, name: &str, found: &mut Vec<Module>) {
    let Tree::Object { class, fields } = module else { return };
    let inner = ["_parameters", "_buffers", "_modules", "_init_kwargs", "_init_args"];
    let fields = fields
        .iter()
        .filter(|(key, _)| !inner.contains(&key.as_str()))
        .filter_map(|(key, value)| Some((key.clone(), plain(value)?)))
        .collect();
    found.push(Module {
        name: name.to_owned(),
        class: class.clone(),
        arguments: arguments(module),
        fields,
    });
    for (child, value) in children(module, "_modules") {
        collect_modules(value, &joined(name, child), found);
    }
}

/// Parameters, then buffers, then children: the order of `state_dict()`.
fn collect_tensors(state: &[(String, Tree)], prefix: &str, found: &mut Vec<(String, Array)>) {
    let part = |name: &str| match state.iter().find(|(key, _)| key == name) {
        Some((_, Tree::Map(fields))) => fields.as_slice(),
        _ => &[],
    };
    for (name, value) in part("_parameters").iter().chain(part("_buffers")) {
        if let Tree::Tensor(array) = value {
            found.push((joined(prefix, name), array.clone()));
        }
    }
    for (name, child) in part("_modules") {
        if let Tree::Object { fields, .. } = child {
            collect_tensors(fields, &joined(prefix, name), found);
        }
    }
}

fn plain_fields(tree: &Tree) -> Map<String, Value> {
    match plain(tree) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// JSON for plain values; `None` for arrays, bytes and objects.
fn plain(tree: &Tree) -> Option<Value> {
    Some(match tree {
        Tree::Null => Value::Null,
        Tree::Bool(value) => Value::from(*value),
        Tree::Int(value) => Value::from(*value),
        Tree::Float(value) => Value::from(*value),
        Tree::Text(text) => Value::from(&**text),
        Tree::List(items) => Value::Array(items.iter().map(plain).collect::<Option<_>>()?),
        Tree::Map(fields) => Value::Object(
            fields.iter().filter_map(|(key, value)| Some((key.clone(), plain(value)?))).collect(),
        ),
        Tree::Bytes(_) | Tree::Object { .. } | Tree::Tensor(_) => return None,
    })
}

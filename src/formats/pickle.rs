//! A Python pickle as an inert tree: what it asks for is recorded by name, never done.
//!
//! The nodes lie in one table and refer to each other by number, because pickles share and even
//! contain themselves. [`crate::formats::opcodes`] fills the table.

use std::sync::Arc;

use crate::formats::bytes::Bytes;

/// The number of a node in its [`Pickle`].
pub type Id = u32;

/// One value of a pickle.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A longer integer: two's complement, little-endian.
    Long(Bytes),
    /// A real number.
    Float(f64),
    /// Text.
    Str(Arc<str>),
    /// Bytes; also the text of Python 2, whose strings are bytes.
    Bytes(Bytes),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A list.
    List(Vec<Id>),
    /// A set or a frozen set.
    Set(Vec<Id>),
    /// A dictionary in file order; of equal keys the last one counts.
    Dict(Vec<(Id, Id)>),
    /// A class or function by its full name, one of those the caller allows.
    Global(Arc<str>),
    /// What calling a global with arguments would make.
    Object(Box<Object>),
    /// A reference to something outside the pickle: a torch storage.
    Persistent(Id),
}

/// The record of a call: never carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Full name of the class or function.
    pub class: Arc<str>,
    /// The tuple of arguments: shared, not copied, or calls could multiply it.
    pub args: Id,
    /// What `__setstate__` would get.
    pub state: Option<Id>,
    /// What would be appended.
    pub items: Vec<Id>,
    /// What would be set by key.
    pub pairs: Vec<(Id, Id)>,
}

/// A parsed pickle.
#[derive(Debug, Clone)]
pub struct Pickle {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Id,
    /// Opcodes read: what the work on this pickle may be proportional to.
    pub(super) steps: u64,
    /// Bytes of text in it, for the same end.
    pub(super) text: u64,
}

impl Pickle {
    /// The outermost value.
    pub fn root(&self) -> Id {
        self.root
    }

    /// The value numbered `id`.
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    /// All values, in order of their numbers.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// How much looking at this pickle may cost at most: a bound for walks, since a small pickle
    /// can share its way to an enormous tree.
    pub(super) fn budget(&self) -> u64 {
        2 * self.steps + self.text + 10_000
    }

    /// Text, also that of Python 2.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Str(text) => Some(text),
            Node::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// An integer; booleans count as 0 and 1, as in Python.
    pub fn int(&self, id: Id) -> Option<i64> {
        match self.node(id) {
            Node::Int(value) => Some(*value),
            Node::Bool(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    /// The items of a tuple or a list.
    pub fn items(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::Tuple(items) | Node::List(items) => Some(items),
            _ => None,
        }
    }

    /// A tuple or list of sizes: each an integer of zero or more.
    pub fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        let items = match self.node(id) {
            // torch.Size((2, 3)) is a call with one tuple.
            Node::Object(object) if &*object.class == "torch.Size" => {
                self.items(*self.items(object.args)?.first()?)?
            }
            _ => self.items(id)?,
        };
        items.iter().map(|&item| usize::try_from(self.int(item)?).ok()).collect()
    }

    /// The class and arguments of a call.
    pub fn call(&self, id: Id) -> Option<(&str, &[Id])> {
        match self.node(id) {
            Node::Object(object) => Some((&object.class, self.items(object.args)?)),
            _ => None,
        }
    }

    /// What kind of thing `id` is, for messages.
    pub fn kind(&self, id: Id) -> String {
        match self.node(id) {
            Node::None => "None".into(),
            Node::Bool(_) => "a boolean".into(),
            Node::Int(_) | Node::Long(_) => "an integer".into(),
            Node::Float(_) => "a real number".into(),
            Node::Str(_) => "text".into(),
            Node::Bytes(_) => "bytes".into(),
            Node::Tuple(_) => "a tuple".into(),
            Node::List(_) => "a list".into(),
            Node::Set(_) => "a set".into(),
            Node::Dict(_) => "a dictionary".into(),
            Node::Global(name) => format!("the name `{name}`"),
            Node::Object(object) => format!("an object of `{}`", object.class),
            Node::Persistent(_) => "a storage".into(),
        }
    }
}

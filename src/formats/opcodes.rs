//! The stack machine of Python's pickles, protocols 0 to 5, without Python: it builds nodes and
//! refuses every name that is not on the caller's list.
//!
//! Longer than most files because the opcodes are one table (Python's `pickletools.py` documents
//! them). Nothing recurses, every opcode makes at most one node, and byte strings stay windows of
//! the input, so time and memory are proportional to the input.

use std::{collections::HashMap, sync::Arc};

use crate::{
    error::Result,
    formats::{
        bytes::Bytes,
        names,
        pickle::{Id, Node, Object, Pickle},
        reader::{Reader, long, python_literal, raw_unicode, shorten},
    },
};

/// More values than any real file has outside its byte strings.
const MOST_NODES: usize = 4_000_000;

/// Reads one pickle from the start of `input`; also says how many bytes it took. `allowed` lists
/// the full names (`collections.OrderedDict`) of the globals that may occur.
///
/// # Errors
/// If the pickle is cut short, malformed, too large, or asks for a global that is not allowed.
pub fn parse(input: &Bytes, allowed: &[&str]) -> Result<(Pickle, usize)> {
    let mut machine = Machine {
        reader: Reader::new(input),
        allowed,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        globals: HashMap::new(),
        steps: 0,
        text: 0,
    };
    loop {
        machine.reader.begin_opcode();
        machine.steps += 1;
        let opcode = machine.reader.byte()?;
        if opcode == b'.' {
            let root = machine.pop()?;
            let Machine { nodes, steps, text, reader, .. } = machine;
            return Ok((Pickle { nodes, root, steps, text }, reader.position()));
        }
        machine.step(opcode)?;
    }
}

struct Machine<'a> {
    reader: Reader<'a>,
    allowed: &'a [&'a str],
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack where marks were set.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// One shared name for each global that occurs.
    globals: HashMap<String, Arc<str>>,
    steps: u64,
    text: u64,
}

impl Machine<'_> {
    fn step(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            // The frame of protocol 4 is only a hint for reading ahead.
            0x95 => self.reader.take(8).map(drop),
            0x80 => match self.reader.byte()? {
                0..=5 => Ok(()),
                other => self.reader.wrong(format!("protocol {other}; known are 0 to 5")),
            },
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop_or_mark(),
            b'1' => self.pop_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
                Ok(())
            }
            b'g' | b'h' | b'j' | b'p' | b'q' | b'r' | 0x94 => self.memoize(opcode),
            b'I' | b'J' | b'K' | b'L' | b'M' | b'F' | b'G' | 0x8a | 0x8b => self.number(opcode),
            b'S' | b'T' | b'U' | b'V' | b'X' | b'B' | b'C' | 0x8c | 0x8d | 0x8e | 0x96 => {
                self.string(opcode)
            }
            b'c' | b'i' | b'o' | b'R' | b'b' | b'P' | b'Q' | 0x81 | 0x92 | 0x93 => {
                self.object(opcode)
            }
            0x82..=0x84 => self.reader.wrong("an extension code; gauntlet knows none; refused"),
            0x97 => self.reader.wrong("a buffer outside the pickle; there is none"),
            0x98 => self.top().map(drop), // a buffer becomes read-only: ours always are
            _ => self.container(opcode),
        }
    }

    fn container(&mut self, opcode: u8) -> Result<()> {
        let node = match opcode {
            b'N' => Node::None,
            0x88 => Node::Bool(true),
            0x89 => Node::Bool(false),
            b')' => Node::Tuple(Vec::new()),
            b']' => Node::List(Vec::new()),
            b'}' => Node::Dict(Vec::new()),
            0x8f => Node::Set(Vec::new()),
            b't' => Node::Tuple(self.pop_mark()?),
            b'l' => Node::List(self.pop_mark()?),
            0x91 => Node::Set(self.pop_mark()?),
            b'd' => {
                let items = self.pop_mark()?;
                Node::Dict(self.paired(&items)?)
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let mut items = Vec::with_capacity(count);
                for _ in 0..count {
                    items.push(self.pop()?);
                }
                items.reverse();
                Node::Tuple(items)
            }
            b'a' => {
                let item = self.pop()?;
                return self.append(&[item]);
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                return self.append(&items);
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                return self.set(&[key, value]);
            }
            b'u' => {
                let items = self.pop_mark()?;
                return self.set(&items);
            }
            other => return self.reader.wrong(format!("opcode {other:#04x} does not exist")),
        };
        self.push(node)
    }

    fn number(&mut self, opcode: u8) -> Result<()> {
        let node = match opcode {
            b'K' => Node::Int(i64::from(self.reader.byte()?)),
            b'M' => Node::Int(i64::from(u16::from_le_bytes(self.reader.fixed()?))),
            b'J' => Node::Int(i64::from(i32::from_le_bytes(self.reader.fixed()?))),
            b'G' => Node::Float(f64::from_be_bytes(self.reader.fixed()?)),
            0x8a => {
                let length = usize::from(self.reader.byte()?);
                long(self.reader.take(length)?)
            }
            0x8b => {
                let length = i32::from_le_bytes(self.reader.fixed()?);
                let Ok(length) = usize::try_from(length) else {
                    return self.reader.wrong("an integer of negative length");
                };
                long(self.reader.take(length)?)
            }
            _ => {
                let line = self.reader.line()?;
                let digits = line.strip_suffix('L').unwrap_or(&line);
                let node = match (opcode, line.as_str()) {
                    (b'I', "00") => Some(Node::Bool(false)),
                    (b'I', "01") => Some(Node::Bool(true)),
                    (b'F', text) => text.parse().ok().map(Node::Float),
                    _ => digits.parse().ok().map(Node::Int),
                };
                match node {
                    Some(node) => node,
                    None => {
                        return self.reader.wrong(format!("`{}` is not a number", shorten(&line)));
                    }
                }
            }
        };
        self.push(node)
    }

    fn string(&mut self, opcode: u8) -> Result<()> {
        let length = match opcode {
            b'S' => {
                let line = self.reader.line()?;
                let Some(bytes) = python_literal(&line) else {
                    return self.reader.wrong("a string without its quotes");
                };
                return self.push(Node::Bytes(bytes.into()));
            }
            b'V' => {
                let line = self.reader.line()?;
                let text = raw_unicode(&line);
                self.text += text.len() as u64;
                return self.push(Node::Str(text.into()));
            }
            b'U' | b'C' | 0x8c => u64::from(self.reader.byte()?),
            b'T' | b'B' | b'X' => u64::from(u32::from_le_bytes(self.reader.fixed()?)),
            _ => u64::from_le_bytes(self.reader.fixed()?),
        };
        let Ok(length) = usize::try_from(length) else {
            return self.reader.wrong(format!("a string of {length} bytes"));
        };
        let bytes = self.reader.take(length)?;
        if !matches!(opcode, b'X' | 0x8c | 0x8d) {
            return self.push(Node::Bytes(bytes));
        }
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return self.reader.wrong("text that is not UTF-8");
        };
        self.text += text.len() as u64;
        self.push(Node::Str(text.into()))
    }

    fn memoize(&mut self, opcode: u8) -> Result<()> {
        let index = match opcode {
            0x94 => self.memo.len() as u64,
            b'h' | b'q' => u64::from(self.reader.byte()?),
            b'j' | b'r' => u64::from(u32::from_le_bytes(self.reader.fixed()?)),
            _ => {
                let line = self.reader.line()?;
                match line.parse() {
                    Ok(index) => index,
                    Err(_) => return self.reader.wrong(format!("memo `{}`", shorten(&line))),
                }
            }
        };
        if matches!(opcode, b'g' | b'h' | b'j') {
            let Some(&id) = self.memo.get(&index) else {
                return self.reader.wrong(format!("memo {index} was never stored"));
            };
            self.stack.push(id);
        } else {
            let top = self.top()?;
            self.memo.insert(index, top);
        }
        Ok(())
    }

    fn object(&mut self, opcode: u8) -> Result<()> {
        let node = match opcode {
            b'c' => {
                let (module, name) = (self.reader.line()?, self.reader.line()?);
                Node::Global(self.global(&module, &name)?)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.string_of(module), self.string_of(name)) {
                    (Some(module), Some(name)) => Node::Global(self.global(&module, &name)?),
                    _ => return self.reader.wrong("a global whose name is not text"),
                }
            }
            b'i' => {
                let (module, name) = (self.reader.line()?, self.reader.line()?);
                let class = self.global(&module, &name)?;
                let args = self.pop_mark()?;
                called(class, self.aside(Node::Tuple(args))?)
            }
            b'o' => {
                let mut args = self.pop_mark()?;
                if args.is_empty() {
                    return self.reader.wrong("an object without a class");
                }
                let class = self.callable(args.remove(0))?;
                called(class, self.aside(Node::Tuple(args))?)
            }
            b'R' | 0x81 => {
                let (args, class) = (self.pop()?, self.pop()?);
                called(self.callable(class)?, self.tuple(args)?)
            }
            0x92 => {
                let (keywords, args, class) = (self.pop()?, self.pop()?, self.pop()?);
                if !matches!(self.node(keywords), Node::Dict(pairs) if pairs.is_empty()) {
                    return self.reader.wrong("an object made with keyword arguments; refused");
                }
                called(self.callable(class)?, self.tuple(args)?)
            }
            b'P' => {
                let line = self.reader.line()?;
                Node::Persistent(self.aside(Node::Str(line.as_str().into()))?)
            }
            b'Q' => Node::Persistent(self.pop()?),
            _ => return self.build(),
        };
        self.push(node)
    }

    fn build(&mut self) -> Result<()> {
        let state = self.pop()?;
        let top = self.top()?;
        match &mut self.nodes[top as usize] {
            Node::Object(object) if object.state.is_none() => {
                object.state = Some(state);
                Ok(())
            }
            Node::Object(_) => self.reader.wrong("an object whose state is set twice"),
            _ => self.reader.wrong("state for something that is not an object"),
        }
    }

    /// The shared full name of an allowed global.
    fn global(&mut self, module: &str, name: &str) -> Result<Arc<str>> {
        let full = format!("{module}.{name}");
        if let Some(known) = self.globals.get(&full) {
            return Ok(Arc::clone(known));
        }
        // Compared in two parts, so that no dot inside a part can imitate another name.
        let split = |known: &str| known.rsplit_once('.') == Some((module, name));
        let own = module.starts_with("__torch__") && self.allowed.contains(&names::OWN_CLASSES);
        if !own && !self.allowed.iter().any(|known| split(known)) {
            let a_class = name.starts_with(|first: char| first.is_ascii_uppercase());
            let hint = if a_class && !module.starts_with("torch") {
                " (of a whole pickled object, save its state_dict(), or a model as TorchScript)"
            } else {
                ""
            };
            return self.reader.wrong(format!(
                "the pickle asks for `{}`, which gauntlet does not know; refused{hint}",
                shorten(&full)
            ));
        }
        let shared: Arc<str> = full.as_str().into();
        self.globals.insert(full, Arc::clone(&shared));
        Ok(shared)
    }

    fn callable(&self, id: Id) -> Result<Arc<str>> {
        match self.node(id) {
            Node::Global(name) => Ok(Arc::clone(name)),
            _ => self.reader.wrong("a call of something that is not a known name; refused"),
        }
    }

    fn tuple(&self, id: Id) -> Result<Id> {
        match self.node(id) {
            Node::Tuple(_) => Ok(id),
            _ => self.reader.wrong("a call whose arguments are not a tuple"),
        }
    }

    fn string_of(&self, id: Id) -> Option<Arc<str>> {
        match self.node(id) {
            Node::Str(text) => Some(Arc::clone(text)),
            _ => None,
        }
    }

    fn append(&mut self, items: &[Id]) -> Result<()> {
        let top = self.top()?;
        match &mut self.nodes[top as usize] {
            Node::List(list) | Node::Set(list) => list.extend_from_slice(items),
            Node::Object(object) => object.items.extend_from_slice(items),
            _ => return self.reader.wrong("items for something that is not a list"),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Result<()> {
        let pairs = self.paired(items)?;
        let top = self.top()?;
        match &mut self.nodes[top as usize] {
            Node::Dict(dict) => dict.extend(pairs),
            Node::Object(object) => object.pairs.extend(pairs),
            _ => return self.reader.wrong("keys for something that is not a dictionary"),
        }
        Ok(())
    }

    fn paired(&self, items: &[Id]) -> Result<Vec<(Id, Id)>> {
        let (pairs, []) = items.as_chunks::<2>() else {
            return self.reader.wrong("a dictionary with a key but no value");
        };
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    }

    fn push(&mut self, node: Node) -> Result<()> {
        if self.nodes.len() >= MOST_NODES {
            return self.reader.wrong(format!("more than {MOST_NODES} values; refused"));
        }
        self.stack.push(self.nodes.len() as Id);
        self.nodes.push(node);
        Ok(())
    }

    /// A node that does not stay on the stack.
    fn aside(&mut self, node: Node) -> Result<Id> {
        self.push(node)?;
        Ok(self.stack.pop().expect("just pushed"))
    }

    fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    /// The topmost value above the last mark.
    fn top(&self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&id) if self.stack.len() > floor => Ok(id),
            _ => self.reader.wrong("a value is needed, but the stack is empty"),
        }
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// Python's POP also removes a mark that lies on top.
    fn pop_or_mark(&mut self) -> Result<()> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.split_off(height)),
            None => self.reader.wrong("a mark is needed, but none was set"),
        }
    }
}

fn called(class: Arc<str>, args: Id) -> Node {
    let (items, pairs) = (Vec::new(), Vec::new());
    Node::Object(Box::new(Object { class, args, state: None, items, pairs }))
}

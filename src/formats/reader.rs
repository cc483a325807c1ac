//! The bytes of a pickle, taken piece by piece, and the literals of its text protocol.

use crate::{
    error::{Error, Result},
    formats::{bytes::Bytes, pickle::Node},
};

/// Where we are in a pickle.
pub(super) struct Reader<'a> {
    input: &'a Bytes,
    at: usize,
    opcode_at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a Bytes) -> Self {
        Self { input, at: 0, opcode_at: 0 }
    }

    /// Remembers that an opcode begins here: the place that errors name.
    pub(super) fn begin_opcode(&mut self) {
        self.opcode_at = self.at;
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn wrong<T>(&self, what: impl std::fmt::Display) -> Result<T> {
        Err(Error::input(format!("pickle, byte {}: {what}", self.opcode_at)))
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        Ok(self.fixed::<1>()?[0])
    }

    pub(super) fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.input.get(self.at..).and_then(<[u8]>::first_chunk::<N>) {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => self.cut(N),
        }
    }

    pub(super) fn take(&mut self, length: usize) -> Result<Bytes> {
        match self.input.window(self.at, length) {
            Some(bytes) => {
                self.at += length;
                Ok(bytes)
            }
            None => self.cut(length),
        }
    }

    pub(super) fn line(&mut self) -> Result<String> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let Some(length) = rest.iter().position(|&byte| byte == b'\n') else {
            return self.cut(rest.len() + 1);
        };
        self.at += length + 1;
        Ok(String::from_utf8_lossy(&rest[..length]).trim_end_matches('\r').to_owned())
    }

    pub(super) fn cut<T>(&self, needed: usize) -> Result<T> {
        let left = self.input.len().saturating_sub(self.at);
        self.wrong(format!("{needed} more bytes are needed, {left} are left; is it cut short?"))
    }
}

/// A two's complement little-endian integer of any length.
pub(super) fn long(bytes: Bytes) -> Node {
    if bytes.len() > 8 {
        return Node::Long(bytes);
    }
    let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(&bytes);
    Node::Int(i64::from_le_bytes(wide))
}

/// The bytes of a quoted Python 2 string: `'a\x00b'`.
pub(super) fn python_literal(line: &str) -> Option<Vec<u8>> {
    let quote = line.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inner = line.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
            continue;
        }
        match rest.next()? {
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            'r' => bytes.push(b'\r'),
            'x' => {
                let digits: String = rest.by_ref().take(2).collect();
                bytes.push(u8::from_str_radix(&digits, 16).ok()?);
            }
            other @ ('\\' | '\'' | '"') => bytes.push(other as u8),
            _ => return None,
        }
    }
    Some(bytes)
}

/// Python's `raw-unicode-escape`: `\uXXXX` stands for a character, all else for itself.
pub(super) fn raw_unicode(line: &str) -> String {
    let mut parts = line.split("\\u");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        if let Some(c) = code.and_then(char::from_u32) {
            text.push(c);
            text.push_str(&part[4..]);
        } else {
            text.push_str("\\u");
            text.push_str(part);
        }
    }
    text
}

/// At most 80 characters of something a file says.
pub(super) fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

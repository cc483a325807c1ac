//! Content addresses: BLAKE3 over canonical bytes.

use std::{fmt, fs::File, io::Read, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::{AtPath, Error, Result};

/// The identity of a job: a hash of its resolved spec, the identities of its inputs and its
/// stage's revision. 32 hexadecimal digits (128 bits), never of YAML text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(String);

impl JobId {
    /// The id of `content`, hashed as canonical JSON (keys sorted at every level).
    pub fn of(content: &serde_json::Value) -> Self {
        Self(hash_bytes(&canonical(content))[..32].to_owned())
    }

    /// The whole id, 32 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first ten digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..10]
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for JobId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let hex = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hex {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::input(format!("`{text}` is not a job id: expected 32 hexadecimal digits")))
        }
    }
}

/// BLAKE3 of `bytes`, 64 hexadecimal digits.
pub fn hash_bytes(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// BLAKE3 of the file at `path`, read once.
///
/// # Errors
/// If the file cannot be read.
pub fn hash_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).at(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).at(path)?;
        if count == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update(&buffer[..count]);
    }
}

/// JSON with the keys of every object sorted, so that equal content has equal bytes.
fn canonical(value: &serde_json::Value) -> Vec<u8> {
    let mut text = Vec::with_capacity(2048);
    write_canonical(value, &mut text);
    text
}

/// Appends to one buffer: planning hashes tens of thousands of specs.
fn write_canonical(value: &serde_json::Value, text: &mut Vec<u8>) {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            text.push(b'{');
            for (position, (key, value)) in entries.into_iter().enumerate() {
                if position > 0 {
                    text.push(b',');
                }
                serde_json::to_writer(&mut *text, key).expect("text is JSON");
                text.push(b':');
                write_canonical(value, text);
            }
            text.push(b'}');
        }
        Value::Array(items) => {
            text.push(b'[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    text.push(b',');
                }
                write_canonical(item, text);
            }
            text.push(b']');
        }
        other => serde_json::to_writer(text, other).expect("scalars are JSON"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ids_ignore_the_order_of_keys_and_nothing_else() {
        let a = JobId::of(&json!({"x": 1, "y": {"b": [1, 2], "a": 0.5}}));
        assert_eq!(a, JobId::of(&json!({"y": {"a": 0.5, "b": [1, 2]}, "x": 1})));
        assert_ne!(a, JobId::of(&json!({"x": 1, "y": {"b": [2, 1], "a": 0.5}})));
        assert_eq!(a.as_str().parse::<JobId>().unwrap(), a);
        assert!("zz".parse::<JobId>().is_err());
    }
}

//! Values of fields: read from YAML by kind, shown to people, written as JSON.

use std::fmt;

use serde::Serialize;

use crate::{
    suite::{
        fields::Kind,
        problem::suggestion,
        table::{ATTACKS, DATA_SETS},
        yaml::{Content, Node},
    },
    units::Epsilon,
};

/// One attack as a suite names it, with the numbers it gives.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NamedAttack {
    /// Its name.
    pub name: String,
    /// Iterations or queries.
    pub steps: Option<u64>,
    /// Restarts.
    pub restarts: Option<u64>,
    /// Target classes.
    pub targets: Option<u64>,
    /// Gradients averaged at each step.
    pub eot: Option<u64>,
}

/// A field's value.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// Not given.
    Absent,
    /// A flag.
    Flag(bool),
    /// A whole number.
    Count(u64),
    /// A real number.
    Real(f64),
    /// An exact bound.
    Epsilon(Epsilon),
    /// A name, path or other text.
    Text(String),
    /// Whole numbers.
    Counts(Vec<u64>),
    /// Names.
    Texts(Vec<String>),
    /// Attacks.
    Attacks(Vec<NamedAttack>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("none"),
            Self::Flag(flag) => flag.fmt(f),
            Self::Count(count) => f.write_str(&shown_count(*count)),
            Self::Real(real) => real.fmt(f),
            Self::Epsilon(epsilon) => epsilon.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::Counts(counts) => write!(f, "{counts:?}"),
            Self::Texts(texts) => f.write_str(&texts.join("+")),
            Self::Attacks(attacks) => {
                let names: Vec<_> = attacks.iter().map(|attack| attack.name.as_str()).collect();
                f.write_str(&names.join("+"))
            }
        }
    }
}

/// `1M`, `50K`, `1500`: round numbers as the paper writes them.
fn shown_count(count: u64) -> String {
    match count {
        0 => "0".to_owned(),
        n if n % 1_000_000 == 0 => format!("{}M", n / 1_000_000),
        n if n % 1000 == 0 => format!("{}K", n / 1000),
        n => n.to_string(),
    }
}

/// Reads `node` as `kind`.
///
/// # Errors
/// What is wrong, in words, with what was expected; and the node concerned where it is not `node`.
pub fn read(kind: Kind, node: &Node) -> Result<Value, (String, &Node)> {
    let wrong = || (format!("{} does not fit: expected {}", node.shown(), kind.expected()), node);
    match kind {
        Kind::Counts | Kind::Threats | Kind::Attacks => read_list(kind, node),
        Kind::Paths if matches!(node.content, Content::List(_)) => read_list(kind, node),
        Kind::Flag => match &node.content {
            Content::Scalar(serde_yaml::Value::Bool(flag), _) => Ok(Value::Flag(*flag)),
            _ => Err(wrong()),
        },
        _ => {
            let text = node.text().ok_or_else(wrong)?;
            scalar(kind, text).map_err(|hint| match hint {
                Some(hint) => (hint, node),
                None => wrong(),
            })
        }
    }
}

/// Reads `text` as a scalar `kind`; an error may carry its own words.
fn scalar(kind: Kind, text: &str) -> Result<Value, Option<String>> {
    match kind {
        Kind::Count(low, high) => {
            let count = count(text).ok_or(None)?;
            (low..=high).contains(&count).then_some(Value::Count(count)).ok_or(None)
        }
        Kind::Real(low, high) => {
            let real: f64 = text.replace('_', "").parse().map_err(|_| None)?;
            (low..=high).contains(&real).then_some(Value::Real(real)).ok_or(None)
        }
        Kind::Epsilon => match text.parse::<Epsilon>() {
            Ok(epsilon) if epsilon.value() > 0.0 => Ok(Value::Epsilon(epsilon)),
            _ => Err(None),
        },
        Kind::Choice(names) if !names.contains(&text) => {
            let hint = suggestion(text, names.iter().copied());
            Err(Some(format!("`{text}` is unknown: {hint}")))
        }
        // A path is recognised by its look, so that a misspelt name is not taken for one.
        Kind::DataSet if !DATA_SETS.contains(&text) && !text.contains(['/', '.']) => {
            let hint = suggestion(text, DATA_SETS.iter().copied());
            Err(Some(format!("`{text}` is unknown: {hint}")))
        }
        _ if text.is_empty() => Err(None),
        _ => Ok(Value::Text(text.to_owned())),
    }
}

/// `1000`, `1_000`, `50K`, `1M`, `1e6`, `2.5M`: exactly a whole number, or nothing.
fn count(text: &str) -> Option<u64> {
    let plain = text.replace('_', "");
    if let Ok(count) = plain.parse() {
        return Some(count);
    }
    let (number, unit) = match plain.strip_suffix(['M', 'K']) {
        Some(number) => (number, if plain.ends_with('M') { 1e6 } else { 1e3 }),
        None => (plain.as_str(), 1.0),
    };
    let number: f64 = number.parse().ok()?;
    // Rounding only mends the last bit of 2.3 * 1e6; a real fraction stays visible.
    let value = (number * unit).round();
    let whole = (value - number * unit).abs() < 1e-6 && (0.0..9e15).contains(&value);
    whole.then_some(value as u64)
}

fn read_list(kind: Kind, node: &Node) -> Result<Value, (String, &Node)> {
    let wrong = |at: &Node| format!("{} does not fit: expected {}", at.shown(), kind.expected());
    let Content::List(items) = &node.content else { return Err((wrong(node), node)) };
    match kind {
        Kind::Counts => {
            let read = |item| match read(Kind::Count(1, 1 << 32), item)? {
                Value::Count(count) => Ok(count),
                _ => unreachable!("counts are read as counts"),
            };
            items.iter().map(read).collect::<Result<_, _>>().map(Value::Counts)
        }
        Kind::Paths if items.is_empty() => Err((wrong(node), node)),
        Kind::Threats | Kind::Paths => {
            let name = |item: &'_ Node| item.text().map(str::to_owned);
            let names = items.iter().map(|item| name(item).ok_or((wrong(item), item)));
            names.collect::<Result<_, _>>().map(Value::Texts)
        }
        _ if items.is_empty() => Err((wrong(node), node)),
        _ => items.iter().map(attack).collect::<Result<_, _>>().map(Value::Attacks),
    }
}

fn attack(node: &Node) -> Result<NamedAttack, (String, &Node)> {
    let (name, at, numbers) = match &node.content {
        Content::Map(entries) if entries.len() == 1 => {
            (entries[0].key.as_str(), node, Some(&entries[0].value))
        }
        _ => (node.text().unwrap_or_default(), node, None),
    };
    if !ATTACKS.contains(&name) {
        let hint = suggestion(name, ATTACKS.iter().copied());
        return Err((format!("{} is not an attack: {hint}", node.shown()), at));
    }
    let mut attack = NamedAttack {
        name: name.to_owned(),
        steps: None,
        restarts: None,
        targets: None,
        eot: None,
    };
    let Some(numbers) = numbers else { return Ok(attack) };
    let Content::Map(entries) = &numbers.content else {
        let text =
            format!("{} does not fit: expected {{steps: ..., restarts: ...}}", numbers.shown());
        return Err((text, numbers));
    };
    for entry in entries {
        let slot = match entry.key.as_str() {
            "steps" | "queries" => &mut attack.steps,
            "restarts" => &mut attack.restarts,
            "targets" => &mut attack.targets,
            "eot" => &mut attack.eot,
            other => {
                let hint = suggestion(other, ["steps", "restarts", "targets", "eot"].into_iter());
                return Err((format!("`{other}` is no number of an attack: {hint}"), &entry.value));
            }
        };
        if let Value::Count(count) = read(Kind::Count(1, 10_000_000), &entry.value)? {
            *slot = Some(count);
        }
    }
    Ok(attack)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::yaml::parse;

    fn reads(kind: Kind, text: &str) -> Option<Value> {
        read(kind, &parse(text).unwrap()).ok()
    }

    #[test]
    fn counts_are_read_as_people_write_them() {
        let any = Kind::Count(0, u64::MAX);
        for (text, count) in
            [("7", 7), ("1_000", 1000), ("1M", 1_000_000), ("2.3M", 2_300_000), ("1e6", 1_000_000)]
        {
            assert_eq!(reads(any, text), Some(Value::Count(count)), "{text}");
        }
        for bad in ["-1", "1.5", "M", "x", "[1]", "~", "nan", "1e300"] {
            assert_eq!(reads(any, bad), None, "{bad}");
        }
        assert_eq!(reads(Kind::Count(1, 5), "6"), None);
    }

    #[test]
    fn scalars_and_lists_are_checked() {
        assert_eq!(reads(Kind::Epsilon, "8/255"), Some(Value::Epsilon(Epsilon::new(8, 255))));
        assert_eq!(reads(Kind::Epsilon, "0"), None);
        assert_eq!(reads(Kind::Real(0.0, 1.0), "nan"), None);
        assert_eq!(reads(Kind::Counts, "[1, 2]"), Some(Value::Counts(vec![1, 2])));
        assert_eq!(reads(Kind::Counts, "[1, 0]"), None);
        assert_eq!(reads(Kind::Flag, "\"true\""), None);
        let attacks = reads(Kind::Attacks, "[apgd-ce, {square: {queries: 10}}]").unwrap();
        let Value::Attacks(attacks) = attacks else { panic!() };
        assert_eq!((attacks[1].name.as_str(), attacks[1].steps), ("square", Some(10)));
        let node = parse("[apgd_ce]").unwrap();
        assert!(read(Kind::Attacks, &node).unwrap_err().0.contains("did you mean `apgd-ce`?"));
    }

    #[test]
    fn counts_are_shown_round() {
        assert_eq!(Value::Count(50_000_000).to_string(), "50M");
        assert_eq!(Value::Count(1500).to_string(), "1500");
        assert_eq!(Value::Count(0).to_string(), "0");
    }
}

//! Settings of one cell: a value for every field of the table, each with its origin.

use std::{collections::HashMap, fmt, sync::LazyLock};

use serde::{Serialize, Serializer};

use crate::{
    suite::{
        fields::{Fallback, Field, position},
        table::{FIELDS, PRESETS},
        value::{self, NamedAttack, Value},
        yaml::{self, Mark},
    },
    units::Epsilon,
};

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The table of fields.
    Default,
    /// The named recipe of `train.preset`.
    Preset(&'static str),
    /// A line of the suite.
    Suite(Mark),
    /// A value of an axis.
    Axis(Mark),
    /// An extra cell (`axes.include`).
    Include(Mark),
    /// `--set` on the command line.
    Argument,
    /// `--scale` on the command line.
    Scale,
}

impl Origin {
    /// The place in the suite, where there is one.
    pub fn mark(self) -> Option<Mark> {
        match self {
            Self::Suite(at) | Self::Axis(at) | Self::Include(at) => Some(at),
            Self::Default | Self::Preset(_) | Self::Argument | Self::Scale => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Preset(name) => write!(f, "preset {name}"),
            Self::Suite(at) if at.source > 0 => write!(f, "base, line {}", at.line),
            Self::Suite(at) => write!(f, "line {}", at.line),
            Self::Axis(at) => write!(f, "axis, line {}", at.line),
            Self::Include(at) => write!(f, "include, line {}", at.line),
            Self::Argument => f.write_str("--set"),
            Self::Scale => f.write_str("--scale"),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A value and its origin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// The value.
    pub value: Value,
    /// Where it comes from.
    pub origin: Origin,
}

/// A value that somebody gave for the field at a position of the table.
#[derive(Debug, Clone)]
pub struct Given {
    /// Position in [`FIELDS`].
    pub field: usize,
    /// The value and its origin.
    pub setting: Setting,
}

/// A value for every field, in the table's order.
#[derive(Debug, Clone)]
pub struct Settings(Vec<Setting>);

/// The table's own values, without and with each preset. Built once: planning clones them for
/// each of thousands of cells.
static GROUND: LazyLock<HashMap<&'static str, Vec<Setting>>> = LazyLock::new(|| {
    let default = |field: &Field| Setting { value: default_value(field), origin: Origin::Default };
    let defaults: Vec<_> = FIELDS.iter().map(default).collect();
    let mut ground = HashMap::from([("", defaults.clone())]);
    for preset in PRESETS {
        let mut settings = defaults.clone();
        for (path, text) in preset.values {
            let field = position(path).expect("presets name fields");
            let value = constant(&FIELDS[field], text);
            settings[field] = Setting { value, origin: Origin::Preset(preset.name) };
        }
        ground.insert(preset.name, settings);
    }
    ground
});

/// The value that holds when nobody gives one.
pub fn default_value(field: &Field) -> Value {
    match field.fallback {
        Fallback::Is(text) => constant(field, text),
        Fallback::Absent(_) | Fallback::Required => Value::Absent,
    }
}

fn constant(field: &Field, text: &str) -> Value {
    let node = yaml::parse(text).expect("the table's values are YAML");
    match value::read(field.kind, &node) {
        Ok(value) => value,
        Err((message, _)) => panic!("{}: {message}", field.path),
    }
}

impl Settings {
    /// Layers upon the table: presets, then the suite's `base`, then the cell's own values.
    pub fn layered(base: &[Given], cell: &[Given]) -> Self {
        let preset = position("train.preset").expect("a field");
        let chosen = base.iter().chain(cell).rfind(|given| given.field == preset);
        let name = match chosen.map(|given| &given.setting.value) {
            Some(Value::Text(name)) => name.as_str(),
            _ => "",
        };
        let mut settings = GROUND[name].clone();
        for given in base.iter().chain(cell) {
            settings[given.field] = given.setting.clone();
        }
        Self(settings)
    }

    /// Puts `value` in the place of what the field at `path` has.
    pub(super) fn put(&mut self, path: &str, value: Value, origin: Origin) {
        let position = position(path).unwrap_or_else(|| panic!("no field {path}"));
        self.0[position] = Setting { value, origin };
    }

    /// The setting of the field at `position` of the table.
    pub fn at(&self, position: usize) -> &Setting {
        &self.0[position]
    }

    /// The setting at `path`.
    ///
    /// # Panics
    /// If the table has no such field; so do the readers below if it has another kind.
    pub fn get(&self, path: &str) -> &Setting {
        let position = position(path).unwrap_or_else(|| panic!("no field {path}"));
        &self.0[position]
    }

    /// Every field with its setting.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Field, &Setting)> {
        FIELDS.iter().zip(&self.0)
    }

    /// A whole number that always has a value.
    pub fn count(&self, path: &str) -> u64 {
        self.optional_count(path).unwrap_or_else(|| panic!("{path} has a default"))
    }

    /// A whole number, if given.
    pub fn optional_count(&self, path: &str) -> Option<u64> {
        match &self.get(path).value {
            Value::Count(count) => Some(*count),
            Value::Absent => None,
            other => panic!("{path} is {other:?}"),
        }
    }

    /// A real number that always has a value.
    pub fn real(&self, path: &str) -> f64 {
        self.optional_real(path).unwrap_or_else(|| panic!("{path} has a default"))
    }

    /// A real number, if given.
    pub fn optional_real(&self, path: &str) -> Option<f64> {
        match &self.get(path).value {
            Value::Real(real) => Some(*real),
            Value::Absent => None,
            other => panic!("{path} is {other:?}"),
        }
    }

    /// A bound, if given.
    pub fn epsilon(&self, path: &str) -> Option<Epsilon> {
        match &self.get(path).value {
            Value::Epsilon(epsilon) => Some(*epsilon),
            _ => None,
        }
    }

    /// A flag.
    pub fn flag(&self, path: &str) -> bool {
        self.get(path).value == Value::Flag(true)
    }

    /// A text, if given.
    pub fn text(&self, path: &str) -> Option<&str> {
        match &self.get(path).value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A choice that always has a value, as the enum that it names.
    pub fn choice<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        use serde::de::{IntoDeserializer, value::StrDeserializer};
        let name = self.text(path).unwrap_or_else(|| panic!("{path} has a default"));
        let deserializer: StrDeserializer<'_, serde::de::value::Error> = name.into_deserializer();
        T::deserialize(deserializer).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Whole numbers.
    pub fn counts(&self, path: &str) -> Vec<i64> {
        match &self.get(path).value {
            Value::Counts(counts) => counts.iter().map(|&count| count as i64).collect(),
            other => panic!("{path} is {other:?}"),
        }
    }

    /// Names, if given.
    pub fn texts(&self, path: &str) -> Option<&[String]> {
        match &self.get(path).value {
            Value::Texts(texts) => Some(texts),
            _ => None,
        }
    }

    /// One path or several, if given.
    pub fn paths(&self, path: &str) -> Option<Vec<&str>> {
        match &self.get(path).value {
            Value::Text(text) => Some(vec![text]),
            Value::Texts(texts) => Some(texts.iter().map(String::as_str).collect()),
            _ => None,
        }
    }

    /// Attacks, if given.
    pub fn attacks(&self, path: &str) -> Option<&[NamedAttack]> {
        match &self.get(path).value {
            Value::Attacks(attacks) => Some(attacks),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_fits_its_own_kind() {
        assert!(GROUND.len() == 1 + PRESETS.len());
        let paths: std::collections::HashSet<_> = FIELDS.iter().map(|field| field.path).collect();
        assert_eq!(paths.len(), FIELDS.len(), "no path twice");
    }

    #[test]
    fn presets_set_every_number_of_training() {
        for preset in PRESETS {
            for field in FIELDS.iter().filter(|field| field.path.starts_with("train.")) {
                // Not of a recipe: what is trained, and the seed. Rules stay rules.
                let own = ["train.preset", "train.arch", "train.seed"].contains(&field.path);
                let rule = matches!(field.fallback, Fallback::Absent(_));
                let set = preset.values.iter().any(|(path, _)| *path == field.path);
                assert_eq!(set, !own && !rule, "{} of {}", field.path, preset.name);
            }
        }
    }

    #[test]
    fn layers_keep_their_origin() {
        let at = Mark { source: 0, line: 3, column: 1 };
        let given = |path: &str, value, origin| Given {
            field: position(path).unwrap(),
            setting: Setting { value, origin },
        };
        let text = |text: &str| Value::Text(text.to_owned());
        let base = [
            given("train.preset", text("deepmind"), Origin::Suite(at)),
            given("train.epochs", Value::Count(3), Origin::Suite(at)),
        ];
        let cell = [given("train.batch", Value::Count(64), Origin::Axis(at))];
        let settings = Settings::layered(&base, &cell);
        assert_eq!(settings.real("train.beta").to_bits(), 6f64.to_bits());
        assert_eq!(settings.get("train.beta").origin, Origin::Preset("deepmind"));
        assert_eq!(settings.get("train.epochs").origin.to_string(), "line 3");
        assert_eq!(settings.count("train.batch"), 64);
        assert_eq!(settings.get("sampler.steps").origin, Origin::Default);
    }
}

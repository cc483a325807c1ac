//! The JSON schema (draft-07) of suites, from the table of fields: editors complete and check by it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::suite::{
    fields::{Fallback, Field, Kind},
    table::{ATTACKS, DATA_SETS, FIELDS},
};

/// The schema. Each field stands once in `definitions`, everything else points there.
pub fn schema() -> Value {
    let mut properties = Map::new();
    let plain = |text: &str| json!({"type": "string", "description": text});
    for (name, value) in [
        (
            "suite",
            json!({"type": "string", "description": "the suite's name", "pattern": "^[\\w. -]+$"}),
        ),
        ("base", plain("a suite that this one changes")),
        ("description", plain("what it is about")),
        ("threats", threats()),
        ("axes", axes()),
        (
            "seeds",
            json!({"type": "array", "description": "seeds of training: several are an axis",
            "items": {"anyOf": [to("count"), to("labelled")]}}),
        ),
        ("report", report()),
        ("reference", reference()),
        ("ci", ci()),
    ] {
        properties.insert(name.to_owned(), value);
    }
    for (name, section) in sections() {
        properties.insert(name, section);
    }
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "gauntlet suite",
        "type": "object",
        "required": ["suite"],
        "properties": properties,
        "patternProperties": dotted(),
        "additionalProperties": false,
        "definitions": definitions(),
    })
}

fn definitions() -> Map<String, Value> {
    let mut all = by_path(&of_field);
    let label = json!({"type": ["string", "number"]});
    let labelled = json!({"value": {}, "label": label});
    let cell = by_path(&|field| to(field.path));
    let mut include = cell.clone();
    include.insert("label".to_owned(), label);
    let either = |field: &Field| json!({"anyOf": [to(field.path), {"type": "array", "items": to(field.path)}]});
    let points = |field: &Field| {
        json!({"type": "array", "minItems": 1, "description": field.doc,
            "items": {"anyOf": [to(field.path), {"type": "null"}, to("labelled")]}})
    };
    let axis = object(by_path(&points));
    let factors = json!({"anyOf": [axis.clone(), {"type": "array", "items": axis}]});
    for (name, value) in [
        ("count", count(0, u64::MAX)),
        ("percent", json!({"type": "number", "minimum": 0, "maximum": 100})),
        ("epsilon", of_kind(Kind::Epsilon)),
        ("cell", object(cell)),
        ("include", object(include)),
        ("exclude", object(by_path(&either))),
        ("factors", factors),
    ] {
        all.insert(name.to_owned(), value);
    }
    let mut labelled = object(labelled.as_object().expect("an object").clone());
    labelled["required"] = json!(["value"]);
    all.insert("labelled".to_owned(), labelled);
    all
}

/// A reference to a definition.
fn to(name: &str) -> Value {
    json!({"$ref": format!("#/definitions/{name}")})
}

/// A mapping with these keys and no others.
fn object(properties: Map<String, Value>) -> Value {
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

/// Dotted paths may stand where sections may: `train.epochs: 5`.
fn dotted() -> Value {
    let mut patterns = Map::new();
    for field in FIELDS.iter().filter(|field| field.path.contains('.')) {
        let path = format!("^{}$", field.path.replace('.', "\\."));
        patterns.insert(path, to(field.path));
    }
    Value::Object(patterns)
}

/// Fields as nested mappings. A path that is a field and a section (`threat`) may be either.
fn sections() -> BTreeMap<String, Value> {
    let mut roots: BTreeMap<String, Value> = BTreeMap::new();
    let tops: std::collections::BTreeSet<&str> =
        FIELDS.iter().map(|field| field.path.split('.').next().unwrap_or(field.path)).collect();
    for top in tops {
        roots.insert(top.to_owned(), node(top));
    }
    roots
}

fn node(path: &str) -> Value {
    let own = FIELDS.iter().find(|field| field.path == path);
    let prefix = format!("{path}.");
    let mut properties = Map::new();
    let mut patterns = Map::new();
    for field in FIELDS {
        let Some(rest) = field.path.strip_prefix(&prefix) else { continue };
        let name = rest.split('.').next().unwrap_or(rest);
        if !properties.contains_key(name) {
            properties.insert(name.to_owned(), node(&format!("{prefix}{name}")));
        }
        if rest.contains('.') {
            patterns.insert(format!("^{}$", rest.replace('.', "\\.")), to(field.path));
        }
    }
    if properties.is_empty() {
        return to(own.expect("a path is a field or a section").path);
    }
    let mut section = object(properties);
    section["type"] = json!(["object", "null"]);
    if !patterns.is_empty() {
        section["patternProperties"] = Value::Object(patterns);
    }
    match own {
        Some(own) => json!({"anyOf": [to(own.path), section], "description": own.doc}),
        None => section,
    }
}

fn of_field(field: &Field) -> Value {
    let mut schema = of_kind(field.kind);
    let after = match field.fallback {
        Fallback::Is(text) | Fallback::Absent(text) => format!(" [default: {text}]"),
        Fallback::Required => " [must be given]".to_owned(),
    };
    if let Fallback::Absent(_) = field.fallback {
        schema = json!({"anyOf": [schema, {"type": "null"}]});
    }
    schema["description"] = json!(format!("{}{after}", field.doc));
    schema
}

fn of_kind(kind: Kind) -> Value {
    match kind {
        Kind::Count(low, high) => count(low, high),
        Kind::Real(low, high) => json!({"anyOf": [
            {"type": "number", "minimum": low, "maximum": high},
            {"type": "string", "pattern": "^[0-9_]*\\.?[0-9_]+([eE][-+]?[0-9]+)?$"}]}),
        Kind::Epsilon => json!({"anyOf": [
            {"type": "number", "exclusiveMinimum": 0},
            {"type": "string", "pattern": "^[0-9.]+(/[0-9]+)?$"}]}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Choice(names) => json!({"enum": names}),
        Kind::DataSet => json!({"anyOf": [
            {"enum": DATA_SETS}, {"type": "string", "pattern": "[/.]"}]}),
        Kind::Text | Kind::Path | Kind::Threat => json!({"type": ["string", "number"]}),
        Kind::Paths => json!({"anyOf": [
            {"type": "string"},
            {"type": "array", "minItems": 1, "items": {"type": "string"}}]}),
        Kind::Counts => json!({"type": "array", "items": count(1, 1 << 32)}),
        Kind::Threats => json!({"type": "array", "items": {"type": "string"}}),
        Kind::Attacks => attacks(),
    }
}

fn count(low: u64, high: u64) -> Value {
    let mut number = json!({"type": "integer", "minimum": low});
    if high < u64::MAX {
        number["maximum"] = json!(high);
    }
    json!({"anyOf": [number, {"type": "string", "pattern": "^[0-9][0-9_.]*([eE][0-9]+)?[KM]?$"}]})
}

fn attacks() -> Value {
    let numbers: Map<String, Value> = ["steps", "queries", "restarts", "targets", "eot"]
        .iter()
        .map(|name| ((*name).to_owned(), count(1, 10_000_000)))
        .collect();
    let numbers = object(numbers);
    let named: Map<String, Value> =
        ATTACKS.iter().map(|name| ((*name).to_owned(), numbers.clone())).collect();
    let mut named = object(named);
    named["maxProperties"] = json!(1);
    json!({"type": "array", "minItems": 1, "items": {"anyOf": [{"enum": ATTACKS}, named]}})
}

fn threats() -> Value {
    json!({
        "type": "object",
        "description": "threat models by name",
        "additionalProperties": {
            "type": "object",
            "required": ["norm", "epsilon"],
            "properties": {
                "norm": {"enum": ["linf", "l2", "l1"]},
                "epsilon": to("epsilon"),
                "policy": node("policy"),
                "sampler": node("sampler"),
            },
            "additionalProperties": false,
        },
    })
}

/// A mapping from dotted paths to what `of` makes of each field.
fn by_path(of: &dyn Fn(&Field) -> Value) -> Map<String, Value> {
    FIELDS.iter().map(|field| (field.path.to_owned(), of(field))).collect()
}

fn axes() -> Value {
    json!({
        "type": "object",
        "description": "which cells there are",
        "properties": {
            "product": to("factors"),
            "zip": to("factors"),
            "include": {"type": "array", "items": to("include")},
            "exclude": {"type": "array", "items": to("exclude")},
        },
        "additionalProperties": false,
    })
}

fn report() -> Value {
    let axes =
        json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]});
    let quantity = json!({"enum": ["clean", "robust"]});
    json!({
        "type": "object",
        "description": "how the report is laid out",
        "properties": {
            "title": {"type": "string", "description": "the report's heading"},
            "x": {"description": "axes that accuracy is plotted against; all unless given", "anyOf": axes["anyOf"]},
            "rows": {"description": "axes down the tables", "anyOf": axes["anyOf"]},
            "columns": {"description": "the axis across the tables; threat models unless given", "type": "string"},
            "values": {"description": "accuracies that the tables show",
                "anyOf": [quantity, {"type": "array", "items": quantity}]},
        },
        "additionalProperties": false,
    })
}

fn reference() -> Value {
    let one = json!({
        "type": "object",
        "properties": {
            "cell": to("cell"),
            "clean": to("percent"), "robust": to("percent"), "pgd": to("percent"),
            "fid": {"type": "number", "minimum": 0},
            "source": {"type": "string"},
            "certainty": {"enum": ["verified", "secondary", "unverified"]},
        },
        "additionalProperties": false,
    });
    json!({"description": "published numbers to compare with",
        "anyOf": [one.clone(), {"type": "array", "items": one}]})
}

fn ci() -> Value {
    json!({
        "type": "object",
        "description": "what `gauntlet check` lets pass: points beyond chance, floors in percent",
        "properties": {
            "clean": to("percent"), "robust": to("percent"),
            "min_clean": to("percent"), "min_robust": to("percent"),
            "confidence": {"type": "number", "minimum": 0.5, "maximum": 0.9999},
        },
        "additionalProperties": false,
    })
}

//! `gauntlet schema` and `gauntlet new`: help for those who write suites.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    cli::terminal::print,
    error::{AtPath, Error, Result},
    suite::schema::schema,
};

/// Writes the JSON schema (draft-07) of suites, so that editors complete and check them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gauntlet schema --out suites/schema.json
  then in a suite:  # yaml-language-server: $schema=schema.json")]
pub struct SchemaArgs {
    /// The file; standard output if not given.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Writes a commented suite to start from, and the schema that its first line names.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gauntlet new my-study.yaml && gauntlet plan my-study.yaml")]
pub struct NewArgs {
    /// The suite's file; must not exist.
    file: PathBuf,
}

const TEMPLATE: &str = include_str!("../suite/template.yaml");
const SCHEMA_FILE: &str = "gauntlet-suite.schema.json";

/// The schema as a file holds it.
pub fn text() -> String {
    let mut text = serde_json::to_string_pretty(&schema()).expect("a schema is JSON");
    text.push('\n');
    text
}

/// Runs `gauntlet schema`.
///
/// # Errors
/// If the file cannot be written.
pub fn run(args: &SchemaArgs) -> Result<()> {
    match &args.out {
        Some(path) => fs::write(path, text()).at(path),
        None => {
            print(&text());
            Ok(())
        }
    }
}

/// Runs `gauntlet new`.
///
/// # Errors
/// If the file exists or cannot be written.
pub fn new(args: &NewArgs) -> Result<()> {
    let path = &args.file;
    if path.exists() {
        return Err(Error::in_file(path, "exists already: choose another name"));
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let fits = |c: &char| c.is_alphanumeric() || "-_.".contains(*c);
    let name: String = stem.chars().filter(fits).collect();
    let name = if name.is_empty() { "study" } else { &name };
    let text =
        TEMPLATE.replace("SCHEMA", SCHEMA_FILE).replace("suite: NAME", &format!("suite: {name}"));
    let schema = path.parent().unwrap_or(Path::new("")).join(SCHEMA_FILE);
    if !schema.exists() {
        fs::write(&schema, self::text()).at(&schema)?;
    }
    fs::write(path, text).at(path)?;
    print(&format!("{0} is written; next: gauntlet plan {0}", path.display()));
    Ok(())
}

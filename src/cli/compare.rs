//! `gauntlet compare`: two results, suites, or a run against published rows.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{
    cli::{
        ours::{self, Found},
        terminal::print,
    },
    error::{AtPath, Error, Result},
    leaderboard::{atomic, compare::compare, published, records::read_parquet, row::short_axis},
    report::versus::{Match, Versus},
};

/// Compares two results: which is more robust, and is the difference more than chance?
///
/// Where both sides have records of the same examples they are paired: McNemar's test, which
/// examples flipped, and which attack broke the loser. Cells of two suites are matched by their
/// axis values, data set and threat model. `published:KEY` is a published model
/// (`gauntlet leaderboard` names them); `published` alone is all of Wang et al. 2023 with the data
/// set and threat model of A.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gauntlet compare before after                two folders of `evaluate --out`
  gauntlet compare a.yaml b.yaml --out diff    two suites: diff/compare.html, .md, .json
  gauntlet compare out/a out/b                 two report folders
  gauntlet compare evaluation published:Carmon2019Unlabeled

Exit codes: 0 B is nowhere less robust than A (at the 5% level), 1 it is
somewhere, 2 bad input.")]
pub struct Args {
    /// The first: the folder of `evaluate --out` or of a report, a results.json, a suite.
    #[arg(value_name = "A")]
    first: PathBuf,
    /// The second: the same, or published[:KEY].
    #[arg(value_name = "B")]
    second: PathBuf,
    /// Also writes compare.html, compare.md and compare.json here.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
    /// Where results of suites, and the records behind reports, are kept.
    #[arg(long, default_value = ".gauntlet", env = "GAUNTLET_STORE")]
    store: PathBuf,
    /// The store of B, if it is another one.
    #[arg(long, value_name = "DIR")]
    second_store: Option<PathBuf>,
    /// Folder with the data sets that suites name.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Runs the command; the code says whether B is less robust than A somewhere.
///
/// # Errors
/// If a side cannot be read, nothing matches, or the two saw different images.
pub fn run(args: &Args) -> Result<ExitCode> {
    let first = ours::find(&args.first, &args.store, args.data.as_deref())?;
    let name = args.second.to_string_lossy();
    let versus = match name.strip_prefix("published") {
        Some(key) if !args.second.exists() => against_published(args, &first, key)?,
        _ => {
            let store = args.second_store.as_ref().unwrap_or(&args.store);
            let second = ours::find(&args.second, store, args.data.as_deref())?;
            against(args, &first, &second)?
        }
    };
    if let Some(out) = &args.out {
        write(out, &versus)?;
    }
    if args.json {
        print(&versus.json().to_string());
    } else {
        print(&versus.terminal());
        if let Some(out) = &args.out {
            print(&format!("\nwritten: {}", out.join("compare.html").display()));
        }
    }
    Ok(ExitCode::from(u8::from(versus.second_loses())))
}

fn write(out: &Path, versus: &Versus) -> Result<()> {
    let page = versus.html()?;
    let json = serde_json::to_vec_pretty(&versus.json()).map_err(Error::input)?;
    fs::create_dir_all(out).at(out)?;
    atomic::write(&out.join("compare.md"), versus.markdown().as_bytes())?;
    atomic::write(&out.join("compare.json"), &json)?;
    atomic::write(&out.join("compare.html"), page.as_bytes())
}

/// The last part of a path, unless both sides have the same: then the whole.
fn names(args: &Args) -> (String, String) {
    let short = |path: &Path| {
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned());
        name.unwrap_or_else(|| path.display().to_string())
    };
    let (first, second) = (short(&args.first), short(&args.second));
    if first == second {
        (args.first.display().to_string(), args.second.display().to_string())
    } else {
        (first, second)
    }
}

fn against(args: &Args, first: &[Found], second: &[Found]) -> Result<Versus> {
    let (first_name, second_name) = names(args);
    let mut matches = Vec::new();
    let (mut notes, mut alone) = (Vec::new(), Vec::new());
    let mut left: Vec<&Found> = second.iter().collect();
    // Two single evaluations belong together whatever they are called.
    let single = first.len() == 1 && second.len() == 1;
    for a in first {
        let Some(at) = left.iter().position(|b| single || same(a, b)) else {
            alone.push(a);
            continue;
        };
        let b = left.remove(at);
        if a.row.dataset != b.row.dataset {
            return Err(Error::input(format!(
                "{first_name} was evaluated on {}, {second_name} on {}: only results on the same \
                 data can be compared",
                a.row.dataset, b.row.dataset
            )));
        }
        if a.row.threat != b.row.threat {
            notes.push(format!(
                "the threat models differ: {} for {first_name}, {} for {second_name}",
                a.row.threat, b.row.threat
            ));
        }
        matches.push(matched(a, b, &first_name, &second_name)?);
    }
    let unpaired = matches.iter().filter(|one| one.paired.is_none()).count();
    if unpaired > 0 {
        notes.push(format!(
            "{unpaired} of {} not paired, because records of both are not here",
            matches.len()
        ));
    }
    notes.extend(lonely(&alone, &first_name));
    notes.extend(lonely(&left, &second_name));
    if matches.is_empty() {
        return Err(Error::input(format!(
            "{first_name} and {second_name} have no cell with the same axis values, data set and \
             threat model in common: {}",
            notes.join("; ")
        )));
    }
    Ok(Versus { first: first_name, second: second_name, matches, notes })
}

/// Says which results have no partner: the first few by name.
fn lonely(alone: &[&Found], place: &str) -> Option<String> {
    const NAMED: usize = 3;
    let mut names: Vec<String> = alone.iter().take(NAMED).map(|one| title(one)).collect();
    if alone.len() > NAMED {
        names.push(format!("{} more", alone.len() - NAMED));
    }
    let verb = if alone.len() == 1 { "stands" } else { "stand" };
    (!names.is_empty()).then(|| format!("{} {verb} only in {place}", names.join("; ")))
}

fn same(a: &Found, b: &Found) -> bool {
    // Seeds count here: each repetition meets its own.
    a.row.axes == b.row.axes
        && a.row.dataset == b.row.dataset
        && a.row.threat == b.row.threat
        && a.row.seed == b.row.seed
}

fn title(found: &Found) -> String {
    let row = &found.row;
    let axes: Vec<String> = row.axes.iter().map(|(axis, _)| axis.clone()).collect();
    let words: Vec<String> = row
        .axes
        .iter()
        .filter(|(axis, _)| axis != "threat")
        .map(|(axis, value)| format!("{} {value}", short_axis(axis, &axes)))
        .collect();
    let name = if words.is_empty() { row.cell.clone() } else { words.join(", ") };
    format!("{name}, {}", row.threat)
}

fn matched(a: &Found, b: &Found, first: &str, second: &str) -> Result<Match> {
    let paired = match (&a.records, &b.records) {
        (Some(x), Some(y)) => {
            let found = compare(&read_parquet(x)?, &read_parquet(y)?);
            Some(found.map_err(|error| Error::input(format!("{}: {error}", title(a))))?)
        }
        _ => None,
    };
    Ok(Match {
        what: title(a),
        first: first.to_owned(),
        second: second.to_owned(),
        first_counts: (a.row.clean, a.row.robust),
        second_counts: (b.row.clean, b.row.robust),
        paired,
    })
}

fn against_published(args: &Args, first: &[Found], key: &str) -> Result<Versus> {
    let key = key.strip_prefix(':').unwrap_or(key);
    let (name, _) = names(args);
    let (mut matches, mut notes, mut known) = (Vec::new(), Vec::new(), Vec::new());
    for a in first {
        let theirs = published::matching(&a.row.dataset, a.row.threat);
        known.extend(theirs.iter().map(|one| one.key.clone()));
        let wanted = |one: &published::Published| match key {
            "" => one.is_ours_to_match(),
            key => one.key == key,
        };
        for one in theirs.iter().filter(|one| wanted(one)) {
            let [clean, _, robust] = one.tallies();
            matches.push(Match {
                what: match (key.is_empty(), first.len() > 1) {
                    (true, true) => format!("{}; {}", title(a), one.key),
                    (true, false) => one.key.clone(),
                    (false, _) => title(a),
                },
                first: format!("{name} ({})", title(a)),
                second: format!("{} ({})", one.key, one.architecture),
                first_counts: (a.row.clean, a.row.robust),
                second_counts: (clean, robust),
                paired: None,
            });
        }
    }
    if matches.is_empty() {
        known.dedup();
        let near = known
            .iter()
            .max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
        let hint = near.map_or_else(
            || {
                let mut models: Vec<String> = first
                    .iter()
                    .map(|a| format!("{} under {}", a.row.dataset, a.row.threat))
                    .collect();
                models.sort();
                models.dedup();
                models.truncate(4);
                format!("none is published for {}", models.join(", "))
            },
            |near| format!("did you mean published:{near}?"),
        );
        let wanted = match key {
            "" => "no published result of Wang et al. 2023".to_owned(),
            key => format!("no published model `{key}`"),
        };
        return Err(Error::input(format!("{wanted} to compare with: {hint}")));
    }
    let small = first.iter().filter(|a| !a.row.is_comparable()).count();
    if small > 0 {
        notes.push(format!(
            "{small} of {} results of {name} are of small scale: not comparable with published ones",
            first.len()
        ));
    }
    notes.push(
        "published figures are known as shares alone, so nothing is paired; they stand for 10,000 \
         images (ImageNet 5,000, SVHN 26,032)"
            .to_owned(),
    );
    let second = if key.is_empty() { "published" } else { key };
    Ok(Versus { first: name, second: second.to_owned(), matches, notes })
}

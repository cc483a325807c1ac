//! `gauntlet leaderboard`: RobustBench's table, with our results in it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    cli::{ours, terminal::print},
    error::{AtPath, Error, Result},
    leaderboard::{
        Row, atomic,
        board::{self, Board},
        published::{self, Published},
        robustbench,
    },
    report::{self, board as render},
    threat::{Norm, ThreatModel},
    units::Epsilon,
};

/// Shows RobustBench's leaderboard with your results among the published ones.
///
/// The published figures are shipped with gauntlet (RobustBench's entries of March 2025, and the
/// papers' tables for SVHN and TinyImageNet); --entries reads a folder of RobustBench's files
/// instead. Your results are marked, and those on few images or with a shortened cascade take no
/// rank: they are not comparable.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gauntlet leaderboard                                 CIFAR-10 under linf 8/255
  gauntlet leaderboard --data cifar10 --norm l2 --eps 0.5 --top 99
  gauntlet leaderboard evaluation out/my-suite         ours beside published rows
  gauntlet leaderboard my.yaml --out board             md, tex, csv, json, html, and
                                                       board/robustbench/*.json to submit
  gauntlet leaderboard --entries model_info/cifar10/Linf")]
pub struct Args {
    /// Our results: folders of `evaluate --out` or `report --out`, results.json, or suites.
    ours: Vec<PathBuf>,
    /// Data set of the table where no results are given.
    #[arg(long, default_value = "cifar10", value_name = "SET")]
    data: String,
    /// Norm of the table where no results are given: linf or l2.
    #[arg(long, default_value = "linf")]
    norm: Norm,
    /// Its bound.
    #[arg(long, default_value = "8/255")]
    eps: Epsilon,
    /// Folder of RobustBench's entries instead of the shipped ones; its name says the norm.
    #[arg(long, value_name = "DIR")]
    entries: Option<PathBuf>,
    /// How many of the best published models the terminal shows.
    #[arg(long, default_value_t = 10, value_name = "N")]
    top: usize,
    /// Also writes leaderboard.{md,tex,csv,json,html} here, and ours as RobustBench entries.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where results of suites are kept.
    #[arg(long, default_value = ".gauntlet", env = "GAUNTLET_STORE")]
    store: PathBuf,
    /// Folder with the data sets that suites name.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Prints the tables as one JSON array.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// If results or entries cannot be read, or files cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let mut rows = Vec::new();
    for path in &args.ours {
        let found = ours::find(path, &args.store, args.data_dir.as_deref())?;
        rows.extend(found.into_iter().map(|found| found.row));
    }
    let boards = boards(args, &rows)?;
    if let Some(out) = &args.out {
        write(out, &boards, &rows)?;
    }
    if args.json {
        print(&serde_json::to_string(&boards).map_err(Error::input)?);
        return Ok(());
    }
    for board in &boards {
        print(&format!("{}\n", render::terminal(board, args.top)));
    }
    if let Some(out) = &args.out {
        print(&format!("written: {}", out.join("leaderboard.html").display()));
    }
    Ok(())
}

/// RobustBench's table of common corruptions: there is no bound, and nothing of ours to add.
fn corruptions(folder: &Path, rows: &[Row]) -> Result<Board> {
    if !rows.is_empty() {
        let message = "accuracies under common corruptions: results of attacks do not belong \
                       there; leave out your results, or name entries of their norm";
        return Err(Error::in_file(folder, message));
    }
    let (entries, mut complaints) = robustbench::read_what_fits(folder)?;
    let lines: Vec<_> = entries
        .iter()
        .filter_map(|named| stand(folder, &named.0, board::corrupted(named), &mut complaints))
        .collect();
    complain(&complaints);
    if lines.is_empty() {
        return Err(Error::in_file(folder, "no entry with `clean_acc` and `corruptions_acc` here"));
    }
    Ok(board::corruptions(&set(folder), lines))
}

/// What stands in a table; what does not is complained about under its file's name.
fn stand<T>(folder: &Path, key: &str, line: Result<T>, complaints: &mut Vec<String>) -> Option<T> {
    line.map_err(|error| {
        let path = folder.join(format!("{key}.json"));
        complaints.push(format!("{}: {error}", path.display()));
    })
    .ok()
}

fn complain(complaints: &[String]) {
    for complaint in complaints {
        eprintln!("left out: {complaint}");
    }
}

/// The data set that a folder such as `cifar10/Linf` is about.
fn set(folder: &Path) -> String {
    let parent = folder.parent().and_then(Path::file_name).unwrap_or_default();
    parent.to_string_lossy().into_owned()
}

fn boards(args: &Args, rows: &[Row]) -> Result<Vec<Board>> {
    let asked = ThreatModel { norm: args.norm, epsilon: args.eps };
    let Some(folder) = &args.entries else {
        if !rows.is_empty() {
            return Ok(board::boards(rows));
        }
        let theirs = published::matching(&args.data, asked);
        if theirs.is_empty() {
            return Err(Error::input(format!(
                "no published results for {} under {asked}: there are cifar10 (linf 8/255, l2 \
                 0.5), cifar100 (linf 8/255), imagenet (linf 4/255), svhn and tiny-imagenet (linf \
                 8/255); --entries DIR reads others",
                args.data
            )));
        }
        return Ok(vec![board::board(&args.data, asked, &theirs, rows)]);
    };
    if folder.ends_with("corruptions") {
        return Ok(vec![corruptions(folder, rows)?]);
    }
    let theirs = entries(folder)?;
    let Some(first) = theirs.first() else {
        return Err(Error::in_file(folder, "no entry with a bound (`eps`) here"));
    };
    let epsilon = theirs.iter().find_map(|one| one.epsilon.parse().ok()).unwrap_or(args.eps);
    let threat = ThreatModel { norm: first.norm, epsilon };
    Ok(vec![board::board(&first.dataset.clone(), threat, &theirs, rows)])
}

fn entries(folder: &Path) -> Result<Vec<Published>> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let norm: Norm = name.parse().map_err(|_| {
        let message = "the folder's name must say the norm, as in model_info/cifar10/Linf";
        Error::in_file(folder, message)
    })?;
    let (entries, mut complaints) = robustbench::read_what_fits(folder)?;
    let mut lines: Vec<Published> = entries
        .iter()
        .filter_map(|(key, entry)| stand(folder, key, entry.published(key, norm), &mut complaints))
        .collect();
    complain(&complaints);
    // Whoever names no data set means that of the folder: cifar10/Linf.
    for line in lines.iter_mut().filter(|line| line.dataset.is_empty()) {
        line.dataset = set(folder);
    }
    Ok(lines)
}

fn write(out: &Path, boards: &[Board], rows: &[Row]) -> Result<()> {
    fs::create_dir_all(out).at(out)?;
    let file = |name: &str, bytes: &[u8]| atomic::write(&out.join(name), bytes);
    file("leaderboard.md", render::markdown(boards).as_bytes())?;
    file("leaderboard.tex", render::latex(boards).as_bytes())?;
    file("leaderboard.csv", render::csv(boards).as_bytes())?;
    file("leaderboard.json", &serde_json::to_vec_pretty(boards).map_err(Error::input)?)?;
    file("leaderboard.html", render::html(boards)?.as_bytes())?;
    if !rows.is_empty() {
        let folder = out.join("robustbench");
        fs::create_dir_all(&folder).at(&folder)?;
        for (at, row) in rows.iter().enumerate() {
            let path = folder.join(format!("{:03}.json", at + 1));
            robustbench::Entry::of(row, &report::write::footnote(row)).write(&path)?;
        }
    }
    Ok(())
}

//! Everything that a report consists of, written into one folder.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    error::{AtPath, Error, Result},
    leaderboard::{Row, atomic, frame, robustbench::Entry},
};

use super::{
    canvas, cells, figures, html,
    input::Input,
    latex, overfit, pgfplots, picture,
    pivot::{self, Pivot},
    plot::Figure,
    seeds, table,
};

/// Where the main files of a report lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The page to open.
    pub html: PathBuf,
    /// The same in Markdown.
    pub markdown: PathBuf,
    /// Every file written, these two included.
    pub files: Vec<PathBuf>,
}

/// Writes the report on `input` into `out`: `report.html` (alone sufficient), `report.md`,
/// `leaderboard.md`, `tables.tex`, `results.csv`, `.json`, `.parquet`, `plots/`, `grids/`, `logs/`
/// (those too long for the page), `robustbench/`. Each file is replaced in one step; what an earlier
/// report wrote there and this one does not is removed.
///
/// # Errors
/// If `out` cannot be written to, or an image's bytes do not fit its size.
pub fn write(input: &Input, out: &Path) -> Result<Written> {
    let figures = figures::all(input)?;
    let pivots = pivot::tables(&input.rows, &input.layout)?;
    let mut folder = Folder::open(out)?;
    let page = html::page(input, &figures, &pivots)?;
    for figure in &figures {
        let name = &figure.name;
        folder.write(&format!("plots/{name}.svg"), canvas::svg(figure)?.as_bytes())?;
        folder.write(&format!("plots/{name}.png"), &canvas::png(figure)?)?;
        folder.write(&format!("plots/{name}.tex"), pgfplots::tex(figure).as_bytes())?;
        folder.write(&format!("plots/{name}.csv"), pgfplots::csv(figure).as_bytes())?;
    }
    for (at, grid) in input.grids.iter().enumerate() {
        folder.write(&grid_file(at), &picture::sheet(grid)?)?;
    }
    for one in &input.provenance {
        if let Some(name) = cells::log_file(one) {
            folder.write(&name, format!("{}\n", one.log.trim_end()).as_bytes())?;
        }
    }
    for (at, row) in table::ranked(&input.rows).into_iter().enumerate() {
        folder
            .entry(&format!("robustbench/{:03}.json", at + 1), &Entry::of(row, &footnote(row)))?;
    }
    let board = table::leaderboard(&input.rows, table::accuracy);
    let overfit = overfit::table(&input.rows);
    let tex = latex::tables(&board, &pivots, overfit.as_ref(), (&input.suite, input.small_scale));
    folder.write("tables.tex", tex.as_bytes())?;
    folder.write("leaderboard.md", leaderboard_markdown(input).as_bytes())?;
    for (name, writer) in [
        ("results.csv", frame::write_csv as fn(&Path, &[Row]) -> Result<()>),
        ("results.json", frame::write_json),
        ("results.parquet", frame::write_parquet),
    ] {
        writer(&out.join(name), &input.rows)?;
        folder.files.push(out.join(name));
    }
    let markdown = folder.write("report.md", markdown(input, &figures, &pivots)?.as_bytes())?;
    // Last: whoever finds the page finds everything else.
    let html = folder.write("report.html", page.as_bytes())?;
    folder.sweep()?;
    Ok(Written { html, markdown, files: folder.files })
}

/// What the files of a report are listed in, for the next one.
const LIST: &str = ".report-files";

/// The folders that a report fills.
const FOLDERS: [&str; 4] = ["plots", "grids", "logs", "robustbench"];

struct Folder {
    root: PathBuf,
    files: Vec<PathBuf>,
}

impl Folder {
    fn open(root: &Path) -> Result<Self> {
        for part in FOLDERS {
            fs::create_dir_all(root.join(part)).at(&root.join(part))?;
        }
        Ok(Self { root: root.to_owned(), files: Vec::new() })
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.root.join(name);
        atomic::write(&path, bytes)?;
        self.files.push(path.clone());
        Ok(path)
    }

    fn entry(&mut self, name: &str, entry: &Entry) -> Result<()> {
        let path = self.root.join(name);
        entry.write(&path)?;
        self.files.push(path);
        Ok(())
    }

    /// Removes what an earlier report wrote and this one did not, by the list it left; whatever
    /// else lies there is not ours. Leaves the list of this one.
    fn sweep(&self) -> Result<()> {
        let list = self.root.join(LIST);
        let earlier = fs::read_to_string(&list).unwrap_or_default();
        for name in earlier.lines() {
            let path = self.root.join(name);
            let place = Path::new(name).parent().and_then(Path::to_str);
            let ours = place.is_some_and(|place| FOLDERS.contains(&place));
            if ours && !self.files.contains(&path) && path.is_file() {
                fs::remove_file(&path).at(&path)?;
            }
        }
        for part in FOLDERS {
            // Those with something in them stay.
            let _ = fs::remove_dir(self.root.join(part));
        }
        let names = self.files.iter().filter_map(|path| path.strip_prefix(&self.root).ok());
        let names: Vec<_> = names.map(|name| name.display().to_string()).collect();
        atomic::write(&list, (names.join("\n") + "\n").as_bytes())
    }
}

fn grid_file(at: usize) -> String {
    format!("grids/{:02}.png", at + 1)
}

/// What stands under a result in RobustBench's table: counts, attacks, the watermark.
pub fn footnote(row: &Row) -> String {
    let mut text = format!(
        "{} images: {}. Clean {}%, robust {}% (95% Wilson intervals).",
        row.robust.total,
        attacks(row),
        table::accuracy(row.clean),
        table::accuracy(row.robust)
    );
    if !row.is_comparable() {
        text.push(' ');
        text.push_str(SMALL);
    }
    for warning in &row.warnings {
        let _ = write!(text, " Warning: {warning}.");
    }
    text
}

/// The cascade of a row, in words.
pub(super) fn attacks(row: &Row) -> String {
    let names: Vec<_> = row.robust_after.iter().map(|(name, _)| name.as_str()).collect();
    if names.is_empty() { row.evaluation.clone() } else { names.join(", ") }
}

/// The watermark of small experiments.
pub const SMALL: &str = "Small scale: not comparable with published results.";

/// Every distinct warning with the rows that it concerns.
pub(super) fn warnings(rows: &[Row]) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for row in rows {
        for warning in &row.warnings {
            let place = format!("{} ({})", row.cell, row.threat);
            match found.iter_mut().find(|(text, _)| text == warning) {
                Some((_, places)) => places.push(place),
                None => found.push((warning.clone(), vec![place])),
            }
        }
    }
    found
}

fn leaderboard_markdown(input: &Input) -> String {
    let watermark = if input.small_scale { format!("> **{SMALL}**\n\n") } else { String::new() };
    let suite = table::escape(&input.suite);
    format!("# {suite}: leaderboard\n\n{watermark}{}", table::markdown(&input.rows))
}

fn markdown(input: &Input, figures: &[Figure], pivots: &[Pivot]) -> Result<String> {
    let mut text = format!("# {}\n\n", table::escape(input.title()));
    if input.small_scale {
        let _ = write!(text, "> **{SMALL}**\n\n");
    }
    if !input.description.is_empty() {
        let _ = write!(text, "{}\n\n", table::escape(&input.description));
    }
    for best in seeds::best(&input.rows)? {
        let _ = writeln!(text, "- {}", table::escape(&best.verdict()));
    }
    let _ = write!(text, "\n## Leaderboard\n\n{}", table::markdown(&input.rows));
    let warned = warnings(&input.rows);
    if !warned.is_empty() {
        text.push_str("\n## Warnings\n\n");
        for (warning, places) in warned {
            let _ = writeln!(
                text,
                "- {} — {}",
                table::escape(&warning),
                table::escape(&places.join("; "))
            );
        }
    }
    if !pivots.is_empty() {
        let _ = write!(text, "\n## Tables\n\n{}", pivot::markdown(pivots));
    }
    if let Some(table) = overfit::table(&input.rows) {
        let lines = table::markdown_lines(&table);
        let _ = write!(text, "\n**{}**\n\n{lines}\n{}\n", overfit::TITLE, overfit::NOTE);
    }
    if !figures.is_empty() {
        text.push_str("\n## Figures\n\n");
    }
    for figure in figures {
        let title = table::escape(&figure.title);
        let caption = table::escape(&figure.caption);
        let _ = write!(text, "![{title}](plots/{}.png)\n\n**{title}.** {caption}\n\n", figure.name);
    }
    for (at, grid) in input.grids.iter().enumerate() {
        let title = table::escape(&grid.title);
        let caption = table::escape(&grid.caption);
        let _ = write!(text, "![{title}]({})\n\n**{title}.** {caption}\n\n", grid_file(at));
    }
    text.push_str("## Made by\n\n");
    if !input.command.is_empty() {
        let _ = write!(text, "    {}\n\n", input.command.replace('\n', " "));
    }
    for (what, version) in &input.versions {
        let _ = writeln!(text, "- {}: {}", table::escape(what), table::escape(version));
    }
    Ok(text)
}

/// An input read back from JSON, for examples and tools.
///
/// # Errors
/// If the file is missing or no such JSON.
pub fn read_input(path: &Path) -> Result<Input> {
    let bytes = fs::read(path).at(path)?;
    serde_json::from_slice(&bytes).map_err(|error| Error::in_file(path, error))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A realistic report of twelve rows.
    pub(crate) fn demo() -> Input {
        super::super::demo::input()
    }

    #[test]
    fn everything_is_written_and_nothing_stays_behind() {
        let folder = tempfile::tempdir().unwrap();
        let mut input = demo();
        let written = write(&input, folder.path()).unwrap();
        for path in &written.files {
            assert!(fs::metadata(path).unwrap().len() > 0, "{}", path.display());
        }
        assert_eq!(written.html, folder.path().join("report.html"));
        let first = fs::read(&written.html).unwrap();
        // The same input gives the same bytes; a smaller one removes what it no longer has.
        input.curves.clear();
        input.grids.clear();
        let fewer = write(&input, folder.path()).unwrap();
        assert!(fewer.files.len() < written.files.len());
        assert!(!folder.path().join("grids").exists());
        let again = write(&demo(), folder.path()).unwrap();
        assert_eq!(fs::read(&again.html).unwrap(), first);
        let text = fs::read_to_string(&written.markdown).unwrap();
        for file in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            assert!(folder.path().join(file).exists(), "{file}");
        }
        assert!(text.contains("of 2000 images withstood every attack"));
    }

    #[test]
    fn an_empty_suite_still_has_a_report() {
        let folder = tempfile::tempdir().unwrap();
        let input =
            Input { rows: vec![], grids: vec![], curves: vec![], provenance: vec![], ..demo() };
        let written = write(&input, folder.path()).unwrap();
        assert!(fs::read_to_string(written.html).unwrap().contains("No results yet"));
    }

    #[test]
    fn a_later_report_removes_what_is_stale_and_nothing_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("plots")).unwrap();
        fs::write(at("plots/mine.pdf"), "mine").unwrap();
        let mut input = demo();
        input.provenance[0].log = "a line\n".repeat(13);
        let log = at("logs").join(format!("{}.log", input.provenance[0].job));
        let page = write(&input, folder.path()).unwrap().html;
        assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 13);
        let text = fs::read_to_string(page).unwrap();
        assert!(text.contains(&format!("logs/{}.log", input.provenance[0].job)));
        assert_eq!(text.matches("a line").count() % 12, 0);
        input.provenance.clear();
        input.grids.clear();
        input.curves.clear();
        write(&input, folder.path()).unwrap();
        assert!(!at("logs").exists() && !at("grids").exists());
        assert!(at("plots/mine.pdf").exists() && at("plots/attacks.svg").exists());
        let curves = fs::read_dir(at("plots")).unwrap().filter(|item| {
            item.as_ref().unwrap().file_name().to_string_lossy().starts_with("curve-")
        });
        assert_eq!(curves.count(), 0);
    }

    #[test]
    fn a_bad_image_is_named_and_nothing_is_half_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut input = demo();
        input.grids[0].images[0].rgb.pop();
        assert!(write(&input, folder.path()).unwrap_err().to_string().contains("3072"));
        assert!(!folder.path().join("report.html").exists());
    }
}

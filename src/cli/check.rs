//! `gauntlet check`: whether results fell, for continuous integration.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::json;

use crate::{
    cli::{
        gather,
        run::{self, Settings},
        terminal::print,
    },
    error::{AtPath, Error, Result},
    leaderboard::{Row, frame, statistics},
    report::write::SMALL,
    suite::ci::Thresholds,
    units::Tally,
};

/// Compares a suite's results with earlier ones and fails if they fell.
///
/// Runs what is missing, then compares every cell's clean and robust accuracy with the baseline (a
/// `results.json` that an earlier report wrote). An accuracy has fallen when the whole confidence
/// interval of the difference lies beyond the threshold: chance on few images is no alarm. The
/// suite's `ci:` section sets thresholds; options win over it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gauntlet check suites/ci/cifar10.yaml --save baseline.json     make a baseline
  gauntlet check suites/ci/cifar10.yaml --baseline baseline.json \\
      --markdown comment.md --junit results.xml

Exit codes: 0 nothing fell, 1 something fell or a job failed, 2 bad input,
3 a file cannot be read or written, 130 interrupted (the same command goes on)")]
pub struct Args {
    #[command(flatten)]
    run: Settings,
    /// Earlier results: results.json of a report, or what --save wrote.
    #[arg(long, value_name = "FILE", required_unless_present = "save")]
    baseline: Option<PathBuf>,
    /// Writes the results as a new baseline.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Points that accuracies may lose beyond what chance explains [default: the suite's `ci:`].
    #[arg(long, value_name = "POINTS")]
    threshold: Option<f64>,
    /// Confidence of the interval [default: the suite's `ci:`, else 0.95].
    #[arg(long)]
    confidence: Option<f64>,
    /// Cells of the baseline that are gone are no failure.
    #[arg(long)]
    allow_missing: bool,
    /// Only looks at what the store holds; runs nothing.
    #[arg(long)]
    no_run: bool,
    /// Writes the summary as Markdown, fit for a pull-request comment.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Writes JUnit XML, which CI servers show as tests.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Prints one JSON object instead of Markdown.
    #[arg(long)]
    json: bool,
}

/// One accuracy of one cell against its baseline.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Finding {
    cell: String,
    threat: String,
    measure: &'static str,
    before: Option<Tally>,
    now: Option<Tally>,
    /// Points: now minus before, and its confidence interval.
    difference: Option<(f64, f64, f64)>,
    /// What is wrong, if something is.
    failure: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// If something fell, a job failed, or the input is bad.
pub fn run(args: &Args) -> Result<()> {
    let thresholds = |ci: Thresholds| -> Result<Thresholds> {
        let mut ci = ci;
        if let Some(points) = args.threshold {
            (ci.clean, ci.robust) = (points, points);
        }
        ci.confidence = args.confidence.unwrap_or(ci.confidence);
        if !(0.0..=100.0).contains(&ci.clean) || !(0.5..1.0).contains(&ci.confidence) {
            return Err(Error::input(
                "--threshold takes 0 to 100 points, --confidence 0.5 to below 1",
            ));
        }
        Ok(ci)
    };
    // Bad input is said before anything runs.
    let baseline = args.baseline.as_deref().map(frame::read_json).transpose()?;
    let (plan, store) = if args.no_run { args.run.open()? } else { run::everything(&args.run)? };
    let thresholds = thresholds(plan.ci)?;
    let input = gather::input(&plan, &store, String::new())?;
    if let Some(path) = &args.save {
        frame::write_json(path, &input.rows)?;
        print(&format!("baseline of {} rows: {}", input.rows.len(), path.display()));
    }
    let Some(baseline) = baseline else { return Ok(()) };
    let findings = compare(&baseline, &input.rows, &thresholds, args.allow_missing);
    let text = markdown(&plan.suite, &findings, &thresholds, input.small_scale);
    if let Some(path) = &args.markdown {
        fs::write(path, &text).at(path)?;
    }
    if let Some(path) = &args.junit {
        fs::write(path, junit(&plan.suite, &findings, input.small_scale)).at(path)?;
    }
    let fallen = findings.iter().filter(|finding| finding.failure.is_some()).count();
    if args.json {
        let object = json!({
            "suite": plan.suite, "passed": fallen == 0, "failures": fallen,
            "thresholds": thresholds, "small_scale": input.small_scale, "findings": findings,
        });
        print(&object.to_string());
    } else {
        print(&text);
    }
    verdict(fallen, args.baseline.as_deref().unwrap_or(Path::new("")))
}

fn verdict(fallen: usize, baseline: &Path) -> Result<()> {
    match fallen {
        0 => Ok(()),
        _ => Err(Error::Jobs(format!(
            "{fallen} accuracies fell below the baseline {}",
            baseline.display()
        ))),
    }
}

fn compare(
    before: &[Row],
    now: &[Row],
    thresholds: &Thresholds,
    allow_missing: bool,
) -> Vec<Finding> {
    let same =
        |a: &Row, b: &Row| a.cell == b.cell && a.threat == b.threat && a.dataset == b.dataset;
    let mut findings = Vec::new();
    for row in now {
        let old = before.iter().find(|old| same(old, row));
        let measures = [
            ("clean", old.map(|old| old.clean), row.clean, thresholds.clean, thresholds.min_clean),
            (
                "robust",
                old.map(|old| old.robust),
                row.robust,
                thresholds.robust,
                thresholds.min_robust,
            ),
        ];
        for (measure, old, new, allowed, floor) in measures {
            findings.push(judge(row, measure, (old, new), (allowed, floor), thresholds.confidence));
        }
    }
    for row in before.iter().filter(|old| !now.iter().any(|row| same(old, row))) {
        let failure = "is in the baseline and was not evaluated now".to_owned();
        findings.push(Finding {
            cell: row.cell.clone(),
            threat: row.threat.to_string(),
            measure: "robust",
            before: Some(row.robust),
            now: None,
            difference: None,
            failure: (!allow_missing).then_some(failure),
        });
    }
    findings
}

fn judge(
    row: &Row,
    measure: &'static str,
    (before, now): (Option<Tally>, Tally),
    (allowed, floor): (f64, Option<f64>),
    confidence: f64,
) -> Finding {
    let difference = before.map(|before| statistics::difference(now, before, confidence));
    let fell = difference.filter(|(_, _, high)| *high < -allowed).map(|(points, low, high)| {
        format!(
            "fell by {:.1} points ({:.0}% interval {:.1} to {:.1}), more than the {allowed} allowed",
            -points,
            100.0 * confidence,
            -high,
            -low
        )
    });
    let low = floor.filter(|floor| now.percent() < *floor);
    let low =
        low.map(|floor| format!("{:.1}% is below the least allowed, {floor}%", now.percent()));
    Finding {
        cell: row.cell.clone(),
        threat: row.threat.to_string(),
        measure,
        before,
        now: Some(now),
        difference,
        failure: fell.or(low),
    }
}

fn accuracy(tally: Option<Tally>) -> String {
    tally.map_or_else(
        || "–".to_owned(),
        |tally| format!("{:.1}% ({}/{})", tally.percent(), tally.correct, tally.total),
    )
}

fn markdown(suite: &str, findings: &[Finding], thresholds: &Thresholds, small: bool) -> String {
    let escape = |text: &str| text.replace('|', "\\|").replace('<', "&lt;");
    let fallen = findings.iter().filter(|finding| finding.failure.is_some()).count();
    let compared = findings.iter().filter(|finding| finding.difference.is_some()).count();
    let head = match fallen {
        0 => format!("✅ {}: no accuracy fell ({compared} compared)", escape(suite)),
        _ => format!("❌ {}: {fallen} of {} accuracies fell", escape(suite), findings.len()),
    };
    let mut text = format!("### {head}\n\n");
    if small {
        let _ = write!(text, "> **{SMALL}**\n\n");
    }
    text.push_str("| cell | threat | accuracy | baseline | now | difference (interval) | |\n");
    text.push_str("|---|---|---|---:|---:|---:|---|\n");
    for finding in findings {
        let difference = finding.difference.map_or_else(
            || if finding.before.is_none() { "new".to_owned() } else { "–".to_owned() },
            |(points, low, high)| format!("{points:+.1} ({low:+.1} to {high:+.1})"),
        );
        let verdict = finding.failure.as_ref().map_or("ok".to_owned(), |why| format!("❌ {why}"));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {difference} | {verdict} |",
            escape(&finding.cell),
            finding.threat,
            finding.measure,
            accuracy(finding.before),
            accuracy(finding.now)
        );
    }
    let _ = write!(
        text,
        "\nAn accuracy fell if the whole {:.0}% interval of the difference says that it lost more than \
         {} points (clean) or {} (robust).\n",
        100.0 * thresholds.confidence,
        thresholds.clean,
        thresholds.robust
    );
    text
}

fn junit(suite: &str, findings: &[Finding], small: bool) -> String {
    let escape = |text: &str| {
        let plain: String = text.chars().filter(|c| !c.is_control()).collect();
        let plain = plain.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        plain.replace('"', "&quot;")
    };
    let fallen = findings.iter().filter(|finding| finding.failure.is_some()).count();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"{}\" \
         tests=\"{}\" failures=\"{fallen}\" errors=\"0\" skipped=\"0\">\n",
        escape(suite),
        findings.len()
    );
    if small {
        let _ = writeln!(
            text,
            "<properties><property name=\"watermark\" value=\"{}\"/></properties>",
            escape(SMALL)
        );
    }
    for finding in findings {
        let name = format!("{} [{}] {}", finding.cell, finding.threat, finding.measure);
        let class = format!("gauntlet.{suite}");
        let _ =
            write!(text, "<testcase classname=\"{}\" name=\"{}\"", escape(&class), escape(&name));
        match &finding.failure {
            Some(why) => {
                let why = escape(why);
                let _ = writeln!(text, "><failure message=\"{why}\">{why}</failure></testcase>");
            }
            None => text.push_str("/>\n"),
        }
    }
    text.push_str("</testsuite>\n</testsuites>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(robust: u64) -> Vec<Row> {
        let mut row = crate::report::demo::input().rows[0].clone();
        row.clean = Tally { correct: 150, total: 200 };
        row.robust = Tally { correct: robust, total: 200 };
        row.cell = "a <b> & \"c\"".to_owned();
        vec![row]
    }

    fn failures(before: u64, now: u64, points: f64) -> usize {
        let thresholds = Thresholds { robust: points, ..Thresholds::default() };
        let found = compare(&rows(before), &rows(now), &thresholds, false);
        assert_eq!(found.len(), 2);
        found.iter().filter(|finding| finding.failure.is_some()).count()
    }

    #[test]
    fn chance_is_no_alarm_and_a_fall_is() {
        assert_eq!(failures(100, 100, 0.0), 0);
        assert_eq!(failures(100, 92, 0.0), 0, "4 points on 200 images are within the interval");
        assert_eq!(failures(100, 70, 0.0), 1, "15 points are not");
        assert_eq!(failures(100, 70, 20.0), 0, "allowed");
        assert_eq!(failures(70, 100, 0.0), 0, "a rise is no fall");
        let gone = compare(&rows(100), &[], &Thresholds::default(), false);
        assert!(gone[0].failure.is_some());
        assert!(compare(&rows(100), &[], &Thresholds::default(), true)[0].failure.is_none());
        let floor = Thresholds { min_robust: Some(60.0), ..Thresholds::default() };
        assert!(compare(&[], &rows(100), &floor, false)[1].failure.is_some());
    }

    #[test]
    fn summaries_carry_the_watermark_and_stay_well_formed() {
        let thresholds = Thresholds::default();
        let found = compare(&rows(100), &rows(60), &thresholds, false);
        let text = markdown("s", &found, &thresholds, true);
        assert!(text.contains(SMALL) && text.contains("❌") && text.contains("a &lt;b>"));
        let xml = junit("s", &found, true);
        assert!(xml.contains("tests=\"2\" failures=\"1\"") && xml.contains(SMALL));
        assert!(xml.contains("a &lt;b&gt; &amp; &quot;c&quot;") && !xml.contains("<b>"));
        assert_eq!(xml.matches("<testcase").count(), 2);
    }
}

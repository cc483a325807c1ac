//! The report's page in a real browser: sorting, filtering, hover texts, a clean console, and
//! no request that leaves the page.
//!
//! Where no Chromium is installed these tests say so and do nothing; the structure of the page is
//! tested without one as well.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use gauntlet::report;

const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

fn browser() -> Option<&'static str> {
    let runs = |name: &&str| {
        let mut command = Command::new(name);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let found = BROWSERS.into_iter().find(runs);
    if found.is_none() {
        eprintln!("SKIPPED: no Chromium here (apt-get install chromium), so the page was not run");
    }
    found
}

fn page(folder: &Path) -> PathBuf {
    report::write(&report::demo::input(), folder).unwrap().html
}

/// The page after its scripts ran, and what the browser logged.
fn visit(browser: &str, page: &Path, hash: &str) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let requests = profile.path().join("net.json");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        .args(["--no-first-run", "--enable-logging=stderr", "--log-level=0", "--dump-dom"])
        .args(["--timeout=20000", "--virtual-time-budget=2000"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--log-net-log={}", requests.display()))
        .arg(format!("file://{}{hash}", page.display()))
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let network = fs::read_to_string(&requests).unwrap_or_default();
    let asked: Vec<_> = network
        .split("\"url\":\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter(|url| url.starts_with("http") || url.starts_with("ws"))
        // The browser's own errands, which no flag of it silences altogether.
        .filter(|url| !["google", "gstatic", "chrome"].iter().any(|own| url.contains(own)))
        .collect();
    assert!(asked.is_empty(), "the page asked for {asked:?}");
    (String::from_utf8_lossy(&output.stdout).into_owned(), log)
}

/// The leaderboard's visible lines in document order, as (rank, clean, robust).
fn lines(dom: &str) -> Vec<(u32, f64, f64)> {
    let board = dom.split("id=\"board\"").nth(1).unwrap().split("</table>").next().unwrap();
    let body = board.split("<tbody>").nth(1).unwrap();
    let mut found = Vec::new();
    for row in body.split("<tr").skip(1).filter(|row| !row.starts_with(" hidden")) {
        let values: Vec<&str> = row
            .split("data-value=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        // rank, steps, generated, threat, clean, robust, ...
        found.push((
            values[0].parse().unwrap(),
            values[4].parse().unwrap(),
            values[5].parse().unwrap(),
        ));
    }
    found
}

#[test]
fn a_browser_sorts_filters_and_stays_silent() {
    let Some(browser) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = page(folder.path());
    let (dom, log) = visit(browser, &page, "");
    assert!(!log.contains("CONSOLE"), "{log}");
    assert!(dom.contains("12 of 12 rows"));
    assert_eq!(
        lines(&dom).iter().map(|line| line.0).collect::<Vec<_>>(),
        (1..=12).collect::<Vec<_>>()
    );
    // Scripts took the hover texts over.
    assert!(
        dom.contains("data-tip=\"20 · 50K · linf 8/255: robust 48.1 [45.9, 50.3]% (962 of 2000)")
    );

    let (dom, log) = visit(browser, &page, "#sort=clean.asc");
    assert!(!log.contains("CONSOLE"), "{log}");
    let sorted = lines(&dom);
    assert_eq!(sorted.len(), 12);
    assert!(sorted.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{sorted:?}");
    assert!(dom.contains("data-key=\"clean\" aria-sort=\"ascending\""));

    let (dom, log) = visit(browser, &page, "#sort=robust.desc&filter=linf%2050K");
    assert!(!log.contains("CONSOLE"), "{log}");
    let filtered = lines(&dom);
    assert_eq!(filtered.len(), 3, "{filtered:?}");
    assert!(filtered.windows(2).all(|pair| pair[0].2 >= pair[1].2), "{filtered:?}");
    assert!(dom.contains("3 of 12 rows"));

    let (dom, log) = visit(browser, &page, "#cell-3");
    assert!(!log.contains("CONSOLE"), "{log}");
    assert!(dom.contains("id=\"cell-3\" open=\"\""), "the cell's page opens");
}

#[test]
fn hostile_words_from_data_stay_words() {
    let folder = tempfile::tempdir().unwrap();
    let attack = "<script>console.error('ran')</script><img src=x onerror=console.error('ran')>";
    let mut input = report::demo::input();
    input.suite = attack.into();
    input.description = attack.into();
    input.command = attack.into();
    input.grids[0].title = attack.into();
    input.grids[0].images[0].label = format!("\" onerror=\"console.error('ran')\" {attack}");
    input.curves[0].title = attack.into();
    input.curves[0].lines[0].0 = attack.into();
    input.provenance[0].spec = serde_json::json!({ "x": attack });
    input.provenance[0].facts.push((attack.into(), attack.into()));
    for row in &mut input.rows {
        row.axes[0].1 = attack.into();
        row.cell = attack.into();
        row.warnings.push(attack.into());
        row.robust_after[0].0 = attack.into();
    }
    let page = report::write(&input, folder.path()).unwrap().html;
    let text = fs::read_to_string(&page).unwrap();
    assert!(!text.contains("<script>console") && !text.contains("<img src=x"));
    assert_eq!(text.matches("<script>").count(), 1);
    if let Some(browser) = browser() {
        let (_, log) = visit(browser, &page, "");
        assert!(!log.contains("CONSOLE"), "{log}");
    }
}

#[test]
fn the_page_needs_nothing_but_itself() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(page(folder.path())).unwrap();
    assert!(text.contains("default-src 'none'"));
    // Addresses may be clicked, never loaded: no src, url() or link to a network.
    for loader in ["src=\"http", "url(http", "src=\"//", "@import", "<link rel=\"stylesheet"] {
        assert!(!text.contains(loader), "{loader}");
    }
    // Every place within the page that is linked to exists.
    for target in text.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(text.contains(&format!("id=\"{target}\"")), "#{target}");
    }
    // Every figure is drawn and says its exact values.
    let figures = text.matches("<figure id=").count();
    assert!(figures >= 8 && text.matches("role=\"img\"").count() == figures, "{figures}");
}

#[test]
fn plots_are_sized_for_a_column_and_repeat_to_the_byte() {
    let figures = report::figures::all(&report::demo::input()).unwrap();
    for figure in &figures {
        let svg = report::canvas::svg(figure).unwrap();
        assert_eq!(svg, report::canvas::svg(figure).unwrap(), "{}", figure.name);
        assert!(svg.contains("width=\"3.25in\""), "{}", figure.name);
        // 1248 dots across 3.25 inches: 8 points are 42.67 dots.
        for size in svg.split("font-size=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(size.parse::<f64>().unwrap() >= 42.67, "{}: {size}", figure.name);
        }
        let png = report::canvas::png(figure).unwrap();
        assert_eq!(&png[1..4], b"PNG");
    }
    assert!(figures.iter().any(|figure| figure.name == "accuracy-by-sampler-steps"));
    assert!(figures.iter().any(|figure| figure.name == "accuracy-by-generated-training-images"));
    assert!(figures.iter().any(|figure| figure.name == "attacks"));
}

//! The report's page in a real browser: sorting, filtering, hover texts, a clean console, and
//! no request that leaves the page.
//!
//! The tests that drive Chromium are ignored unless asked for (CI asks) and fail without one; the
//! structure of the page is tested without one as well.

use std::{
    fs,
    path::{Path, PathBuf},
};

use gauntlet::report;

use crate::browser::Tab;

fn page(folder: &Path) -> PathBuf {
    report::write(&report::demo::input(), folder).unwrap().html
}

const ORDER: &str = "[...document.querySelectorAll('#board tbody tr:not([hidden])')]\
    .map(row => [row.cells[0], row.cells[4], row.cells[5]].map(cell => Number(cell.dataset.value)))";

/// The leaderboard's visible lines in order: (rank, clean, robust).
fn lines(tab: &mut Tab) -> Vec<(u64, f64, f64)> {
    let found = tab.value(ORDER);
    let line = |line: &serde_json::Value| {
        (line[0].as_u64().unwrap(), line[1].as_f64().unwrap(), line[2].as_f64().unwrap())
    };
    found.as_array().unwrap().iter().map(line).collect()
}

fn silent(tab: &mut Tab, page: &Path) {
    let (said, asked) = tab.said_and_asked();
    assert!(said.is_empty(), "{said:?}");
    let own = format!("file://{}", page.display());
    let strangers: Vec<_> = asked
        .iter()
        .filter(|url| !url.starts_with(&own) && !url.starts_with("data:") && *url != "about:blank")
        .collect();
    assert!(strangers.is_empty(), "the page asked for {strangers:?}");
    assert!(asked.iter().any(|url| url.starts_with(&own)), "requests are seen at all");
}

#[test]
#[ignore = "needs Chromium"]
fn a_browser_sorts_filters_and_hovers() {
    let folder = tempfile::tempdir().unwrap();
    let page = page(folder.path());
    let mut tab = Tab::open(&page, "");
    tab.resize(1200, 900, false);
    let count = "document.getElementById('count').textContent";
    tab.becomes(count, "12 of 12 rows");
    let ranks = |tab: &mut Tab| lines(tab).iter().map(|line| line.0).collect::<Vec<_>>();
    assert_eq!(ranks(&mut tab), (1..=12).collect::<Vec<_>>());

    // A click on a heading sorts, largest first; a second one turns the order round.
    tab.click("th[data-key=clean] button");
    let sorted = lines(&mut tab);
    assert!(sorted.windows(2).all(|pair| pair[0].1 >= pair[1].1), "{sorted:?}");
    assert_ne!(ranks(&mut tab), (1..=12).collect::<Vec<_>>());
    // By keyboard as well: the heading has the focus after the click.
    tab.key("Enter", 13);
    let sorted = lines(&mut tab);
    assert!(sorted.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{sorted:?}");
    let said = tab.value("document.querySelector('th[data-key=clean]').getAttribute('aria-sort')");
    assert_eq!(said, "ascending");

    // Typing filters; words count together.
    tab.click("#filter");
    tab.write("linf 50K");
    tab.becomes(count, "3 of 12 rows");
    assert_eq!(lines(&mut tab).len(), 3);
    tab.write(" nothing-like-this");
    tab.becomes(count, "0 of 12 rows");

    // The address keeps order and filter.
    let own = format!("file://{}", page.display());
    tab.visit(&format!("{own}#sort=robust.desc&filter=l2"));
    tab.becomes(count, "6 of 12 rows");
    assert_eq!(tab.value("document.getElementById('filter').value"), "l2");

    // Hovering over a point says its exact value; leaving it says nothing.
    tab.hover("#figure-accuracy-by-cell .spot");
    tab.becomes("document.getElementById('tip').hidden", false);
    let tip = tab.value("document.getElementById('tip').textContent");
    assert!(tip.as_str().unwrap().contains(" of 2000)"), "{tip}");
    tab.hover("h1");
    tab.becomes("document.getElementById('tip').hidden", true);

    // A link opens a cell's page, with its provenance.
    tab.click("#board tbody tr:not([hidden]) td a");
    tab.becomes("document.querySelectorAll('details.cellpage[open]').length", 1);
    silent(&mut tab, &page);
}

#[test]
#[ignore = "needs Chromium"]
fn the_page_fits_phones_print_and_the_dark() {
    let folder = tempfile::tempdir().unwrap();
    let page = page(folder.path());
    let mut tab = Tab::open(&page, "");
    let ground = "getComputedStyle(document.documentElement).backgroundColor";
    for (name, width, phone) in [("desktop", 1200, false), ("phone", 390, true)] {
        tab.resize(width, 900, phone);
        for scheme in ["light", "dark"] {
            tab.medium("screen", scheme);
            tab.picture(&format!("{name}-{scheme}"));
            // Nothing but the framed tables may scroll sideways.
            let wide = tab.value("document.documentElement.scrollWidth");
            assert!(wide.as_u64().unwrap() <= u64::from(width), "{name}: {wide}");
            let colour = tab.value(ground);
            assert_eq!(colour == "rgb(251, 251, 250)", scheme == "light", "{colour}");
        }
    }
    // The first key reaches the way past the navigation, and a heading can be reached by keys.
    tab.resize(1200, 900, false);
    tab.key("Tab", 9);
    assert_eq!(tab.value("document.activeElement.className"), "skip");
    let mut reached = false;
    for _ in 0..40 {
        tab.key("Tab", 9);
        reached |= tab.value("document.activeElement.closest('#board thead') !== null") == true;
    }
    assert!(reached, "the headings can be reached by keys");
    tab.medium("print", "light");
    assert_eq!(tab.value("getComputedStyle(document.querySelector('nav')).display"), "none");
    let paper = tab.call("Page.printToPDF", serde_json::json!({}));
    assert!(paper["data"].as_str().unwrap().starts_with("JVBERi"), "a PDF");
    tab.picture("print");
    silent(&mut tab, &page);
}

/// A report whose every word from data attacks the page.
fn hostile() -> report::Input {
    let attack = "<script>console.error('ran')</script><img src=x onerror=console.error('ran')>";
    let mut input = report::demo::input();
    input.suite = attack.into();
    input.description = attack.into();
    input.command = attack.into();
    input.layout.title = Some(attack.into());
    input.provenance[0].log = attack.into();
    input.rows[0].reference = Some(gauntlet::leaderboard::row::Reference {
        clean: None,
        robust: Some(50.0),
        fid: None,
        source: attack.into(),
        certainty: attack.into(),
    });
    input.grids[0].title = attack.into();
    input.grids[0].images[0].label = format!("\" onerror=\"console.error('ran')\" {attack}");
    input.curves[0].title = attack.into();
    input.curves[0].setting = attack.into();
    input.curves[0].lines[0].0 = attack.into();
    input.provenance[0].spec = serde_json::json!({ "x": attack });
    input.provenance[0].facts.push((attack.into(), attack.into()));
    for row in &mut input.rows {
        row.axes[0].1 = attack.into();
        row.cell = attack.into();
        row.warnings.push(attack.into());
        row.robust_after[0].0 = attack.into();
    }
    input
}

#[test]
fn hostile_words_from_data_stay_words() {
    let folder = tempfile::tempdir().unwrap();
    let page = report::write(&hostile(), folder.path()).unwrap().html;
    let text = fs::read_to_string(&page).unwrap();
    assert!(!text.contains("<script>console") && !text.contains("<img src=x"));
    assert_eq!(text.matches("<script>").count(), 1);
    // Nor does anything act in the files beside it.
    for item in fs::read_dir(folder.path().join("plots")).unwrap() {
        let path = item.unwrap().path();
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        let kind = path.extension().unwrap().to_str().unwrap();
        assert!(kind == "png" || !text.contains("<script>"), "{}", path.display());
    }
    let markdown = fs::read_to_string(folder.path().join("report.md")).unwrap();
    let shown = |line: &&str| !line.starts_with("    ");
    assert!(!markdown.lines().filter(shown).any(|line| line.contains("<script>")), "{markdown}");
}

#[test]
#[ignore = "needs Chromium"]
fn hostile_words_run_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let page = report::write(&hostile(), folder.path()).unwrap().html;
    let mut tab = Tab::open(&page, "");
    tab.hover("#figure-accuracy-by-cell .spot");
    silent(&mut tab, &page);
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

//! The job graph as a picture: a column for each stage, a box for each job, SVG.

use std::{collections::HashMap, fmt::Write};

use crate::{
    digest::JobId,
    plan::{Job, Plan, Stage},
};

/// More boxes than this in one column are drawn as one box that counts them.
const MOST_BOXES: usize = 60;
const WIDTH: usize = 330;
const HEIGHT: usize = 34;
const GAP: (usize, usize) = (90, 12);
const MARGIN: usize = 24;
const HEAD: usize = 40;

struct Box<'a> {
    jobs: Vec<&'a Job>,
    x: usize,
    y: usize,
}

/// Draws `plan`; `done` says which jobs need not run.
pub fn svg(plan: &Plan, done: &dyn Fn(&JobId) -> bool) -> String {
    let boxes = boxes(plan);
    let by_job: HashMap<&JobId, usize> = boxes
        .iter()
        .enumerate()
        .flat_map(|(at, one)| one.jobs.iter().map(move |job| (&job.id, at)))
        .collect();
    let width = boxes.iter().map(|one| one.x + WIDTH).max().unwrap_or(WIDTH) + MARGIN;
    let height = boxes.iter().map(|one| one.y + HEIGHT).max().unwrap_or(HEIGHT) + MARGIN;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>{}: {} jobs for {} cells</title>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n",
        escape(&plan.suite),
        plan.jobs.len(),
        plan.cells.len()
    );
    let mut drawn = std::collections::BTreeSet::new();
    for job in &plan.jobs {
        let to = by_job[&job.id];
        for from in job.inputs.iter().filter_map(|input| by_job.get(&input.id)) {
            drawn.insert((*from, to));
        }
    }
    for (from, to) in drawn {
        let (a, b) = (&boxes[from], &boxes[to]);
        let (x1, y1) = (a.x + WIDTH, a.y + HEIGHT / 2);
        let (x2, y2) = (b.x, b.y + HEIGHT / 2);
        let middle = usize::midpoint(x1, x2);
        let _ = writeln!(
            text,
            "<path d=\"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}\" fill=\"none\" \
             stroke=\"#888888\"/>"
        );
    }
    for one in &boxes {
        draw(&mut text, one, done);
    }
    text.push_str("</svg>\n");
    text
}

fn boxes(plan: &Plan) -> Vec<Box<'_>> {
    let mut boxes = Vec::new();
    let mut x = MARGIN;
    for stage in Stage::ALL {
        let jobs: Vec<&Job> = plan.jobs.iter().filter(|job| job.stage == stage).collect();
        if jobs.is_empty() {
            continue;
        }
        let size = if jobs.len() > MOST_BOXES { jobs.len() } else { 1 };
        for (row, jobs) in jobs.chunks(size).enumerate() {
            let y = MARGIN + HEAD + row * (HEIGHT + GAP.1);
            boxes.push(Box { jobs: jobs.to_vec(), x, y });
        }
        x += WIDTH + GAP.0;
    }
    boxes
}

fn draw(text: &mut String, one: &Box<'_>, done: &dyn Fn(&JobId) -> bool) {
    let Box { jobs, x, y } = one;
    let cached = jobs.iter().filter(|job| done(&job.id)).count();
    // Done is told by the fill and by the word, so that colours are not needed to read it.
    let (fill, dash) = if cached == jobs.len() { ("#d9ead9", "") } else { ("#ffffff", "4 3") };
    let first = jobs[0];
    if *y == MARGIN + HEAD {
        let _ = writeln!(
            text,
            "<text x=\"{x}\" y=\"{}\" font-weight=\"bold\">{}</text>",
            MARGIN + 14,
            first.stage.name()
        );
    }
    let (title, state) = if jobs.len() == 1 {
        let state = if cached == 1 { "done" } else { "to run" };
        (first.work.title(), format!("{} {state}", first.id.short()))
    } else {
        (format!("{} jobs", jobs.len()), format!("{cached} done, {} to run", jobs.len() - cached))
    };
    let short: String = title.chars().take(54).collect();
    let _ = writeln!(
        text,
        "<g><title>{} {}</title><rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         rx=\"4\" fill=\"{fill}\" stroke=\"#333333\" stroke-dasharray=\"{dash}\"/>\
         <text x=\"{}\" y=\"{}\">{}</text><text x=\"{}\" y=\"{}\" font-size=\"10\" \
         fill=\"#555555\">{}</text></g>",
        first.id,
        escape(&title),
        x + 8,
        y + 15,
        escape(&short),
        x + 8,
        y + 28,
        escape(&state)
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

//! Our best rows among published ones.

use serde::Serialize;

use crate::leaderboard::published::matching;

use super::{
    input::Input,
    table::{accuracy, name, ranked, varying},
};

#[derive(Serialize)]
pub(super) struct PublishedTable {
    pub(super) title: String,
    pub(super) lines: Vec<PublishedLine>,
}

#[derive(Serialize)]
pub(super) struct PublishedLine {
    pub(super) class: &'static str,
    pub(super) rank: String,
    pub(super) model: String,
    pub(super) source: String,
    pub(super) architecture: String,
    pub(super) venue: String,
    pub(super) clean: String,
    pub(super) robust: String,
    pub(super) difference: String,
}

/// Our best row among the best published models and those of the recipe that we follow.
pub(super) fn published(input: &Input) -> Vec<PublishedTable> {
    let rows = &input.rows;
    let varying = varying(rows);
    let mut tables: Vec<PublishedTable> = Vec::new();
    for row in ranked(rows) {
        let title = format!("{}, {}", row.dataset, row.threat);
        if tables.iter().any(|table| table.title == title) {
            continue;
        }
        let all = matching(&row.dataset, row.threat);
        let ours = row.robust.percent();
        let mut lines: Vec<PublishedLine> = Vec::new();
        for (at, one) in
            all.iter().enumerate().filter(|(at, one)| *at < 5 || one.is_ours_to_match())
        {
            lines.push(PublishedLine {
                class: if one.is_ours_to_match() { "model" } else { "" },
                rank: (at + 1).to_string(),
                model: one.key.clone(),
                source: one.source.clone(),
                architecture: one.architecture.replace("<br>", ", "),
                venue: one.venue.clone(),
                clean: format!("{:.2}", one.clean),
                robust: format!("{:.2}", one.robust),
                difference: format!("{:+.1}", ours - one.robust).replace('-', "−"),
            });
        }
        if lines.is_empty() {
            continue;
        }
        let better = all.iter().filter(|one| one.robust > ours).count();
        let place =
            lines.iter().take_while(|line| line.rank.parse::<usize>().unwrap_or(0) <= better);
        let place = place.count();
        lines.insert(
            place,
            PublishedLine {
                class: "ours",
                // A rank would be a comparison.
                rank: if input.small_scale {
                    "–".to_owned()
                } else {
                    format!("{} of {}", better + 1, all.len() + 1)
                },
                model: format!("ours: {}", name(row, &varying)),
                source: String::new(),
                architecture: row.architecture.clone(),
                venue: "this suite".into(),
                clean: accuracy(row.clean),
                robust: accuracy(row.robust),
                difference: String::new(),
            },
        );
        tables.push(PublishedTable { title, lines });
    }
    tables
}

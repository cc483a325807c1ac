//! A made-up report, realistic in shape: what tests render and screenshots show.

use crate::{
    leaderboard::Row,
    suite::report::Layout,
    threat::{Norm, ThreatModel},
    units::{Epsilon, Tally},
};

use super::input::{Curve, Grid, GridImage, Input, Provenance};

/// Twelve rows: three step counts, two generated counts, two threat models. The figures are
/// invented.
pub fn input() -> Input {
    let mut rows = Vec::new();
    for (norm, epsilon, base) in
        [(Norm::Linf, Epsilon::new(8, 255), 780), (Norm::L2, Epsilon::new(1, 2), 1010)]
    {
        for (generated, gain) in [(0u64, 0u64), (50_000, 130)] {
            for (steps, more) in [(5u64, 0u64), (10, 37), (20, 52)] {
                let robust = base + gain + if generated > 0 { more } else { more / 9 };
                let threat = ThreatModel { norm, epsilon };
                rows.push(row(threat, generated, steps, robust));
            }
        }
    }
    rows[4].warnings.push("attack loss went up when restarts were added: 3 examples".into());
    let provenance = rows.iter().flat_map(jobs).collect();
    Input {
        suite: "step-count-sweep".into(),
        description: "Does the number of sampler steps matter for robustness when generated \
                      images join training?"
            .into(),
        provenance,
        grids: vec![grid()],
        curves: curves(),
        layout: Layout::default(),
        small_scale: true,
        command: "gauntlet run suites/steps.yaml".into(),
        versions: vec![
            ("gauntlet".into(), "0.1.0 (d8dadc7f1a2b)".into()),
            ("libtorch".into(), "2.11.0".into()),
            ("device".into(), "cpu, 2 threads".into()),
        ],
        rows,
    }
}

fn row(threat: ThreatModel, generated: u64, steps: u64, robust: u64) -> Row {
    let clean = if threat.norm == Norm::L2 { 1490 } else { 1320 } + generated / 1000 + steps;
    let job = |stage: &str| {
        crate::digest::hash_bytes(format!("{stage}{threat}{generated}{steps}").as_bytes())[..32]
            .to_owned()
    };
    Row {
        suite: "step-count-sweep".into(),
        cell: format!("generated={generated} steps={steps}"),
        axes: vec![
            ("generate.sampler.steps".into(), steps.to_string()),
            ("train.generated".into(), generated.to_string()),
            ("threat".into(), threat.to_string()),
        ],
        dataset: "cifar10".into(),
        threat,
        evaluation: "standard".into(),
        architecture: "wrn-16-4-swish".into(),
        generated,
        sampler_steps: (generated > 0).then_some(steps),
        loss: "trades".into(),
        epochs: Some(40),
        checkpoint: "best".into(),
        seed: 0,
        clean: Tally { correct: clean, total: 2000 },
        robust: Tally { correct: robust, total: 2000 },
        robust_after: vec![
            ("apgd-ce".into(), robust + 74),
            ("apgd-t".into(), robust + 3),
            ("fab-t".into(), robust + 3),
            ("square".into(), robust),
        ],
        attack_seconds: vec![
            ("apgd-ce".into(), 61.0),
            ("apgd-t".into(), 402.5),
            ("fab-t".into(), 611.0),
            ("square".into(), 388.0),
        ],
        train_seconds: Some(5400.0 + 0.01 * generated as f64),
        generate_seconds: (generated > 0).then_some(90.0 * steps as f64),
        fid: (generated > 0).then_some(4.0 + 60.0 / steps as f64),
        fid_error: (generated > 0).then_some(0.05 + 0.6 / steps as f64),
        fid_published: true,
        generate_job: (generated > 0).then(|| job("generate")),
        train_job: Some(job("train")),
        evaluate_job: job("evaluate"),
        warnings: vec![],
        reference: None,
    }
}

fn jobs(row: &Row) -> Vec<Provenance> {
    let facts = |seconds: f64| {
        vec![
            ("seed".to_owned(), "0".to_owned()),
            ("device".to_owned(), "cpu".to_owned()),
            ("wall time".to_owned(), format!("{seconds:.1} s")),
            ("libtorch".to_owned(), "2.11.0".to_owned()),
        ]
    };
    let train = row.train_job.clone().unwrap_or_default();
    let mut jobs = vec![
        Provenance {
            job: train.clone(),
            stage: "train".into(),
            spec: serde_json::json!({"loss": row.loss, "beta": 5.0, "epochs": row.epochs,
                "network": {"arch": row.architecture, "classes": 10}, "generated": row.generated}),
            inputs: row.generate_job.iter().cloned().collect(),
            facts: facts(row.train_seconds.unwrap_or(0.0)),
            log: "epoch 40 of 40: loss 1.31, held out 47.0% under PGD-40".into(),
        },
        Provenance {
            job: row.evaluate_job.clone(),
            stage: "evaluate".into(),
            spec: serde_json::json!({"threat": row.threat, "suite": row.evaluation, "mode": "strict"}),
            inputs: vec![train],
            facts: facts(row.evaluate_seconds()),
            log: String::new(),
        },
    ];
    if let Some(job) = &row.generate_job {
        let spec = serde_json::json!({"sampler": {"solver": "heun", "steps": row.sampler_steps},
            "count": row.generated, "seed": 0});
        let facts = facts(row.generate_seconds.unwrap_or(0.0));
        let stage = "generate".to_owned();
        jobs.insert(
            0,
            Provenance { job: job.clone(), stage, spec, inputs: vec![], facts, log: String::new() },
        );
    }
    jobs
}

/// Coloured blobs, two of each of ten classes.
fn grid() -> Grid {
    let names =
        ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
    let image = |at: usize| {
        let centre = (10.0 + (at * 7 % 13) as f64, 10.0 + (at * 5 % 11) as f64);
        let mut rgb = Vec::new();
        for y in 0..32u8 {
            for x in 0..32u8 {
                let far = (f64::from(x) - centre.0).hypot(f64::from(y) - centre.1);
                let inside = (1.0 - far / 12.0).clamp(0.0, 1.0);
                for channel in 0..3 {
                    let tint = (at * 83 + channel * 97) % 200 + 55;
                    rgb.push((40.0 + inside * tint as f64).min(255.0) as u8);
                }
            }
        }
        GridImage { label: names[at % 10].to_owned(), width: 32, height: 32, rgb }
    };
    Grid {
        title: "Generated images, 20 steps".into(),
        caption: "Heun's method, one column for each class.".into(),
        columns: 10,
        images: (0..20).map(image).collect(),
    }
}

fn curves() -> Vec<Curve> {
    let line = |from: f64, to: f64, pace: f64, length: usize| -> Vec<(f64, f64)> {
        let wave = |at: f64| 0.02 * (from - to).abs() * (at * 1.7).sin();
        (1..=length)
            .map(|at| at as f64)
            .map(|at| (at, to + (from - to) * (-at / pace).exp() + wave(at)))
            .collect()
    };
    vec![
        Curve {
            title: "Training, 50K generated, 20 steps".into(),
            setting: String::new(),
            seed: None,
            x_label: "epoch".into(),
            y_label: "accuracy (%)".into(),
            lines: vec![
                ("train, adversarial".into(), line(18.0, 52.0, 9.0, 40)),
                ("validation, PGD-40".into(), line(17.0, 47.0, 8.0, 40)),
            ],
        },
        Curve {
            title: "Denoiser".into(),
            setting: String::new(),
            seed: None,
            x_label: "images seen (thousands)".into(),
            y_label: "loss".into(),
            lines: vec![("EDM loss".into(), line(1.2, 0.21, 30.0, 200))],
        },
    ]
}

//! The protocol: a clean pass, then each attack on what the ones before left standing, batch by
//! batch in the order of the data. Of several bounds the largest comes first.

use std::{
    collections::BTreeMap,
    mem::take,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use serde_json::json;
use tch::Device;

use super::{
    batch::{self, Found, Task},
    checks, clean,
    journal::{Entry, Journal, Piece},
    pace::{self, Pace},
    place::{Bench, Place, Protocol},
    probe,
    result::{AttackCost, Evaluation, Level, REVISION, Record},
    spec::{AttackSpec, EvalMode, EvaluateSpec},
    workers::{self, Handle},
};
use crate::{
    data::Dataset,
    error::{Error, Result},
    net::Classifier,
    progress::Progress,
    units::{Epsilon, Tally},
};

/// Evaluates `model` on `data`, which holds exactly the images that `spec.data` names, by the
/// cascade `spec.attacks`: an example that one attack breaks is spared the others.
///
/// # Errors
/// [`Error::Input`] for a spec that cannot be met or a journal of another evaluation,
/// [`Error::Numerics`] for logits that are not finite, [`Error::Interrupted`] when asked to stop;
/// then the same call goes on where it stopped.
pub fn run_in(
    spec: &EvaluateSpec,
    protocol: &Protocol,
    model: &dyn Classifier,
    data: &Dataset,
    place: &Place,
) -> Result<Evaluation> {
    validate(spec, protocol, model, data)?;
    let reached = probe::probe(model, data, place.device, Some(spec.batch))?;
    probe::blind(spec, reached)?;
    clean::check_labels((spec, data), protocol.aim, model)?;
    let epsilons = protocol.epsilons(spec);
    // Strict results do not depend on the batch: want of memory may have made it smaller since.
    let batch = if spec.mode == EvalMode::Strict { 0 } else { spec.batch };
    let identity = json!({
        "spec": EvaluateSpec { batch, ..spec.clone() }, "model": place.model_identity, "data": data.fingerprint(),
        "revision": REVISION, "images": place.save_images, "individual": protocol.individual,
        "target": protocol.aim, "epsilons": epsilons,
    });
    let mut journal = Journal::open(place.work, &identity)?;
    let bench = Bench { spec, data, place };
    let clean = clean::pass(&bench, protocol.aim, model)?;
    let mut known: Known = BTreeMap::new();
    for piece in take(&mut journal.done) {
        let (level, attack) = (piece.level, piece.attack);
        // What was counted for the whole piece goes with its first example.
        let (mut seconds, mut still) = (piece.seconds, piece.still);
        for entry in piece.entries {
            let key = (level, attack, entry.index);
            let (seconds, still) = (take(&mut seconds), take(&mut still));
            known.insert(key, Piece { level, attack, entries: vec![entry], seconds, still });
        }
    }
    let mut cascade = Cascade {
        bench,
        protocol,
        epsilons,
        fallen: vec![false; clean.records.len()],
        records: clean.records,
        aims: clean.aims,
        warnings: clean.warnings,
        journal,
        pace: Pace::begin(),
        still: 0,
        samples: place.samples,
    };
    let levels = cascade.levels(model, &mut known)?;
    Ok(cascade.finish(levels))
}

/// As [`run_in`] by the plain protocol on one thread, without images. `work` belongs to this model
/// and this spec.
///
/// # Errors
/// As [`run_in`].
pub fn run(
    spec: &EvaluateSpec,
    model: &dyn Classifier,
    data: &Dataset,
    device: Device,
    work: &Path,
    progress: &dyn Progress,
) -> Result<Evaluation> {
    let helpers = Mutex::default();
    let place = Place {
        device,
        work,
        progress,
        model_identity: "",
        save_images: false,
        samples: 0,
        helpers,
    };
    run_in(spec, &Protocol::default(), model, data, &place)
}

/// What earlier runs found, example by example: by level, attack and index.
type Known = BTreeMap<(usize, usize, u64), Piece>;

struct Cascade<'a> {
    bench: Bench<'a>,
    protocol: &'a Protocol,
    /// The largest first.
    epsilons: Vec<Epsilon>,
    /// A break in a record is the one of smallest norm that is known.
    records: Vec<Record>,
    aims: Vec<i64>,
    /// Who was broken at the bound that is being worked on.
    fallen: Vec<bool>,
    warnings: Vec<String>,
    journal: Journal,
    pace: Pace,
    /// Starting points without a gradient, of the attack that is running.
    still: u64,
    /// How many adversarial images are still to be kept for show.
    samples: usize,
}

impl Cascade<'_> {
    fn levels(&mut self, model: &dyn Classifier, known: &mut Known) -> Result<Vec<Level>> {
        let mut levels = Vec::new();
        for (level, epsilon) in self.epsilons.clone().into_iter().enumerate() {
            // Who withstood a larger bound withstands this one; who is known to break within it
            // needs no attack. The others were broken, but farther away.
            let asked: Vec<usize> = (0..self.records.len())
                .filter(|&row| {
                    let record = &self.records[row];
                    let eligible = record.clean() && self.aims.get(row) != Some(&record.label);
                    eligible
                        && if level == 0 {
                            record.robust()
                        } else {
                            !record.robust() && record.robust_at(epsilon)
                        }
                })
                .collect();
            self.fallen = vec![false; self.records.len()];
            let mut attacks = Vec::new();
            for number in 0..self.bench.spec.attacks.len() {
                attacks.push(self.attack((level, number), &asked, model, known)?);
            }
            levels.push(Level { epsilon, robust: self.robust_at(epsilon), attacks });
        }
        Ok(levels)
    }

    fn tally(&self, holds: impl Fn(&Record) -> bool) -> Tally {
        let correct = self.records.iter().filter(|record| holds(record)).count() as u64;
        Tally { correct, total: self.records.len() as u64 }
    }

    fn robust_at(&self, epsilon: Epsilon) -> Tally {
        // At one bound alone what counts is that an attack broke it: reference mode's norms may
        // exceed the bound by rounding.
        let single = self.epsilons.len() == 1;
        self.tally(|record| if single { record.robust() } else { record.robust_at(epsilon) })
    }

    /// One attack at one bound.
    fn attack(
        &mut self,
        (level, number): (usize, usize),
        asked: &[usize],
        model: &dyn Classifier,
        known: &mut Known,
    ) -> Result<AttackCost> {
        let (bench, epsilon) = (self.bench, self.epsilons[level]);
        let attack = &bench.spec.attacks[number];
        let spared = |row: &&usize| self.protocol.individual || !self.fallen[**row];
        let standing: Vec<usize> = asked.iter().filter(spared).copied().collect();
        let before = self.robust_at(epsilon).correct
            + if self.protocol.individual {
                self.fallen.iter().filter(|x| **x).count() as u64
            } else {
                0
            };
        let mut cost = AttackCost {
            attack: attack.name.to_string(),
            robust: before,
            worst: 0,
            seconds: 0.0,
            forwards: 0,
            backwards: 0,
        };
        bench.place.progress.begin(attack.name.as_str(), standing.len() as u64, "image");
        let tasks = self.tasks(level, number, attack, &standing);
        let mut seen = 0;
        let mut fresh = Vec::new();
        for mut task in tasks {
            // All or nothing of a batch, unless its size was another then.
            task.rows.retain(|&row| match known.remove(&(level, number, bench.index(row))) {
                Some(piece) => {
                    seen += 1;
                    cost.seconds += piece.seconds;
                    self.apply(&piece, &mut cost);
                    false
                }
                None => true,
            });
            if !task.rows.is_empty() {
                fresh.push(task);
            }
        }
        self.attack_fresh(&fresh, model, &mut cost, (seen, standing.len()))?;
        cost.worst = self.robust_at(epsilon).correct;
        self.warnings.extend(checks::zero_gradients(attack.name.as_str(), self.still));
        self.still = 0;
        Ok(cost)
    }

    /// Attacks what no earlier run attacked, shared among all workers.
    fn attack_fresh(
        &mut self,
        tasks: &[Task],
        model: &dyn Classifier,
        cost: &mut AttackCost,
        (mut seen, standing): (usize, usize),
    ) -> Result<()> {
        let bench = self.bench;
        let mut helpers = bench.place.helpers.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = 1 + helpers.len().min(tasks.len().saturating_sub(1));
        let begun = Instant::now();
        let done = &mut |task: &Task, found: Found| -> Result<()> {
            let mut piece = found.piece;
            piece.seconds /= workers as f64;
            let (indices, images) = &found.images;
            let place = (task.level, task.number);
            if bench.place.save_images {
                self.journal.save_images(place, indices, images)?;
            } else if self.samples > 0 && !indices.is_empty() {
                let count = indices.len().min(self.samples);
                let images = images.narrow(0, 0, count as i64);
                self.journal.save_images(place, &indices[..count], &images)?;
                self.samples -= count;
            }
            self.journal.append(&piece)?;
            let passes = |of: fn(&Entry) -> u64| piece.entries.iter().map(of).sum();
            self.pace.spend(passes(|entry| entry.forwards), passes(|entry| entry.backwards));
            self.apply(&piece, cost);
            seen += piece.entries.len();
            let note = self.note((task.level, task.number), standing - seen);
            bench.place.progress.at(seen as u64, note);
            Ok(())
        };
        let work = |handle: &Handle, task: &Task, progress: &dyn Progress| {
            batch::attack(&bench, handle, task, progress)
        };
        // Nothing to do must not cost a fast form.
        let folded = bench.spec.mode == EvalMode::Strict && !tasks.is_empty();
        let watched = (bench.place.progress, folded);
        workers::share(tasks, (model, &mut helpers), watched, &work, done)?;
        cost.seconds += begun.elapsed().as_secs_f64();
        Ok(())
    }

    /// The batches of one attack: those of one target class apart from those of another.
    fn tasks<'s>(
        &self,
        level: usize,
        number: usize,
        attack: &'s AttackSpec,
        standing: &[usize],
    ) -> Vec<Task<'s>> {
        let mut groups: BTreeMap<Option<i64>, Vec<usize>> = BTreeMap::new();
        for &row in standing {
            groups.entry(self.aims.get(row).copied()).or_default().push(row);
        }
        let batch = self.bench.spec.batch as usize;
        let cut = |rows: &Vec<usize>| match self.bench.spec.mode {
            // As AutoAttack cuts them, whose noise depends on it.
            EvalMode::Reference => workers::chunks(rows, batch),
            // One worker, which many small batches would only keep waiting.
            EvalMode::Strict if self.bench.place.device.is_cuda() => workers::chunks(rows, batch),
            EvalMode::Strict => workers::cut(rows, batch),
        };
        let task = |aim: Option<i64>, rows| Task {
            level,
            number,
            attack,
            epsilon: self.epsilons[level].value(),
            rows,
            aim,
            tighten: self.epsilons.len() > 1,
        };
        groups
            .iter()
            .flat_map(|(aim, rows)| cut(rows).into_iter().map(|rows| task(*aim, rows)))
            .collect()
    }

    /// The running upper bound and the time left in words.
    fn note(&self, (level, number): (usize, usize), waiting: usize) -> String {
        let robust = self.robust_at(self.epsilons[level]);
        let mut text = format!(
            "robust at most {:.2}% ({}/{})",
            robust.percent(),
            robust.correct,
            robust.total
        );
        if self.epsilons.len() > 1 {
            text = format!("eps {}: {text}", self.epsilons[level]);
        }
        let attacks = &self.bench.spec.attacks;
        let later: f64 = attacks[number + 1..].iter().map(pace::work).sum();
        let work = waiting as f64 * pace::work(&attacks[number]) + robust.correct as f64 * later;
        match self.pace.left(work) {
            Some(left) => format!("{text}, {left}"),
            None => text,
        }
    }

    /// Enters what became of one batch.
    fn apply(&mut self, piece: &Piece, cost: &mut AttackCost) {
        self.still += piece.still;
        for entry in &piece.entries {
            cost.forwards += entry.forwards;
            cost.backwards += entry.backwards;
            let row = (entry.index - self.bench.spec.data.skip) as usize;
            let record = &mut self.records[row];
            record.forwards += entry.forwards;
            record.backwards += entry.backwards;
            let Some(broken) = &entry.broken else { continue };
            cost.robust -= 1;
            self.fallen[row] = true;
            // Individual mode: the first attack that broke it keeps the credit. A curve: the
            // closest break has it.
            if record.broken_by.is_none()
                || piece.level > 0 && record.norm.is_none_or(|norm| broken.norm < norm)
            {
                record.broken_by = Some(cost.attack.clone());
                record.restart = Some(broken.restart);
                record.target = broken.target;
                record.iteration = Some(broken.iteration);
                record.norm = Some(broken.norm);
                record.adversarial_margin = Some(broken.margin);
            }
        }
    }

    fn finish(mut self, mut levels: Vec<Level>) -> Evaluation {
        self.warnings.extend(checks::unusual(self.bench.spec));
        self.warnings.extend(checks::own_class(&self.records, &self.aims));
        let attacks = levels[0].attacks.clone();
        let total = self.records.len() as u64;
        if !self.protocol.individual {
            let after: Vec<_> =
                attacks.iter().map(|cost| (cost.attack.clone(), cost.robust)).collect();
            self.warnings.extend(checks::square_gain(self.bench.spec, &after, total));
        }
        let progress = self.bench.place.progress;
        self.warnings.iter().for_each(|warning| progress.warn(warning.as_str()));
        levels.reverse();
        Evaluation {
            total,
            clean: self.tally(Record::clean),
            robust: self.tally(Record::robust),
            attacks,
            warnings: self.warnings,
            records: self.records,
            curve: if levels.len() > 1 { levels } else { Vec::new() },
        }
    }
}

fn validate(
    spec: &EvaluateSpec,
    protocol: &Protocol,
    model: &dyn Classifier,
    data: &Dataset,
) -> Result<()> {
    let wrong = |what: String| Err(Error::input(what));
    if data.is_empty() {
        return wrong(format!("`{}` has no images to evaluate on", data.name));
    }
    if spec.batch == 0 {
        return wrong("evaluate.batch is 0: expected at least 1".to_owned());
    }
    if model.classes() < 2 {
        return wrong(format!("the model has {} class(es): nothing to mistake", model.classes()));
    }
    let epsilons = protocol.epsilons(spec);
    if let Some(epsilon) = epsilons.iter().find(|epsilon| epsilon.value() <= 0.0) {
        return wrong(format!("epsilon {epsilon} is not positive"));
    }
    if spec.mode == EvalMode::Reference && (epsilons.len() > 1 || protocol.aim.is_some()) {
        return wrong(
            "reference mode is AutoAttack's own: one epsilon and no target; use strict mode"
                .to_owned(),
        );
    }
    if protocol.individual && epsilons.len() > 1 {
        return wrong("individual mode takes one epsilon: run it once for each".to_owned());
    }
    for attack in &spec.attacks {
        if attack.steps == 0 || attack.restarts == 0 {
            return wrong(format!("attack {}: steps and restarts must be at least 1", attack.name));
        }
    }
    Ok(())
}

//! The protocol: a clean pass, then each attack on what the ones before left standing, batch by
//! batch in the order of the data.

use std::{collections::BTreeMap, path::Path, time::Instant};

use serde_json::json;
use tch::{Device, Tensor};

use super::{
    checks,
    journal::{Broken, Entry, Journal, Piece},
    result::{AttackCost, Evaluation, REVISION, Record},
    spec::{AttackName, AttackSpec, EvalMode, EvaluateSpec},
};
use crate::{
    attack::{self, Batch, Bounds, geometry, loss::margin},
    data::Dataset,
    error::{Error, Result},
    net::Classifier,
    progress::Progress,
    units::Tally,
};

/// Where an evaluation happens.
pub struct Place<'a> {
    /// Where the model is.
    pub device: Device,
    /// Where the state to resume from is kept, and adversarial images.
    pub work: &'a Path,
    /// Who watches.
    pub progress: &'a dyn Progress,
    /// What names the model, so that a resumed run continues with the same: a digest of its file.
    pub model_identity: &'a str,
    /// Whether adversarial images are kept, for `gauntlet verify`.
    pub save_images: bool,
}

/// Evaluates `model` on `data`, which holds exactly the images that `spec.data` names, by the
/// cascade `spec.attacks`: an example that one attack breaks is spared the others.
///
/// # Errors
/// [`Error::Input`] for a spec that cannot be met or a journal of another evaluation,
/// [`Error::Numerics`] for logits that are not finite, [`Error::Interrupted`] when asked to stop;
/// then the same call goes on where it stopped.
pub fn run_in(
    spec: &EvaluateSpec,
    model: &dyn Classifier,
    data: &Dataset,
    place: &Place,
) -> Result<Evaluation> {
    Cascade::begin(spec, model, data, place, true)?.go()
}

/// As [`run_in`], without images. `work` belongs to this model and this spec.
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
    let place = Place { device, work, progress, model_identity: "", save_images: false };
    run_in(spec, model, data, &place)
}

/// As [`run_in`], but every attack meets every example that is right when clean: `robust_after` counts
/// each attack alone, `robust` the worst case.
///
/// # Errors
/// As [`run_in`].
pub fn individual(
    spec: &EvaluateSpec,
    model: &dyn Classifier,
    data: &Dataset,
    place: &Place,
) -> Result<Evaluation> {
    Cascade::begin(spec, model, data, place, false)?.go()
}

struct Cascade<'a> {
    spec: &'a EvaluateSpec,
    model: &'a dyn Classifier,
    /// What attacks meet in strict mode: the model's fast form, equal up to rounding.
    fast: Option<Box<dyn Classifier>>,
    data: &'a Dataset,
    place: &'a Place<'a>,
    /// Whether broken examples are spared the attacks that follow.
    spare: bool,
    journal: Journal,
    records: Vec<Record>,
    attacks: Vec<AttackCost>,
    warnings: Vec<String>,
}

impl<'a> Cascade<'a> {
    fn begin(
        spec: &'a EvaluateSpec,
        model: &'a dyn Classifier,
        data: &'a Dataset,
        place: &'a Place<'a>,
        spare: bool,
    ) -> Result<Self> {
        validate(spec, model, data)?;
        let identity = json!({
            "spec": spec, "model": place.model_identity, "data": data.fingerprint(),
            "revision": REVISION, "spare": spare, "images": place.save_images,
        });
        Ok(Self {
            spec,
            model,
            fast: (spec.mode == EvalMode::Strict).then(|| model.fused()).flatten(),
            data,
            place,
            spare,
            journal: Journal::open(place.work, &identity)?,
            records: Vec::with_capacity(data.len()),
            attacks: Vec::new(),
            warnings: Vec::new(),
        })
    }

    fn go(mut self) -> Result<Evaluation> {
        self.clean()?;
        self.warnings.extend(checks::unusual(self.spec));
        let done = std::mem::take(&mut self.journal.done);
        for (number, attack) in self.spec.attacks.iter().enumerate() {
            self.attack(number, attack, &done)?;
        }
        let robust_after: Vec<_> =
            self.attacks.iter().map(|cost| (cost.attack.clone(), cost.robust)).collect();
        if self.spare {
            let total = self.records.len() as u64;
            self.warnings.extend(checks::square_gain(self.spec, &robust_after, total));
        }
        self.warnings.iter().for_each(|warning| self.place.progress.warn(warning.as_str()));
        let total = self.records.len() as u64;
        let count = |holds: fn(&Record) -> bool| Tally {
            correct: self.records.iter().filter(|record| holds(record)).count() as u64,
            total,
        };
        Ok(Evaluation {
            total,
            clean: count(Record::clean),
            robust: count(Record::robust),
            attacks: self.attacks,
            warnings: self.warnings,
            records: self.records,
        })
    }

    /// The clean pass. Cheap next to any attack, so it is done anew on resume.
    fn clean(&mut self) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let rows: Vec<usize> = (0..self.data.len()).collect();
        let progress = self.place.progress;
        progress.begin("clean", rows.len() as u64, "image");
        for chunk in rows.chunks(self.spec.batch as usize) {
            if progress.stopping() {
                return Err(Error::Interrupted);
            }
            let images = self.data.images(chunk, self.place.device);
            let labels = self.data.targets(chunk, self.place.device);
            let logits = self.model.logits(&images);
            self.classes(&logits)?;
            let margins = floats(&margin(&logits, &labels));
            if let Some(bad) = margins.iter().position(|margin| !margin.is_finite()) {
                return Err(Error::Numerics(format!(
                    "the model's logits for example {} are not finite on the clean image; check the \
                     weights and the input normalisation",
                    self.index(chunk[bad])
                )));
            }
            if chunk[0] == 0 {
                let found = checks::first_batch(self.spec, self.model, &images, &labels);
                self.warnings.extend(found);
            }
            let predictions: Vec<i64> =
                Vec::try_from(logits.argmax(1, false)).expect("a class for each row");
            for (i, &row) in chunk.iter().enumerate() {
                self.records.push(self.clean_record(row, predictions[i], margins[i]));
            }
            progress.at(self.records.len() as u64, "");
        }
        Ok(())
    }

    fn classes(&self, logits: &Tensor) -> Result<()> {
        let classes = logits.size()[1];
        let highest = self.data.labels.iter().max().copied().unwrap_or(0);
        if i64::from(highest) < classes {
            return Ok(());
        }
        Err(Error::input(format!(
            "the data has labels up to {highest} but the model only {classes} classes: is this the \
             model's data set?"
        )))
    }

    fn clean_record(&self, row: usize, prediction: i64, margin: f64) -> Record {
        Record {
            index: self.index(row),
            image_hash: self.data.image_hash(row),
            label: i64::from(self.data.labels[row]),
            clean_prediction: prediction,
            clean_margin: margin,
            broken_by: None,
            restart: None,
            target: None,
            iteration: None,
            norm: None,
            adversarial_margin: None,
            forwards: 1,
            backwards: 0,
        }
    }

    /// The index in the split of the `row`-th image.
    fn index(&self, row: usize) -> u64 {
        self.spec.data.skip + row as u64
    }

    fn attack(&mut self, number: usize, attack: &AttackSpec, done: &[Piece]) -> Result<()> {
        let standing: Vec<usize> = (0..self.records.len())
            .filter(|&row| {
                let record = &self.records[row];
                if self.spare { record.robust() } else { record.clean() }
            })
            .collect();
        let mut cost = AttackCost {
            attack: attack.name.to_string(),
            robust: standing.len() as u64,
            seconds: 0.0,
            forwards: 0,
            backwards: 0,
        };
        // In reference mode batches are cut as AutoAttack cuts them; the journal's are the same.
        let mut known: BTreeMap<u64, &Piece> = BTreeMap::new();
        for piece in done.iter().filter(|piece| piece.attack == number) {
            known.extend(piece.entries.first().map(|entry| (entry.index, piece)));
        }
        let progress = self.place.progress;
        progress.begin(attack.name.as_str(), standing.len() as u64, "image");
        let mut seen = 0;
        for chunk in standing.chunks(self.spec.batch as usize) {
            let fresh;
            let piece = match known.get(&self.index(chunk[0])) {
                Some(piece) => *piece,
                None => {
                    fresh = self.batch(number, attack, chunk)?;
                    &fresh
                }
            };
            self.apply(attack.name, piece, &mut cost);
            seen += chunk.len() as u64;
            let robust = self.records.iter().filter(|record| record.robust()).count() as u64;
            progress.at(seen, self.bound(robust));
        }
        self.attacks.push(cost);
        Ok(())
    }

    /// The running upper bound in words.
    fn bound(&self, robust: u64) -> String {
        let tally = Tally { correct: robust, total: self.records.len() as u64 };
        format!("robust at most {:.2}% ({robust}/{})", tally.percent(), tally.total)
    }

    /// Attacks one batch and makes the outcome last.
    fn batch(&mut self, number: usize, attack: &AttackSpec, chunk: &[usize]) -> Result<Piece> {
        let progress = self.place.progress;
        if progress.stopping() {
            return Err(Error::Interrupted);
        }
        let begun = Instant::now();
        let device = self.place.device;
        let images = self.data.images(chunk, device);
        let labels = self.data.targets(chunk, device);
        let examples: Vec<u64> = chunk.iter().map(|&row| self.index(row)).collect();
        let batch = Batch { images: &images, labels: &labels, examples: &examples };
        let victim = self.fast.as_deref().unwrap_or(self.model);
        let outcome = attack::run(&self.plain(attack), victim, &batch, progress)?;
        let _guard = tch::no_grad_guard();
        let norms =
            floats(&geometry::norm(&(&outcome.adversarial - &images), self.spec.threat.norm));
        let logits = self.model.logits(&outcome.adversarial);
        let margins = floats(&margin(&logits, &labels));
        // What breaks the fast form by less than rounding does not break the model.
        let upheld: Vec<bool> = Vec::try_from(logits.argmax(1, false).ne_tensor(&labels))
            .expect("an answer for each row");
        let upheld = |i: usize| self.fast.is_none() || upheld[i];
        let entries = (0..chunk.len())
            .map(|i| Entry {
                index: examples[i],
                broken: outcome.breaks[i].filter(|_| upheld(i)).map(|how| Broken {
                    restart: how.restart,
                    target: how.target,
                    iteration: how.iteration,
                    norm: norms[i] as f32,
                    margin: margins[i] as f32,
                }),
                forwards: outcome.forward[i],
                backwards: outcome.backward[i],
            })
            .collect();
        if self.place.save_images {
            let broken: Vec<i64> = (0..chunk.len())
                .filter(|&i| outcome.breaks[i].is_some() && upheld(i))
                .map(|i| i as i64)
                .collect();
            let indices: Vec<u64> = broken.iter().map(|&i| examples[i as usize]).collect();
            let rows = Tensor::from_slice(&broken).to_device(device);
            let kept = outcome.adversarial.index_select(0, &rows);
            self.journal.save_images(number, &indices, &kept)?;
        }
        let warnings = checks::zero_gradients(attack.name.as_str(), outcome.zero_gradients);
        let piece = Piece {
            attack: number,
            entries,
            seconds: begun.elapsed().as_secs_f64(),
            warnings: warnings.into_iter().collect(),
        };
        self.journal.append(&piece)?;
        Ok(piece)
    }

    fn plain(&self, attack: &AttackSpec) -> attack::Spec {
        attack::Spec {
            kind: kind(attack.name),
            steps: attack.steps,
            restarts: attack.restarts,
            targets: attack.targets,
            eot: attack.eot,
            staged: self.spec.staged(),
            norm: self.spec.threat.norm,
            epsilon: self.spec.threat.epsilon.value(),
            bounds: Bounds::UNIT,
            mode: match self.spec.mode {
                EvalMode::Strict => attack::Mode::Strict,
                EvalMode::Reference => attack::Mode::Reference,
            },
            seed: self.spec.seed,
        }
    }

    /// Enters what became of one batch.
    fn apply(&mut self, name: AttackName, piece: &Piece, cost: &mut AttackCost) {
        cost.seconds += piece.seconds;
        for entry in &piece.entries {
            cost.forwards += entry.forwards;
            cost.backwards += entry.backwards;
            let record = &mut self.records[(entry.index - self.spec.data.skip) as usize];
            record.forwards += entry.forwards;
            record.backwards += entry.backwards;
            let Some(broken) = &entry.broken else { continue };
            cost.robust -= 1;
            // Individual mode: the first attack that broke it keeps the credit.
            if record.broken_by.is_none() {
                record.broken_by = Some(name.to_string());
                record.restart = Some(broken.restart);
                record.target = broken.target;
                record.iteration = Some(broken.iteration);
                record.norm = Some(f64::from(broken.norm));
                record.adversarial_margin = Some(f64::from(broken.margin));
            }
        }
        for warning in &piece.warnings {
            if !self.warnings.contains(warning) {
                self.warnings.push(warning.clone());
            }
        }
    }
}

fn validate(spec: &EvaluateSpec, model: &dyn Classifier, data: &Dataset) -> Result<()> {
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
    if spec.threat.epsilon.value() <= 0.0 {
        return wrong(format!("epsilon {} is not positive", spec.threat.epsilon));
    }
    for attack in &spec.attacks {
        if attack.steps == 0 || attack.restarts == 0 {
            return wrong(format!("attack {}: steps and restarts must be at least 1", attack.name));
        }
    }
    Ok(())
}

fn kind(name: AttackName) -> attack::Kind {
    match name {
        AttackName::ApgdCe => attack::Kind::ApgdCe,
        AttackName::ApgdDlr => attack::Kind::ApgdDlr,
        AttackName::ApgdT => attack::Kind::ApgdTargeted,
        AttackName::Fab => attack::Kind::Fab,
        AttackName::FabT => attack::Kind::FabTargeted,
        AttackName::Square => attack::Kind::Square,
        AttackName::Pgd => attack::Kind::Pgd,
        AttackName::Malt => attack::Kind::Malt,
        AttackName::Pma => attack::Kind::Pma,
    }
}

fn floats(values: &Tensor) -> Vec<f64> {
    Vec::try_from(values.to_device(Device::Cpu).to_kind(tch::Kind::Double)).expect("one a row")
}

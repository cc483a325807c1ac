//! What names a job: its resolved spec, its inputs, its stage's revision, and nothing else.

use serde_json::json;

use crate::{
    digest::JobId,
    evaluate::spec::{EvalMode, EvaluateSpec},
    plan::Work,
};

/// The id of `work` on `inputs`. What cannot change a result stays out: where a file lies, how many
/// images are (strictly) attacked at once.
pub(super) fn identity(work: &Work, inputs: &serde_json::Value) -> JobId {
    let stage = work.stage();
    let spec = match work {
        Work::Import(spec) => json!({ "blake3": spec.blake3, "name": spec.name }),
        Work::Reference(set) => json!({ "set": set.fingerprint }),
        Work::Fit(spec) => json!(spec),
        Work::Generate(spec) => json!(spec),
        Work::Label(spec) => json!(spec),
        Work::Quality(spec) => json!(spec),
        Work::Train(spec) => json!(spec),
        Work::Evaluate(spec) => match spec.mode {
            EvalMode::Strict => {
                json!(EvaluateSpec { batch: 0, ..spec.clone() })
            }
            EvalMode::Reference => json!(spec),
        },
    };
    let mut content = json!({ "stage": stage.name(), "revision": stage.revision() });
    // Moved in: `json!` would copy them.
    content["spec"] = spec;
    content["inputs"] = inputs.clone();
    JobId::of(&content)
}

/// Ids of the works seen last. Neighbouring cells mostly share their denoiser and generated set,
/// and comparing specs is much cheaper than hashing them.
#[derive(Default)]
pub(super) struct Recent(Vec<(Work, Option<JobId>, JobId)>);

impl Recent {
    /// [`identity`] of `work` on one input or none.
    pub(super) fn identity(&mut self, work: &Work, input: Option<&JobId>) -> JobId {
        let known =
            |entry: &&(Work, Option<JobId>, JobId)| entry.1.as_ref() == input && entry.0 == *work;
        if let Some((_, _, id)) = self.0.iter().rev().find(known) {
            return id.clone();
        }
        let inputs: Vec<&JobId> = input.into_iter().collect();
        let id = identity(work, &json!(inputs));
        if self.0.len() == 32 {
            self.0.remove(0);
        }
        self.0.push((work.clone(), input.cloned(), id.clone()));
        id
    }
}

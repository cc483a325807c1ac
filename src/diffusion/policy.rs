//! Step policies: the number of steps, the step that a trajectory ends at, or the step that it
//! starts from, drawn anew for every image or batch.

use crate::{
    diffusion::spec::{Applies, GenerateSpec, Per, Policy, PolicyKind, SamplerSpec},
    rng::Stream,
};

/// What a policy chose for one image: a function of (seed, index) or (seed, batch).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Choice {
    /// The number; 0 where there is no policy.
    pub(super) number: u64,
    /// Whether it was mirrored about the schedule.
    pub(super) mirrored: bool,
}

/// The choice for image `index` of the set that `spec` defines.
pub(super) fn choose(spec: &GenerateSpec, index: u64) -> Choice {
    let Some(policy) = &spec.policy else { return Choice { number: 0, mirrored: false } };
    let key = match policy.per {
        Per::Image => index,
        Per::Batch => index / spec.batch,
    };
    let mut stream = Stream::new(spec.seed, "policy", key);
    let number = policy.min + stream.below(policy.max - policy.min + 1);
    let mirrored = policy.kind == PolicyKind::Mirrored && stream.chance(policy.mirror);
    let number = if mirrored { spec.sampler.steps + 1 - number } else { number };
    Choice { number, mirrored }
}

/// The way that a choice means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    /// Steps of the schedule.
    pub(super) steps: u64,
    /// The step, from 0, at which a noised real image enters.
    pub(super) start: usize,
    /// The step, from 0, whose denoised image is the result.
    pub(super) exit: Option<usize>,
}

/// What `choice` means under `policy`.
pub(super) fn route(policy: Option<&Policy>, sampler: &SamplerSpec, choice: Choice) -> Route {
    let whole = Route { steps: sampler.steps, start: 0, exit: None };
    let step = choice.number.saturating_sub(1) as usize;
    match policy.map(|policy| policy.applies) {
        None => whole,
        Some(Applies::Steps) => Route { steps: choice.number, ..whole },
        Some(Applies::Exit) => Route { exit: Some(step), ..whole },
        Some(Applies::Start) => Route { start: step, ..whole },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(kind: PolicyKind, per: Per) -> GenerateSpec {
        let mirror = if kind == PolicyKind::Mirrored { 0.5 } else { 0.0 };
        let policy = Policy { kind, min: 2, max: 4, mirror, applies: Applies::Steps, per };
        GenerateSpec {
            sampler: SamplerSpec::edm(10),
            policy: Some(policy),
            origin: None,
            seed: 1,
            classes: 0,
            start: 0,
            count: 0,
            batch: 8,
        }
    }

    #[test]
    fn choices_follow_their_distribution() {
        let count = |spec: &GenerateSpec| {
            let mut seen = [0; 11];
            (0..6000).for_each(|index| seen[choose(spec, index).number as usize] += 1);
            seen
        };
        let uniform = count(&spec(PolicyKind::Uniform, Per::Image));
        let mirrored = count(&spec(PolicyKind::Mirrored, Per::Image));
        for number in 2..=4 {
            assert!((uniform[number] - 2000i32).abs() < 200, "{uniform:?}");
            // Mirrored about a schedule of 10 steps, 2 is 9.
            assert!((mirrored[number] - 1000i32).abs() < 150, "{mirrored:?}");
            assert!((mirrored[11 - number] - 1000i32).abs() < 150, "{mirrored:?}");
        }
        assert_eq!(uniform.iter().sum::<i32>(), uniform[2..=4].iter().sum::<i32>());
    }

    #[test]
    fn a_batch_shares_its_choice_and_images_do_not() {
        let spec = |per| spec(PolicyKind::Uniform, per);
        let numbers = |spec: &GenerateSpec, indices: std::ops::Range<u64>| -> Vec<u64> {
            indices.map(|index| choose(spec, index).number).collect()
        };
        let shared = spec(Per::Batch);
        for batch in 0..20 {
            let numbers = numbers(&shared, batch * 8..batch * 8 + 8);
            assert!(numbers.iter().all(|number| *number == numbers[0]));
        }
        let own = numbers(&spec(Per::Image), 0..8);
        assert!(own.iter().any(|number| *number != own[0]), "{own:?}");
    }
}

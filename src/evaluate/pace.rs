//! How long it may still take: passes that are left at most, at the speed so far.

use std::time::Instant;

use super::spec::{AttackName, AttackSpec};

/// A backward pass in forward passes.
const BACKWARD: f64 = 2.0;

/// Speed of this process.
pub(crate) struct Pace {
    begun: Instant,
    /// Work done since, in forward passes of one example.
    spent: f64,
}

impl Pace {
    pub(crate) fn begin() -> Self {
        Self { begun: Instant::now(), spent: 0.0 }
    }

    /// Takes note of passes that were computed just now.
    pub(crate) fn spend(&mut self, forwards: u64, backwards: u64) {
        self.spent += forwards as f64 + BACKWARD * backwards as f64;
    }

    /// Words for the time that `work` takes, or nothing while too little is known.
    pub(crate) fn left(&self, work: f64) -> Option<String> {
        let elapsed = self.begun.elapsed().as_secs_f64();
        (elapsed > 1.0 && self.spent > 0.0).then(|| {
            let seconds = (work * elapsed / self.spent).ceil() as u64;
            match seconds {
                0..90 => format!("at most {seconds} s left"),
                90..5400 => format!("at most {} min left", seconds.div_ceil(60)),
                _ => format!("at most {} h {} min left", seconds / 3600, seconds % 3600 / 60),
            }
        })
    }
}

/// Work on one example that withstands `attack`, in forward passes.
pub(crate) fn work(attack: &AttackSpec) -> f64 {
    let once = match attack.name {
        AttackName::Square => 1.0,
        AttackName::FabT => 2.0 + BACKWARD,
        // Both runs; a gradient for each class.
        AttackName::Pma => 2.0 * (1.0 + BACKWARD),
        AttackName::Fab => 2.0 + 10.0 * BACKWARD,
        _ => 1.0 + BACKWARD,
    };
    let runs = attack.restarts * attack.targets.max(1) * attack.eot.max(1);
    once * (attack.steps * runs) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::spec::published;

    #[test]
    fn time_left_follows_the_speed() {
        let mut pace = Pace::begin();
        assert_eq!(pace.left(100.0), None);
        pace.begun = Instant::now().checked_sub(std::time::Duration::from_secs(10)).unwrap();
        pace.spend(100, 50);
        assert_eq!(pace.left(200.0).unwrap(), "at most 11 s left");
        assert_eq!(pace.left(200_000.0).unwrap(), "at most 2 h 46 min left");
        assert!((work(&published(AttackName::ApgdT, 10)) - 2700.0).abs() < 1e-9);
    }
}

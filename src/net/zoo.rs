//! What RobustBench's classes do that the names in its files do not tell. Its files are called by
//! the identifier of the model, so that the name of a file counts where nothing else does.
//!
//! Source: RobustBench 1.1, `model_zoo/cifar10.py` and `cifar100.py`.

use super::arch::Affine;

/// What is known of a file by its name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Known {
    /// The normalisation that the class applies, unless the file itself holds one.
    pub(super) affine: Option<Affine>,
    /// Whether the shortcuts of a pre-activation network take the raw input of their block.
    pub(super) raw: bool,
}

const CIFAR10: Affine = [[0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]];
const CIFAR100: Affine = [[0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]];
const EXACT_CIFAR10: Affine = [
    [0.491_399_755_166_628_4, 0.482_158_559_298_937_03, 0.446_530_913_373_161_8],
    [0.247_032_251_417_990_82, 0.243_485_164_745_64, 0.261_587_839_260_496_5],
];
const EXACT_CIFAR100: Affine = [
    [0.507_075_159_237_132_3, 0.486_548_873_314_950_95, 0.440_917_843_367_034_3],
    [0.267_334_285_879_240_1, 0.256_438_462_917_088_3, 0.276_150_471_325_684_04],
];
const ENGSTROM: Affine = [[0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]];
const RONY: Affine = [[0.491, 0.482, 0.447], [0.247, 0.243, 0.262]];
const HALVES: Affine = [[0.5; 3], [0.5; 3]];

/// What is known of the file whose name without its ending is `stem`, of a classifier of
/// `dataset` (the family's name); an error says why such a file cannot be computed from its weights.
pub(super) fn known(stem: &str, dataset: &str) -> Result<Option<Known>, &'static str> {
    let normalised = |affine| Ok(Some(Known { affine: Some(affine), raw: false }));
    match (stem, dataset) {
        ("Ding2020MMA", _) => Err("its class standardises every image by itself"),
        ("Pang2020Boosting", _) => Err("its class normalises the features and the head's weights"),
        ("Andriushchenko2020Understanding", "cifar10") => {
            Ok(Some(Known { affine: None, raw: true }))
        }
        ("Wong2020Fast", "cifar10") => Ok(Some(Known { affine: Some(CIFAR10), raw: true })),
        ("Rice2020Overfitting" | "Chen2020Efficient", "cifar10") => normalised(CIFAR10),
        (_, "cifar10") if stem.starts_with("Kireev2021Effectiveness_") => normalised(CIFAR10),
        ("Engstrom2019Robustness", "cifar10") => normalised(ENGSTROM),
        ("Rony2019Decoupling", "cifar10") => normalised(RONY),
        (_, "cifar10") if stem.starts_with("Augustin2020Adversarial") => normalised(EXACT_CIFAR10),
        ("Hendrycks2019Using" | "Hendrycks2020AugMix_WRN", "cifar10" | "cifar100") => {
            normalised(HALVES)
        }
        ("Chen2020Efficient", "cifar100") => normalised(CIFAR100),
        ("Rice2020Overfitting" | "Wu2020Adversarial", "cifar100") => normalised(EXACT_CIFAR100),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_tell_by_data_set() {
        assert_eq!(known("Wu2020Adversarial", "cifar10"), Ok(None));
        let wu = known("Wu2020Adversarial", "cifar100").unwrap().unwrap();
        assert_eq!((wu.affine, wu.raw), (Some(EXACT_CIFAR100), false));
        assert!(known("Wong2020Fast", "cifar10").unwrap().unwrap().raw);
        assert!(known("Ding2020MMA", "cifar10").is_err());
        assert_eq!(known("my-wong2020fast", "cifar10"), Ok(None));
    }
}

//! The classifier architectures by name, and the normalisation that each has inside.

use super::{
    layers::Activation,
    preact::Form,
    wrn::{WideForm, WideSpec},
};
use crate::error::{Error, Result};

/// A classifier architecture, parsed from its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// `wrn-28-10-swish`, `wrn-28-10`, `wrn-34-10-classic`.
    Wide(WideSpec),
    /// `preact-resnet18`, `preact-resnet34-swish`: form and layers.
    PreAct(Form, i64),
    /// `resnet20`: layers.
    Cifar(i64),
    /// `resnet18`, `resnet34`: layers.
    Basic(i64),
    /// `cnn-a`.
    CnnA,
    /// `cifar-small`: CNN-A with the normalisation of Wong et al. 2018.
    Small,
    /// `resnet-2b` (one stage), `resnet-4b` (two).
    Verified(i64),
}

/// What `arch:` may be, for messages and help.
pub const KNOWN: &str = "wrn-DEPTH-WIDTH-swish and wrn-DEPTH-WIDTH (ReLU), DEPTH = 6n+4, such as \
     wrn-28-10-swish; wrn-DEPTH-WIDTH-classic (names as in TRADES: block1.layer.0...); \
     preact-resnet18, preact-resnet34, preact-resnet18-swish, preact-resnet34-swish; resnet18, \
     resnet34; resnet20, resnet32, resnet44, resnet56 (any 6n+2); cnn-a; cifar-small; \
     resnet-2b; resnet-4b; each also with -normalized appended";

/// One name of every family, and the usual sizes: what a misspelt name is compared with.
pub const EXAMPLES: [&str; 22] = [
    "wrn-28-10-swish",
    "wrn-28-10",
    "wrn-34-10-swish",
    "wrn-34-20-swish",
    "wrn-70-16-swish",
    "wrn-16-2",
    "wrn-28-10-classic",
    "wrn-34-10-classic",
    "preact-resnet18",
    "preact-resnet34",
    "preact-resnet18-swish",
    "preact-resnet34-swish",
    "resnet18",
    "resnet34",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "cnn-a",
    "cifar-small",
    "resnet-2b",
    "resnet-4b",
];

/// Ending of the names of networks that stand behind one more normalisation, that of the data
/// set: what DM-Improves-AT trains with `--normalize`.
pub const NORMALISED: &str = "-normalized";

/// The architecture called `name` and the affine map that it applies to images of `dataset`
/// first: mean and deviation of each channel, `None` where it takes images as they are.
///
/// # Errors
/// An unknown name lists what exists.
pub fn resolve(name: &str, dataset: &str) -> Result<(Arch, Option<[[f64; 3]; 2]>)> {
    let Some(bare) = name.strip_suffix(NORMALISED) else {
        let arch = Arch::parse(name)?;
        return Ok((arch, arch.normalisation(dataset)));
    };
    let arch = Arch::parse(bare)?;
    let [mean, deviation] = of_dataset(dataset);
    let Some([inner_mean, inner_deviation]) = arch.normalisation(dataset) else {
        return Ok((arch, Some([mean, deviation])));
    };
    // ((x - m) / s - m') / s' = (x - (m + s m')) / (s s')
    let combined = [0, 1, 2].map(|c| mean[c] + deviation[c] * inner_mean[c]);
    let product = [0, 1, 2].map(|c| deviation[c] * inner_deviation[c]);
    Ok((arch, Some([combined, product])))
}

impl Arch {
    /// The architecture called `name`.
    ///
    /// # Errors
    /// An unknown name lists what exists.
    pub fn parse(name: &str) -> Result<Self> {
        Self::find(name).ok_or_else(|| {
            let nearest = nearest(name)
                .map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"));
            Error::input(format!("unknown architecture `{name}`{nearest} Expected one of: {KNOWN}"))
        })
    }

    fn find(name: &str) -> Option<Self> {
        match name {
            "cnn-a" => return Some(Self::CnnA),
            "cifar-small" => return Some(Self::Small),
            "resnet-2b" => return Some(Self::Verified(1)),
            "resnet-4b" => return Some(Self::Verified(2)),
            _ => {}
        }
        let (stem, swish) = match name.strip_suffix("-swish") {
            Some(stem) => (stem, true),
            None => (name, false),
        };
        if let Some(sizes) = stem.strip_prefix("wrn-") {
            let (sizes, form) = match sizes.strip_suffix(CLASSIC) {
                Some(sizes) => (sizes, WideForm::Classic),
                None => (sizes, WideForm::Gowal),
            };
            let (depth, width) = sizes.split_once('-')?;
            let (depth, width) = (number(depth)?, number(width)?);
            let activation = if swish { Activation::Swish } else { Activation::Relu };
            let spec = WideSpec { form, depth, width, activation };
            return (depth >= 10 && depth % 6 == 4).then_some(Self::Wide(spec));
        }
        if let Some(layers) = stem.strip_prefix("preact-resnet") {
            let form = if swish { Form::Gowal } else { Form::Plain };
            let layers = number(layers).filter(|layers| [18, 34].contains(layers))?;
            return Some(Self::PreAct(form, layers));
        }
        let layers = name.strip_prefix("resnet").and_then(number)?;
        if layers == 18 || layers == 34 {
            return Some(Self::Basic(layers));
        }
        (layers >= 8 && layers % 6 == 2).then_some(Self::Cifar(layers))
    }

    /// Mean and deviation of each channel by which the network normalises images of `dataset`;
    /// `None` for the networks that take images as they are.
    pub fn normalisation(self, dataset: &str) -> Option<[[f64; 3]; 2]> {
        const IMAGENET: [f64; 3] = [0.485, 0.456, 0.406];
        const CIFAR: [f64; 3] = [0.4914, 0.4822, 0.4465];
        match self {
            Self::PreAct(Form::Plain, _) | Self::Basic(_) => None,
            Self::Wide(WideSpec { form: WideForm::Classic, .. }) => None,
            Self::Cifar(_) => Some([IMAGENET, [0.229, 0.224, 0.225]]),
            Self::Small => Some([IMAGENET, [0.225; 3]]),
            Self::CnnA => Some([CIFAR, [0.2023, 0.1994, 0.2010]]),
            Self::Verified(_) => Some([CIFAR, [0.2471, 0.2435, 0.2616]]),
            Self::Wide(_) | Self::PreAct(Form::Gowal, _) => Some(of_dataset(dataset)),
        }
    }
}

/// Ending of the names of wide networks in the form of TRADES.
pub const CLASSIC: &str = "-classic";

/// The known name nearest to `name`, if any is near.
fn nearest(name: &str) -> Option<&'static str> {
    let lower = name.to_lowercase().replace(['_', ' '], "-");
    let likeness = |known: &&str| strsim::normalized_damerau_levenshtein(&lower, known);
    let best = EXAMPLES.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) > 0.5).then_some(best)
}

/// Mean and deviation of each channel that go with `dataset`.
pub fn of_dataset(dataset: &str) -> [[f64; 3]; 2] {
    match dataset {
        "cifar10" => [[0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]],
        "cifar100" | "cifar100-coarse" => [[0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]],
        "tiny-imagenet" => [[0.4802, 0.4481, 0.3975], [0.2302, 0.2265, 0.2262]],
        // SVHN's, and whatever has no published numbers.
        _ => [[0.5; 3], [0.5; 3]],
    }
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok().filter(|number| (1..=10_000).contains(number))
}

/// Edge length of the images of `dataset`, for the heads that depend on it.
pub fn resolution(dataset: &str) -> i64 {
    if dataset == "tiny-imagenet" { 64 } else { 32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_unknown_ones_list_what_exists() {
        let wide =
            WideSpec { form: WideForm::Gowal, depth: 28, width: 10, activation: Activation::Swish };
        assert_eq!(Arch::parse("wrn-28-10-swish").unwrap(), Arch::Wide(wide));
        assert_eq!(Arch::parse("preact-resnet34").unwrap(), Arch::PreAct(Form::Plain, 34));
        assert_eq!(Arch::parse("resnet56").unwrap(), Arch::Cifar(56));
        for bad in
            ["wrn-27-10", "wrn-28", "wrn-28-0", "resnet21", "preact-resnet50", "", "wrn--1-2"]
        {
            let message = Arch::parse(bad).unwrap_err().to_string();
            assert!(message.contains("wrn-28-10-swish") && message.contains("resnet-4b"), "{bad}");
        }
        for (bad, meant) in [
            ("wrn-28-10-swich", "`wrn-28-10-swish`"),
            ("WRN_28_10_Swish", "`wrn-28-10-swish`"),
            ("preactresnet18", "`preact-resnet18`"),
            ("resnet-18", "`resnet18`"),
            ("cnna", "`cnn-a`"),
        ] {
            let message = Arch::parse(bad).unwrap_err().to_string();
            assert!(message.contains(&format!("did you mean {meant}")), "{message}");
        }
        for example in EXAMPLES {
            assert!(Arch::parse(example).is_ok(), "{example}");
        }
    }

    #[test]
    fn a_second_normalisation_composes_with_the_one_inside() {
        let (arch, Some([mean, deviation])) = resolve("wrn-10-1-normalized", "svhn").unwrap()
        else {
            panic!("wide networks normalise");
        };
        assert_eq!(arch, Arch::parse("wrn-10-1").unwrap());
        let twice = |x: f64| ((x - 0.5) / 0.5 - 0.5) / 0.5;
        for x in [0.0, 0.3, 1.0] {
            assert!(((x - mean[0]) / deviation[0] - twice(x)).abs() < 1e-12);
        }
        let (_, plain) = resolve("preact-resnet18", "svhn").unwrap();
        let (_, behind) = resolve("preact-resnet18-normalized", "svhn").unwrap();
        assert_eq!((plain, behind), (None, Some([[0.5; 3], [0.5; 3]])));
    }
}

//! The classifier architectures by name, and the normalisation that each has inside.

use super::{
    layers::Activation,
    preact::{Form, PreActSpec},
    wrn::{WideForm, WideSpec},
};
use crate::error::{Error, Result};

/// A classifier architecture, parsed from its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// `wrn-28-10-swish`, `wrn-28-10`, `wrn-34-10-classic`.
    Wide(WideSpec),
    /// `preact-resnet18`, `preact-resnet34-swish`, `preact-resnet18-bare-raw`.
    PreAct(PreActSpec),
    /// `resnet20`: layers.
    Cifar(i64),
    /// `resnet18`, `resnet34`, `resnet50`, `resnet101`, `resnet152`: layers.
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
     preact-resnet18-swish, preact-resnet34-swish; preact-resnet18, 34, 50, 101, with -bare \
     appended if nothing normalises before the head and -raw if shortcuts take a block's input \
     before its activation; resnet18, 34, 50, 101, 152; resnet20, resnet32, resnet44, resnet56 \
     (any 6n+2); cnn-a; cifar-small; resnet-2b; resnet-4b; each also with -normalized appended, \
     or with @MEAN/DEVIATION: resnet18@0.5/0.25";

/// One name of every family, and the usual sizes: what a misspelt name is compared with.
pub const EXAMPLES: [&str; 27] = [
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
    "resnet50",
    "preact-resnet50",
    "preact-resnet18-raw",
    "preact-resnet18-bare",
    "preact-resnet18-bare-raw",
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

/// Mean and deviation of each channel.
pub type Affine = [[f64; 3]; 2];

/// The architecture called `name` and the affine map that it applies to images of `dataset`
/// first, `None` where it takes images as they are.
///
/// # Errors
/// An unknown name lists what exists.
pub fn resolve(name: &str, dataset: &str) -> Result<(Arch, Option<Affine>)> {
    if let Some((bare, numbers)) = name.split_once('@') {
        let affine = affine(numbers).ok_or_else(|| {
            Error::input(format!(
                "architecture `{name}`: `{numbers}` should be MEAN/DEVIATION, each one number or \
                 three, such as 0.4914,0.4822,0.4465/0.2471,0.2435,0.2616"
            ))
        })?;
        return Ok((Arch::parse(bare)?, Some(affine)));
    }
    let Some(bare) = name.strip_suffix(NORMALISED) else {
        let arch = Arch::parse(name)?;
        return Ok((arch, arch.normalisation(dataset)));
    };
    let arch = Arch::parse(bare)?;
    let outer = of_dataset(dataset);
    let inner = arch.normalisation(dataset);
    Ok((arch, Some(inner.map_or(outer, |inner| composed(outer, inner)))))
}

/// First `outer`, then `inner`: ((x - m) / s - m') / s' = (x - (m + s m')) / (s s').
pub fn composed(outer: Affine, inner: Affine) -> Affine {
    let [[mean, deviation], [inner_mean, inner_deviation]] = [outer, inner];
    [
        [0, 1, 2].map(|c| mean[c] + deviation[c] * inner_mean[c]),
        [0, 1, 2].map(|c| deviation[c] * inner_deviation[c]),
    ]
}

/// `name` with `affine` before its first layer, in place of what it has there anyway.
pub fn with_affine(name: &str, affine: Affine) -> String {
    let text = |values: [f64; 3]| {
        // In single precision, as they are applied: the shortest text that gives them back.
        let texts = values.map(|value| (value as f32).to_string());
        if texts.iter().all(|text| *text == texts[0]) { texts[0].clone() } else { texts.join(",") }
    };
    let [mean, deviation] = affine.map(text);
    format!("{name}@{mean}/{deviation}")
}

/// `0.5/0.25` or `0.1,0.2,0.3/1,1,1`.
fn affine(text: &str) -> Option<Affine> {
    let values = |text: &str| -> Option<[f64; 3]> {
        let numbers = text.split(',').map(|number| number.trim().parse().ok());
        let numbers: Vec<f64> = numbers.collect::<Option<_>>()?;
        let three = match numbers[..] {
            [one] => [one; 3],
            [a, b, c] => [a, b, c],
            _ => return None,
        };
        three.iter().all(|value| value.is_finite()).then_some(three)
    };
    let (mean, deviation) = text.split_once('/')?;
    let deviation = values(deviation)?;
    deviation.iter().all(|&value| value > 0.0).then_some([values(mean)?, deviation])
}

/// `name` without what may be appended to any name, and that.
pub fn split(name: &str) -> (&str, &str) {
    let end = name.find('@').or_else(|| name.strip_suffix(NORMALISED).map(str::len));
    name.split_at(end.unwrap_or(name.len()))
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
        if let Some(rest) = stem.strip_prefix("preact-resnet") {
            let form = if swish { Form::Gowal } else { Form::Plain };
            let (rest, raw) = without(rest, RAW);
            let (rest, bare) = without(rest, BARE);
            let layers = number(rest).filter(|layers| [18, 34, 50, 101].contains(layers))?;
            let plain = !swish || (layers < 50 && !raw && !bare);
            return plain.then_some(Self::PreAct(PreActSpec { form, layers, raw, bare }));
        }
        let layers = name.strip_prefix("resnet").and_then(number)?;
        if [18, 34, 50, 101, 152].contains(&layers) {
            return Some(Self::Basic(layers));
        }
        (layers >= 8 && layers % 6 == 2).then_some(Self::Cifar(layers))
    }

    /// Whether its own code normalises images, so that a normalisation before it is one more. The
    /// other networks take normalised images, by whatever stands before them.
    pub fn carries_its_normalisation(self) -> bool {
        match self {
            Self::Wide(wide) => wide.form == WideForm::Gowal,
            Self::PreAct(preact) => preact.form == Form::Gowal,
            _ => false,
        }
    }

    /// Mean and deviation of each channel by which the network normalises images of `dataset`;
    /// `None` for the networks that take images as they are.
    pub fn normalisation(self, dataset: &str) -> Option<Affine> {
        const IMAGENET: [f64; 3] = [0.485, 0.456, 0.406];
        const CIFAR: [f64; 3] = [0.4914, 0.4822, 0.4465];
        match self {
            Self::PreAct(PreActSpec { form: Form::Plain, .. })
            | Self::Wide(WideSpec { form: WideForm::Classic, .. })
            | Self::Basic(_) => None,
            Self::Cifar(_) => Some([IMAGENET, [0.229, 0.224, 0.225]]),
            Self::Small => Some([IMAGENET, [0.225; 3]]),
            Self::CnnA => Some([CIFAR, [0.2023, 0.1994, 0.2010]]),
            Self::Verified(_) => Some([CIFAR, [0.2471, 0.2435, 0.2616]]),
            Self::Wide(_) | Self::PreAct(_) => Some(of_dataset(dataset)),
        }
    }
}

/// Ending of the names of wide networks in the form of TRADES.
pub const CLASSIC: &str = "-classic";
/// Ending of the names of pre-activation networks without a normalisation before the head.
pub const BARE: &str = "-bare";
/// Ending of the names of those whose shortcuts take a block's input as it comes.
pub const RAW: &str = "-raw";

fn without<'a>(name: &'a str, ending: &str) -> (&'a str, bool) {
    name.strip_suffix(ending).map_or((name, false), |rest| (rest, true))
}

/// The known name nearest to `name`, if any is near.
fn nearest(name: &str) -> Option<&'static str> {
    let lower = name.to_lowercase().replace(['_', ' '], "-");
    let likeness = |known: &&str| strsim::normalized_damerau_levenshtein(&lower, known);
    let best = EXAMPLES.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) > 0.5).then_some(best)
}

/// The set whose classifiers are shown `dataset`: further test images and other layouts of a set
/// (`cifar10.1`, `cifar10-c/fog/3`, `cifar100-coarse`) go by that set. Other names are their own.
pub fn family(dataset: &str) -> &str {
    match dataset.split('/').next().unwrap_or(dataset) {
        "cifar10" | "cifar10-binary" | "cifar10.1" | "cifar10-c" => "cifar10",
        "cifar100" | "cifar100-binary" | "cifar100-coarse" | "cifar100-c" => "cifar100",
        "svhn" | "svhn-extra" => "svhn",
        _ => dataset,
    }
}

/// Mean and deviation of each channel that the paper's code publishes for `dataset`; `None` for
/// sets that it does not know, such as folders and files.
pub fn published(dataset: &str) -> Option<Affine> {
    match family(dataset) {
        "cifar10" => Some([[0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]]),
        "cifar100" => Some([[0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]]),
        "svhn" => Some(HALVES),
        "tiny-imagenet" => Some([[0.4802, 0.4481, 0.3975], [0.2302, 0.2265, 0.2262]]),
        _ => None,
    }
}

/// SVHN's numbers.
const HALVES: Affine = [[0.5; 3], [0.5; 3]];

/// Mean and deviation of each channel that go with `dataset`: the published ones, halves where
/// there are none.
pub fn of_dataset(dataset: &str) -> Affine {
    published(dataset).unwrap_or(HALVES)
}

/// What to tell whoever runs weights of the network called `name` of which only the name
/// `dataset` tells the normalisation, if that name tells none.
pub fn guessed(name: &str, dataset: &str) -> Option<String> {
    let by_name = !name.contains('@')
        && (name.ends_with(NORMALISED)
            || Arch::parse(name).is_ok_and(Arch::carries_its_normalisation));
    if !by_name || published(dataset).is_some() {
        return None;
    }
    let like_cifar = resolve(name, "cifar10").ok()?.1?;
    let (bare, _) = split(name);
    Some(format!(
        "the normalisation is a guess: the file holds none, and none is published for \
         `{dataset}`, so that mean 0.5 and deviation 0.5 stand in; if it was trained with others, \
         results are wrong until they are stated by --arch {bare}@MEAN/DEVIATION, such as \
         CIFAR-10's, --arch {}",
        with_affine(bare, like_cifar)
    ))
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
    fn further_test_images_go_by_the_normalisation_of_their_set() {
        for (set, further) in [
            ("cifar10", "cifar10.1"),
            ("cifar10", "cifar10-c/fog/3"),
            ("cifar100", "cifar100-c/fog/3"),
        ] {
            assert_eq!(of_dataset(set), of_dataset(further));
        }
        assert_ne!(of_dataset("cifar10"), of_dataset("cifar100"));
        assert_eq!(of_dataset("svhn"), of_dataset("svhn-extra"));
    }

    /// Only where the numbers come from the name of the set, and that name has none.
    #[test]
    fn a_guessed_normalisation_is_told_with_the_way_to_state_it() {
        let said = guessed("wrn-10-1-swish", "my/pictures").unwrap();
        for part in [
            "`my/pictures`",
            "--arch wrn-10-1-swish@MEAN/DEVIATION",
            "wrn-10-1-swish@0.4914,0.4822,0.4465/0.2471,0.2435,0.2616",
        ] {
            assert!(said.contains(part), "{said}");
        }
        assert!(guessed("resnet18-normalized", "set.npz").unwrap().contains("resnet18@0.4914"));
        for (name, dataset) in [
            ("wrn-10-1-swish", "cifar10-c/fog/3"),
            ("wrn-10-1-swish", "svhn-extra"),
            ("wrn-10-1-swish@0/1", "my/pictures"),
            ("resnet18", "my/pictures"),
            ("resnet20", "my/pictures"),
            ("cnn-a", "my/pictures"),
        ] {
            assert_eq!(guessed(name, dataset), None, "{name} on {dataset}");
        }
    }

    #[test]
    fn names_parse_and_unknown_ones_list_what_exists() {
        let wide =
            WideSpec { form: WideForm::Gowal, depth: 28, width: 10, activation: Activation::Swish };
        assert_eq!(Arch::parse("wrn-28-10-swish").unwrap(), Arch::Wide(wide));
        let plain = PreActSpec { form: Form::Plain, layers: 34, raw: false, bare: false };
        assert_eq!(Arch::parse("preact-resnet34").unwrap(), Arch::PreAct(plain));
        let raw = PreActSpec { raw: true, bare: true, ..plain };
        assert_eq!(Arch::parse("preact-resnet34-bare-raw").unwrap(), Arch::PreAct(raw));
        assert_eq!(Arch::parse("resnet56").unwrap(), Arch::Cifar(56));
        for bad in ["wrn-27-10", "wrn-28", "resnet21", "preact-resnet50-swish", "", "wrn--1-2"] {
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

    #[test]
    fn a_normalisation_in_a_name_replaces_the_one_inside() {
        let numbers = [[0.4914, 0.4822, 0.4465], [0.5; 3]];
        let name = with_affine("wrn-10-1", numbers);
        assert_eq!(name, "wrn-10-1@0.4914,0.4822,0.4465/0.5");
        assert_eq!(resolve(&name, "svhn").unwrap().1, Some(numbers));
        assert_eq!(split(&name), ("wrn-10-1", "@0.4914,0.4822,0.4465/0.5"));
        assert_eq!(split("resnet18-normalized"), ("resnet18", "-normalized"));
        for bad in ["@", "@1", "@a/1", "@0.1,0.2/1", "@0/0", "@0/nan", "@0/1/2"] {
            let message = resolve(&format!("resnet18{bad}"), "svhn").unwrap_err().to_string();
            assert!(message.contains("MEAN/DEVIATION"), "{bad}: {message}");
        }
    }
}

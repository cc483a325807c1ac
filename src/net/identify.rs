//! Which network the weights of a file belong to: from what the caller says, the file says, the
//! names and shapes show and, for RobustBench's files, the file is called.

use super::{
    arch::{self, Affine, BARE, CLASSIC, RAW},
    checkpoint::{Normalisation, StateDict},
    closest,
    load::{Told, said},
    spec::ClassifierSpec,
    zoo::{self, Known},
};
use crate::{
    error::{Error, Result},
    formats::tree::{Document, Tree},
};

/// An architecture and a number of classes that names and shapes show.
pub(super) type Inferred = Option<(String, i64)>;

/// The spec of the classifier with the weights `state` in the file called `stem`.
pub(super) fn spec(
    (document, stem): (&Document, &str),
    state: &StateDict,
    inferred: Inferred,
    told: Told,
) -> Result<ClassifierSpec> {
    let dataset = said(document, "dataset").unwrap_or(told.dataset).to_owned();
    let arch = match (told.arch, said(document, "arch"), &inferred) {
        (Some(name), _, Some((found, _))) => {
            behind(adapted(name, found), state.normalisation, &dataset)?
        }
        (Some(name), _, None) => behind(name.to_owned(), state.normalisation, &dataset)?,
        (None, Some(name), _) => name.to_owned(),
        // The two share all names and shapes; only Wong et al. save a list, a cascade.
        (None, None, Some((found, _))) if found == "cnn-a" && is_cascade(document) => {
            behind("cifar-small".into(), state.normalisation, &dataset)?
        }
        (None, None, Some((found, _))) => recognised(found, stem, state, &dataset)?,
        (None, None, None) => {
            let closest = closest::describe(&state.arrays);
            let closest = closest.map_or_else(String::new, |closest| format!("; {closest}"));
            return Err(Error::input(format!(
                "its weights do not tell the architecture{closest}; name one (--arch) of: {}",
                arch::KNOWN
            )));
        }
    };
    let classes = match (said(document, "classes"), inferred) {
        (Some(text), _) => text
            .parse()
            .map_err(|_| Error::input(format!("metadata: classes `{text}` is not a number")))?,
        (None, Some((_, classes))) => classes,
        // The weights are not those of any architecture: loading will say which entries.
        (None, None) => 10,
    };
    Ok(ClassifierSpec { arch, dataset, classes })
}

/// Whether the weights are a list of state dicts, as Wong et al. 2018 save their networks.
fn is_cascade(document: &Document) -> bool {
    matches!(document.tree.get("state_dict"), Some(Tree::List(_)))
}

/// The name of what was `found`, and told by nobody.
fn recognised(found: &str, stem: &str, state: &StateDict, dataset: &str) -> Result<String> {
    let known = zoo::known(stem, arch::family(dataset)).map_err(|why| {
        Error::input(format!(
            "is called as RobustBench's {stem}, which its weights do not tell whole: {why}; \
             export it as TorchScript, or name an architecture (--arch) if it is another network"
        ))
    })?;
    let mut name = found.to_owned();
    if known.is_some_and(|known| known.raw) && found.starts_with("preact-resnet") {
        name.push_str(RAW);
    }
    if name.ends_with(BARE) && known.is_none() {
        return Err(Error::input(format!(
            "its names fit two networks that compute differently: --arch {found} (shortcuts of \
             the activated input, as in kuangliu's code) and --arch {found}{RAW} (shortcuts of \
             the input before it, as in Wong et al. 2020 and RobustBench); name one"
        )));
    }
    match (state.normalisation, known) {
        (Normalisation::Inside, Some(Known { affine: Some(affine), .. })) => {
            Ok(arch::with_affine(&name, affine))
        }
        (normalisation, _) => behind(name, normalisation, dataset),
    }
}

/// The name that was told, with the endings that the names in the file show: wide networks of one
/// size have two sets of names, pre-activation networks may lack their last normalisation.
fn adapted(told: &str, found: &str) -> String {
    let (name, tail) = arch::split(told);
    if found.strip_suffix(CLASSIC) == Some(name) {
        return format!("{found}{tail}");
    }
    let (stem, raw) = name.strip_suffix(RAW).map_or((name, ""), |stem| (stem, RAW));
    if found.strip_suffix(BARE) == Some(stem) {
        return format!("{found}{raw}{tail}");
    }
    told.to_owned()
}

/// `name`, marked if something else than its own normalisation stands before the network. What
/// was told of it (`-normalized`, `@...`) stays.
fn behind(name: String, normalisation: Normalisation, dataset: &str) -> Result<String> {
    if !arch::split(&name).1.is_empty() {
        return Ok(name);
    }
    let (given, before) = match normalisation {
        Normalisation::Inside => return Ok(name),
        Normalisation::Before => return Ok(format!("{name}{}", arch::NORMALISED)),
        Normalisation::Given(given, before) => (given, before),
    };
    let (arch, inside) = arch::resolve(&name, dataset)?;
    let whole = match inside.filter(|_| before && arch.carries_its_normalisation()) {
        Some(inside) => arch::composed(given, inside),
        None => given,
    };
    let same = |a: Affine, b: Affine| {
        let close = |(a, b): (&f64, &f64)| (*a as f32 - *b as f32).abs() <= f32::EPSILON * 0.5;
        a.as_flattened().iter().zip(b.as_flattened()).all(close)
    };
    if same(whole, inside.unwrap_or([[0.0; 3], [1.0; 3]])) {
        return Ok(name);
    }
    Ok(arch::with_affine(&name, whole))
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::net::{Classifier, Network, formula, load_network, save_classifier, tensors};

    #[test]
    fn what_is_told_meets_what_is_found() {
        for (told, found, expected) in [
            ("wrn-34-10", "wrn-34-10-classic", "wrn-34-10-classic"),
            ("wrn-34-10@0.5/1", "wrn-34-10-classic", "wrn-34-10-classic@0.5/1"),
            ("preact-resnet18", "preact-resnet18-bare", "preact-resnet18-bare"),
            ("preact-resnet18-raw", "preact-resnet18-bare", "preact-resnet18-bare-raw"),
            ("preact-resnet18-raw", "preact-resnet18", "preact-resnet18-raw"),
            ("wrn-28-10", "wrn-28-10-swish", "wrn-28-10"),
        ] {
            assert_eq!(adapted(told, found), expected);
        }
    }

    #[test]
    fn normalisations_are_exact_and_composed_where_two_stand() {
        let given = |affine, before| Normalisation::Given(affine, before);
        let own = arch::of_dataset("cifar10");
        let name = |name: &str, normalisation| behind(name.to_owned(), normalisation, "cifar10");
        // The network's own numbers, kept beside its layers.
        assert_eq!(name("wrn-28-10-swish", given(own, false)).unwrap(), "wrn-28-10-swish");
        let rony = [[0.491, 0.482, 0.447], [0.247, 0.243, 0.262]];
        let expected = "wrn-28-10-classic@0.491,0.482,0.447/0.247,0.243,0.262";
        assert_eq!(name("wrn-28-10-classic", given(rony, true)).unwrap(), expected);
        let none = [[0.0; 3], [1.0; 3]];
        assert_eq!(name("resnet18", given(none, true)).unwrap(), "resnet18");
        assert_eq!(name("resnet20", given(none, true)).unwrap(), "resnet20@0/1");
        let twice = name("wrn-16-2", given([[0.5; 3], [0.5; 3]], true)).unwrap();
        let (_, whole) = arch::resolve(&twice, "cifar10").unwrap();
        assert!((whole.unwrap()[0][0] - (0.5 + 0.5 * 0.4914)).abs() < 1e-6, "{twice}");
        assert_eq!(name("wrn-16-2@0/1", given(rony, true)).unwrap(), "wrn-16-2@0/1");
        assert_eq!(
            name("resnet18-normalized", Normalisation::Before).unwrap(),
            "resnet18-normalized"
        );
    }

    /// Names leave open how the shortcuts compute; RobustBench's name for the file may tell.
    #[test]
    fn networks_that_share_their_names_are_told_apart_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let x = formula::images(&[2, 3, 32, 32], 0.0, 1.0, Device::Cpu);
        let spec = |arch: &str| ClassifierSpec {
            arch: arch.into(),
            dataset: "cifar10".into(),
            classes: 10,
        };
        let raw = Network::new(&spec("preact-resnet18-bare-raw"), 1, Device::Cpu).unwrap();
        let write = |name: &str| {
            let path = folder.path().join(name);
            tensors::write(&path, &raw.state(), &[]).unwrap();
            path
        };
        let path = write("x.pt");
        let error = load_network(&path, None, "cifar10", Device::Cpu).unwrap_err().to_string();
        for part in ["two networks", "--arch preact-resnet18-bare ", "preact-resnet18-bare-raw"] {
            assert!(error.contains(part), "{error}");
        }
        let told = load_network(&path, Some("preact-resnet18-raw"), "cifar10", Device::Cpu);
        assert!(told.unwrap().logits(&x).equal(&raw.logits(&x)));
        let other = load_network(&path, Some("preact-resnet18"), "cifar10", Device::Cpu).unwrap();
        assert!(!other.logits(&x).allclose(&raw.logits(&x), 1e-3, 1e-3, false));
        let path = write("Andriushchenko2020Understanding.pt");
        let known = load_network(&path, None, "cifar10", Device::Cpu).unwrap();
        assert!(known.logits(&x).equal(&raw.logits(&x)));
        let path = write("Wong2020Fast.pt");
        let known = load_network(&path, None, "cifar10", Device::Cpu).unwrap();
        assert_eq!(
            known.spec().arch,
            "preact-resnet18-bare-raw@0.4914,0.4822,0.4465/0.2471,0.2435,0.2616"
        );
        let path = write("Ding2020MMA.pt");
        let error = load_network(&path, None, "cifar10", Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("standardises every image") && error.contains("TorchScript"));
        // What was found out is kept with the weights.
        save_classifier(&path, &known).unwrap();
        let again = load_network(&path, None, "svhn", Device::Cpu).unwrap();
        assert_eq!(again.spec(), known.spec());
        assert!(again.logits(&x).equal(&known.logits(&x)));
    }
}

//! Where a named set lies, found before anything of it is read.

use std::path::{Path, PathBuf};

use crate::{
    data::{
        Dataset,
        cache::{Cache, Stamp},
        catalog, cifar,
        find::NAMES,
        folder, generated, shifted,
        spec::Split,
        svhn, tiny,
    },
    error::{Error, Result},
    formats::shelf::{Shelf, is_archive},
};

/// One half of a set on disk, not yet read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The folder, archive or file.
    pub path: PathBuf,
    /// Which reader takes it.
    pub form: Form,
    name: String,
    split: Split,
}

/// The layouts that are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// CIFAR in Python's or the binary layout, in a folder or archive.
    Cifar(cifar::Kind),
    /// CIFAR in the binary layout, asked for as such.
    CifarBinary(cifar::Kind),
    /// A MATLAB or numpy file of SVHN.
    Svhn,
    /// TinyImageNet's own layout in a folder or archive.
    Tiny,
    /// `train.npz` or `val.npz` of TinyImageNet.
    TinyNpz,
    /// CIFAR-10.1 and corrupted sets.
    Shifted(shifted::Spec),
    /// A generated set: an `.npz` file or a folder of them.
    Generated,
    /// Class folders with pictures, in a folder or archive.
    Pictures,
}

impl Form {
    /// The form in words.
    pub fn words(&self) -> &'static str {
        match self {
            Self::Cifar(_) => "CIFAR layout",
            Self::CifarBinary(_) => "binary layout",
            Self::Svhn => "SVHN arrays",
            Self::Tiny => "TinyImageNet layout",
            Self::TinyNpz | Self::Generated => "npz",
            Self::Shifted(_) => "npy",
            Self::Pictures => "image folder",
        }
    }
}

impl Found {
    /// Reads the images.
    ///
    /// # Errors
    /// If a file is missing or bad; the message names it.
    pub fn read(&self) -> Result<Dataset> {
        match &self.form {
            Form::Cifar(kind) => {
                let shelf = Shelf::open(&self.path)?;
                let top = cifar::top(*kind, &shelf).ok_or_else(|| self.gone())?;
                cifar::read(*kind, &shelf, &top, self.split)
            }
            Form::CifarBinary(kind) => {
                let shelf = Shelf::open(&self.path)?;
                let top = cifar::binary_top(*kind, &shelf).ok_or_else(|| self.gone())?;
                cifar::read(*kind, &shelf, &top, self.split)
            }
            Form::Svhn => svhn::read(&self.path),
            Form::Tiny => {
                let shelf = Shelf::open(&self.path)?;
                let top = tiny::top(&shelf).ok_or_else(|| self.gone())?;
                tiny::read(&shelf, &top, self.split)
            }
            Form::TinyNpz => {
                let classes: Vec<_> = (0..200).map(|class| class.to_string()).collect();
                generated::read(&self.path, "tiny-imagenet", &classes).map(Dataset::by_turns)
            }
            Form::Shifted(spec) => shifted::read(&self.name, spec, &self.path),
            Form::Generated => generated::read_unnamed(&self.path).map(Dataset::by_turns),
            Form::Pictures => {
                let shelf = Shelf::open(&self.path)?;
                let top = folder::half(&shelf, self.split)?.ok_or_else(|| self.gone())?;
                folder::read(&shelf, &self.name, &top)
            }
        }
    }

    /// Every file that the images depend on.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        if self.path.is_file() {
            return Ok(vec![self.path.clone()]);
        }
        if let Form::Shifted(spec) = &self.form {
            return Ok(vec![self.path.join(&spec.images), self.path.join(spec.labels)]);
        }
        if self.form == Form::Generated {
            return generated::part_files(&self.path);
        }
        let shelf = Shelf::open(&self.path)?;
        let names: Vec<String> = match &self.form {
            Form::Cifar(kind) | Form::CifarBinary(kind) => {
                let only = matches!(self.form, Form::CifarBinary(_));
                let find = if only { cifar::binary_top } else { cifar::top };
                let (top, binary) = find(*kind, &shelf).ok_or_else(|| self.gone())?;
                let files = kind.files(self.split).into_iter();
                files
                    .map(|name| format!("{top}/{name}{}", if binary { ".bin" } else { "" }))
                    .collect()
            }
            Form::Tiny => {
                let top = tiny::top(&shelf).ok_or_else(|| self.gone())?;
                tiny::list(&shelf, &top, self.split)?.1.into_iter().map(|(name, _)| name).collect()
            }
            _ => {
                let top = folder::half(&shelf, self.split)?.ok_or_else(|| self.gone())?;
                folder::list(&shelf, &top)?.1.into_iter().map(|(name, _)| name).collect()
            }
        };
        let names = names.iter().map(|name| self.path.join(name.trim_start_matches('/')));
        Ok(names.filter(|path| path.exists()).collect())
    }

    /// Whether reading takes long enough that the result is worth keeping: pictures must be
    /// decoded, most archives unpacked, MATLAB files unpacked and turned.
    pub fn is_slow(&self) -> bool {
        let archived = self.path.is_file() && is_archive(&self.path);
        archived || matches!(self.form, Form::Svhn | Form::Tiny | Form::Pictures)
    }

    fn gone(&self) -> Error {
        Error::in_file(
            &self.path,
            format!("holds no images of `{}` in a layout that is known", self.name),
        )
    }
}

/// Where one half of the set called `name` lies.
///
/// # Errors
/// If it is not found; the message says where it was looked for.
pub fn locate(name: &str, split: Split, roots: &[PathBuf]) -> Result<Found> {
    let found = |(path, form)| Found { path, form, name: name.to_owned(), split };
    let place = match name {
        "cifar10" => cifar_set(cifar::Kind::Ten, roots),
        "cifar100" => cifar_set(cifar::Kind::Hundred, roots),
        "cifar100-coarse" => cifar_set(cifar::Kind::Coarse, roots),
        "cifar10-binary" => binary_set(cifar::Kind::Ten, roots),
        "cifar100-binary" => binary_set(cifar::Kind::Hundred, roots),
        "svhn" => svhn_set(split, false, roots),
        "svhn-extra" => svhn_set(split, true, roots),
        "tiny-imagenet" => tiny_set(split, roots),
        _ => match shifted::spec(name)? {
            Some(spec) => shifted_set(name, spec, split, roots),
            None => by_path(name, split, roots),
        },
    };
    place.map(found)
}

type Place = (PathBuf, Form);

/// Each root, and the folders in it where `names` put a set.
fn candidates(roots: &[PathBuf], names: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for root in roots {
        found.extend([root.clone(), root.join("data")]);
        for middle in ["", "data"] {
            found.extend(names.iter().map(|name| root.join(middle).join(name)));
        }
    }
    found
}

/// The folders of `outer` (and `inner` in each), then the archives in them; a root may be an
/// archive itself.
fn shelves(outer: &[PathBuf], inner: &[&str], archives: &[&str]) -> Vec<PathBuf> {
    let folders = outer
        .iter()
        .flat_map(|folder| inner.iter().map(|name| folder.join(name)).chain([folder.clone()]));
    let archives = outer.iter().flat_map(|folder| archives.iter().map(|name| folder.join(name)));
    let given = outer.iter().filter(|path| path.is_file() && is_archive(path)).cloned();
    let folders: Vec<_> = folders.filter(|path| path.is_dir()).collect();
    folders.into_iter().chain(archives.filter(|path| path.is_file())).chain(given).collect()
}

/// The folders in which people keep CIFAR, those that an archive is unpacked into by name included.
fn cifar_folders(kind: cifar::Kind, roots: &[PathBuf]) -> Vec<PathBuf> {
    let name = if kind == cifar::Kind::Ten { "cifar10" } else { "cifar100" };
    let mut names = vec![name.to_owned(), name.replace("cifar", "cifar-"), name.to_uppercase()];
    names.push(name.replace("cifar", "CIFAR-"));
    names.push(format!("{name}-binary"));
    let unpacked = kind.archives().map(|archive| archive.replace(".tar.gz", ""));
    names.extend(unpacked);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    candidates(roots, &names)
}

fn binary_set(kind: cifar::Kind, roots: &[PathBuf]) -> Result<Place> {
    let outer = cifar_folders(kind, roots);
    let ([_, folder], [_, archive]) = (kind.folders(), kind.archives());
    for path in shelves(&outer, &[folder], &[archive]) {
        let named = path.is_file() && path.ends_with(archive);
        if named || cifar::binary_top(kind, &Shelf::open(&path)?).is_some() {
            return Ok((path, Form::CifarBinary(kind)));
        }
    }
    let expected = format!("`{folder}` or `{archive}`");
    Err(not_found(&format!("{}-binary", kind.name()), roots, &expected))
}

fn cifar_set(kind: cifar::Kind, roots: &[PathBuf]) -> Result<Place> {
    let outer = cifar_folders(kind, roots);
    for path in shelves(&outer, &kind.folders(), &kind.archives()) {
        // An archive found by its name is taken at its word: unpacking it only to look would
        // double the work, and what is wrong in it is said by the reader.
        if path.is_file() && kind.archives().iter().any(|name| path.ends_with(name)) {
            return Ok((path, Form::Cifar(kind)));
        }
        if cifar::top(kind, &Shelf::open(&path)?).is_some() {
            return Ok((path, Form::Cifar(kind)));
        }
    }
    Err(not_found(kind.name(), roots, &cifar::expected(kind)))
}

fn svhn_set(split: Split, extra: bool, roots: &[PathBuf]) -> Result<Place> {
    let outer = candidates(roots, &["svhn", "SVHN"]);
    if let Some(path) = svhn_file(split, extra, &outer) {
        return Ok((path, Form::Svhn));
    }
    // One complaint about both halves where both are missing.
    let halves = [Split::Train, Split::Test].into_iter();
    let missing = halves.filter(|half| *half == split || svhn_file(*half, extra, &outer).is_none());
    let mut files: Vec<_> =
        missing.map(|half| format!("`{}.mat`", svhn::stems(half, extra)[0])).collect();
    files.dedup();
    let name = if extra { "svhn-extra" } else { "svhn" };
    Err(not_found(name, roots, &format!("{} (or .npz)", files.join(" and "))))
}

fn svhn_file(split: Split, extra: bool, folders: &[PathBuf]) -> Option<PathBuf> {
    let [full, short] = svhn::stems(split, extra);
    folders.iter().find_map(|folder| {
        let mut files =
            vec![folder.join(format!("{full}.mat")), folder.join(format!("{full}.npz"))];
        // `train.npz` alone may be any set's: the folder must say which.
        if folder.file_name().is_some_and(|name| name.eq_ignore_ascii_case("svhn")) {
            files.push(folder.join(format!("{short}.npz")));
        }
        files.into_iter().find(|path| path.is_file())
    })
}

fn tiny_set(split: Split, roots: &[PathBuf]) -> Result<Place> {
    let names = [tiny::FOLDER, "tiny-imagenet", "TinyImageNet", "tiny_imagenet"];
    let outer = candidates(roots, &names);
    for path in shelves(&outer, &[tiny::FOLDER], &["tiny-imagenet-200.zip"]) {
        if tiny::top(&Shelf::open(&path)?).is_some() {
            return Ok((path, Form::Tiny));
        }
    }
    let file = if split == Split::Train { "train.npz" } else { "val.npz" };
    let called = |folder: &&PathBuf| {
        let name = folder.file_name().unwrap_or_default();
        names.iter().any(|known| name == *known)
    };
    let mut files = outer.iter().filter(called).map(|folder| folder.join(file));
    match files.find(|path| path.is_file()) {
        Some(path) => Ok((path, Form::TinyNpz)),
        None => Err(not_found(
            "tiny-imagenet",
            roots,
            "`tiny-imagenet-200` (folder or .zip), or train.npz and val.npz in such a folder",
        )),
    }
}

/// Where [`shifted`] sets are looked for.
pub fn shifted_folders(roots: &[PathBuf]) -> Vec<PathBuf> {
    candidates(roots, &[])
}

fn shifted_set(name: &str, spec: shifted::Spec, split: Split, roots: &[PathBuf]) -> Result<Place> {
    if split == Split::Train {
        return Err(Error::input(format!("`{name}` has test images only")));
    }
    let folders = shifted_folders(roots);
    match shifted::locate(&spec, &folders) {
        Some(folder) => Ok((folder, Form::Shifted(spec))),
        None => {
            let expected = format!("`{}/{}`", spec.folder, spec.images);
            Err(not_found(name, roots, &expected))
        }
    }
}

/// A file or folder, as given or under a root; what it is shows in its content.
fn by_path(name: &str, split: Split, roots: &[PathBuf]) -> Result<Place> {
    let mut looked = vec![PathBuf::from(name)];
    looked.extend(roots.iter().map(|root| root.join(name)));
    if let Some(path) = looked.iter().find(|path| path.exists()) {
        return Ok((path.clone(), form_of(path, split)?));
    }
    let close = NAMES.iter().min_by_key(|known| strsim::levenshtein(known, name));
    let hint = close
        .filter(|known| strsim::levenshtein(known, name) <= 2)
        .map_or(String::new(), |known| format!(";{HANG}did you mean `{known}`?"));
    let (names, more) = NAMES.split_at(NAMES.len() / 2);
    let expected = format!(
        "a folder of class folders, an archive of one, an .npz file, or a name:{HANG}\
         `{}`,{HANG}`{}`",
        names.join("`, `"),
        more.join("`, `")
    );
    let looked = format!("the current folder, {}", listed(roots));
    Err(Error::input(absent(name, &looked, &expected, &hint)))
}

fn form_of(path: &Path, split: Split) -> Result<Form> {
    let ends = |ending: &str| path.extension().is_some_and(|found| found == ending);
    if path.is_file() && ends("npz") {
        return Ok(Form::Generated);
    }
    if path.is_file() && ends("mat") {
        return Ok(Form::Svhn);
    }
    // Looking into a tar archive means unpacking it: what was seen is noted.
    let stamp = Stamp::of(&format!("form {split:?}"), &[path.to_owned()])?;
    let cache = Cache::usual().filter(|_| path.is_file());
    match cache.as_ref().and_then(|cache| cache.noted::<String>(&stamp, FORM)).as_deref() {
        Some("tiny") => return Ok(Form::Tiny),
        Some("cifar10") => return Ok(Form::Cifar(cifar::Kind::Ten)),
        Some("cifar100") => return Ok(Form::Cifar(cifar::Kind::Hundred)),
        Some("pictures") => return Ok(Form::Pictures),
        _ => {}
    }
    let form = look_inside(path, split)?;
    let word = match &form {
        Form::Tiny => "tiny",
        Form::Cifar(kind) => kind.name(),
        Form::Pictures => "pictures",
        _ => return Ok(form),
    };
    if let Some(cache) = cache {
        // Without the note the next look only takes longer.
        let _ = cache.note(&stamp, FORM, &word);
    }
    Ok(form)
}

/// How the notes of forms end.
const FORM: &str = "form.json";

fn look_inside(path: &Path, split: Split) -> Result<Form> {
    let shelf = Shelf::open(path)?;
    if tiny::top(&shelf).is_some() {
        return Ok(Form::Tiny);
    }
    for kind in [cifar::Kind::Ten, cifar::Kind::Hundred] {
        if cifar::top(kind, &shelf).is_some() {
            return Ok(Form::Cifar(kind));
        }
    }
    if path.is_dir() && generated::part_files(path).is_ok() {
        return Ok(Form::Generated);
    }
    let half = match split {
        Split::Train => "train",
        Split::Test => "test` or `val",
    };
    match folder::half(&shelf, split)? {
        Some(_) => Ok(Form::Pictures),
        None => Err(Error::in_file(
            path,
            format!("holds no images in class folders (in `{half}` or at its top)"),
        )),
    }
}

/// What to say of a named set that is nowhere.
fn not_found(name: &str, roots: &[PathBuf], expected: &str) -> Error {
    let set = name.split('/').next().unwrap_or(name);
    let fetch = catalog::entry(set)
        .map_or(String::new(), |_| format!(";{HANG}`gauntlet data fetch {set}` downloads it"));
    let looked = format!("{}, and folders there that are named after it", listed(roots));
    Error::input(absent(name, &looked, expected, &fetch))
}

/// Begins a line under the words of the line above.
const HANG: &str = "\n             ";

/// Where it was looked, what would have been taken, what to do: a line for each.
fn absent(name: &str, looked: &str, expected: &str, more: &str) -> String {
    format!(
        "the image set `{name}` was not found\n  \
         looked in: {looked}\n  \
         expected:  {expected}\n  \
         to do:     say where it lies by GAUNTLET_DATA=DIR or --data DIR{HANG}\
         (--data-dir DIR where --data names the set){more}"
    )
}

fn listed(roots: &[PathBuf]) -> String {
    let shown = |root: &PathBuf| {
        let none = if root.exists() { "" } else { " (which does not exist)" };
        format!("{}{none}", root.display())
    };
    roots.iter().map(shown).collect::<Vec<_>>().join(", ")
}

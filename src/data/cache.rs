//! What took long once and would take as long again: decoded image sets, unpacked arrays,
//! fingerprints. Entries are named by a stamp of their sources (place, size and time of change of
//! every file), are written whole or not at all, and may be deleted at any time.
//!
//! The folder is `GAUNTLET_CACHE`, else `gauntlet` in `XDG_CACHE_HOME`, else `~/.cache/gauntlet`.
//! Without a folder that can be written everything works, only slower.

use std::{
    env, fs,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    data::{Dataset, Layout, Pixels},
    error::{AtPath, Error, Result},
    formats::{array::Dtype, bytes::Bytes, npy, write_atomically},
};

/// Smaller sets are decoded anew each time: that is as fast.
const WORTH_IT: usize = 8 << 20;
/// A file changed this recently may change again without its time changing.
const SETTLED: Duration = Duration::from_secs(2);

/// The identity of source files without looking into them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    hex: String,
    /// Whether all files are old enough that a change would show.
    settled: bool,
}

impl Stamp {
    /// Of `files`, read for `purpose` (which names the reader and what it was asked for).
    ///
    /// # Errors
    /// If a file cannot be looked at.
    pub fn of(purpose: &str, files: &[PathBuf]) -> Result<Self> {
        let mut hasher = blake3::Hasher::new_derive_key("gauntlet data cache 2");
        hasher.update(purpose.as_bytes());
        let mut youngest = SystemTime::UNIX_EPOCH;
        for file in files {
            let found = fs::metadata(file).at(file)?;
            let place = std::path::absolute(file).at(file)?;
            hasher.update(place.as_os_str().as_encoded_bytes());
            for number in
                [found.len(), found.ino(), found.mtime() as u64, found.mtime_nsec() as u64]
            {
                hasher.update(&number.to_le_bytes());
            }
            youngest = youngest.max(found.modified().at(file)?);
        }
        let settled = SystemTime::now().duration_since(youngest).is_ok_and(|age| age > SETTLED);
        Ok(Self { hex: hasher.finalize().to_hex()[..32].to_owned(), settled })
    }

    /// The stamp of a part of what this one stands for.
    #[must_use]
    pub fn with(&self, part: &str) -> Self {
        let hash = blake3::hash(format!("{} {part}", self.hex).as_bytes());
        Self { hex: hash.to_hex()[..32].to_owned(), settled: self.settled }
    }
}

/// A folder of entries.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

/// What stands beside the pixels of a decoded set.
#[derive(Serialize, Deserialize)]
struct Description {
    name: String,
    classes: Vec<String>,
    size: (usize, usize),
    hwc: bool,
    labels: Vec<u16>,
}

impl Cache {
    /// A cache in `folder`, which need not exist yet.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The user's cache, if there is a place for it.
    pub fn usual() -> Option<Self> {
        let given = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = given("GAUNTLET_CACHE")
            .or_else(|| given("XDG_CACHE_HOME").map(|home| home.join("gauntlet")))
            .or_else(|| given("HOME").map(|home| home.join(".cache/gauntlet")))?;
        Some(Self { folder })
    }

    /// Where the entries lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The set that `stamp` stands for: from here, or made by `make` and kept if it is large.
    ///
    /// # Errors
    /// Those of `make`. A cache that cannot be written is no error.
    pub fn dataset(
        &self,
        stamp: &Stamp,
        make: impl FnOnce() -> Result<Dataset>,
    ) -> Result<Dataset> {
        if let Some(set) = self.kept(stamp) {
            return Ok(set);
        }
        let set = make()?;
        if !stamp.settled || set.len() * set.image_bytes() < WORTH_IT {
            return Ok(set);
        }
        // The mapped copy takes the place of the one in memory.
        match self.keep(stamp, &set) {
            Ok(()) => Ok(self.kept(stamp).unwrap_or(set)),
            Err(_) => Ok(set),
        }
    }

    fn kept(&self, stamp: &Stamp) -> Option<Dataset> {
        let text = fs::read_to_string(self.file(stamp, "json")).ok()?;
        let Description { name, classes, size, hwc, labels } = serde_json::from_str(&text).ok()?;
        let array = npy::parse(&Bytes::map(&self.file(stamp, "npy")).ok()?).ok()?;
        let layout = if hwc { Layout::Hwc } else { Layout::Chw };
        let whole = array.shape() == [labels.len() * 3 * size.0 * size.1];
        let pixels = Pixels::Mapped(array.data().clone());
        whole.then_some(Dataset { name, classes, size, layout, pixels, labels, soft: None })
    }

    fn keep(&self, stamp: &Stamp, set: &Dataset) -> Result<()> {
        fs::create_dir_all(&self.folder).at(&self.folder)?;
        let total = set.len() * set.image_bytes();
        write_atomically(&self.file(stamp, "npy"), |file| {
            file.write_all(&npy::header(Dtype::U8, &[total]))?;
            set.pixels.runs().iter().try_for_each(|run| file.write_all(run))
        })?;
        let description = Description {
            name: set.name.clone(),
            classes: set.classes.clone(),
            size: set.size,
            hwc: set.layout == Layout::Hwc,
            labels: set.labels.clone(),
        };
        self.note(stamp, "json", &description)
    }

    /// The bytes that `fill` writes, mapped: from here, or written now.
    ///
    /// # Errors
    /// If the cache cannot be written: there is no other place for that much.
    pub fn unpacked(
        &self,
        stamp: &Stamp,
        size: u64,
        fill: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>,
    ) -> Result<Bytes> {
        let path = self.file(stamp, "npy");
        if !fs::metadata(&path).is_ok_and(|found| found.len() == size) {
            fs::create_dir_all(&self.folder).at(&self.folder)?;
            write_atomically(&path, |file| fill(file))?;
        }
        let bytes = Bytes::map(&path)?;
        if bytes.len() as u64 != size {
            let message = format!("{} bytes were unpacked, {size} announced", bytes.len());
            return Err(Error::in_file(&path, message));
        }
        Ok(bytes)
    }

    /// A small fact about what `stamp` stands for, if it was noted.
    pub fn noted<T: for<'de> Deserialize<'de>>(&self, stamp: &Stamp, kind: &str) -> Option<T> {
        let text = fs::read_to_string(self.file(stamp, kind)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Notes such a fact.
    ///
    /// # Errors
    /// If it cannot be written; whoever calls may go on without.
    pub fn note(&self, stamp: &Stamp, kind: &str, fact: &impl Serialize) -> Result<()> {
        if !stamp.settled {
            return Ok(());
        }
        fs::create_dir_all(&self.folder).at(&self.folder)?;
        let text = serde_json::to_vec(fact).map_err(Error::input)?;
        write_atomically(&self.file(stamp, kind), |file| file.write_all(&text))
    }

    fn file(&self, stamp: &Stamp, ending: &str) -> PathBuf {
        self.folder.join(format!("{}.{ending}", stamp.hex))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{spec::Split, synthetic};

    fn settled(hex: &str) -> Stamp {
        Stamp { hex: hex.to_owned(), settled: true }
    }

    #[test]
    fn large_sets_are_made_once_and_come_back_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(&folder.path().join("new"));
        let set = || Ok(synthetic::draw(Split::Train, 0, 700, 64));
        let stamp = settled("a");
        let first = cache.dataset(&stamp, set).unwrap();
        let again = cache.dataset(&stamp, || panic!("kept")).unwrap();
        assert!(matches!(again.pixels, Pixels::Mapped(_)));
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert_eq!(again.fingerprint(), set().unwrap().fingerprint());
        // What is damaged is made again; what may still change is not kept.
        fs::write(cache.file(&stamp, "npy"), "torn").unwrap();
        assert_eq!(cache.dataset(&stamp, set).unwrap().len(), 700);
        let young = Stamp { settled: false, ..settled("b") };
        cache.dataset(&young, set).unwrap();
        assert!(!cache.file(&young, "npy").exists());
        // A folder that cannot be made is no reason to fail.
        fs::write(folder.path().join("file"), "").unwrap();
        let nowhere = Cache::at(&folder.path().join("file/cache"));
        assert_eq!(nowhere.dataset(&stamp, set).unwrap().len(), 700);
    }

    #[test]
    fn stamps_follow_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set");
        fs::write(&path, "one").unwrap();
        let stamp = || Stamp::of("test", std::slice::from_ref(&path)).unwrap();
        let first = stamp();
        assert_eq!(first, stamp());
        assert!(!first.settled);
        assert_ne!(first.hex, Stamp::of("other", std::slice::from_ref(&path)).unwrap().hex);
        let old = SystemTime::now() - Duration::from_mins(1);
        fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        assert!(stamp().settled && stamp().hex != first.hex);
        fs::write(&path, "three").unwrap();
        assert_ne!(stamp().hex, first.hex);
    }
}

//! Generated sets that are used where they lie: named by their paths, known by a fingerprint, never
//! copied and never loaded.

use std::{
    num::NonZero,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde::{Deserialize, Serialize};

use crate::{
    data::{
        Dataset,
        cache::{Cache, Stamp},
        generated,
    },
    error::{Error, Result},
};

/// A generated set on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// Files, and folders of parts, in order; not part of any id.
    pub paths: Vec<PathBuf>,
    /// Of all pixels and labels (soft ones too), however many files hold them; what ids hold of the set.
    pub fingerprint: String,
    /// How many images.
    pub images: u64,
    /// Their edge length.
    pub resolution: u64,
    /// One more than the largest label, or how many classes soft labels name.
    pub classes: u64,
    /// Whether it says more of each image than a label: how probable each class is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub soft: bool,
}

impl Reference {
    /// The set at `paths`: read from first to last, unless that was done before and no file has
    /// changed since.
    ///
    /// # Errors
    /// If a file is missing or bad, or images are not as high as wide.
    pub fn of(paths: &[PathBuf]) -> Result<Self> {
        let files = generated::files(paths)?;
        let stamp = Stamp::of("generated set", &files)?;
        let cache = Cache::usual();
        if let Some(known) = cache.as_ref().and_then(|cache| cache.noted::<Self>(&stamp, NOTE)) {
            return Ok(Self { paths: paths.to_vec(), ..known });
        }
        let set = generated::read_files(&files, "generated", None)?;
        set.pixels.expect_in_order();
        let (height, width) = set.size;
        if height != width {
            let message = format!("its images are {width}x{height}; expected as high as wide");
            return Err(Error::in_file(&files[0], message));
        }
        let found = Self {
            paths: paths.to_vec(),
            fingerprint: fingerprint(&set),
            images: set.len() as u64,
            resolution: height as u64,
            classes: set.classes.len() as u64,
            soft: set.soft.is_some(),
        };
        if let Some(cache) = cache {
            // Without the note the next look only takes longer.
            let _ = cache.note(&stamp, NOTE, &found);
        }
        Ok(found)
    }

    /// The set, with the names of its `classes`; `count` of its images, picked from all over it
    /// (fewer are the first of more).
    ///
    /// # Errors
    /// As [`Reference::of`]; if the images have changed, or there are fewer than `count`.
    pub fn open(&self, classes: &[String], count: u64) -> Result<Dataset> {
        let now = Self::of(&self.paths)?;
        if now.fingerprint != self.fingerprint {
            let message = format!(
                "the generated set has changed since the plan was made (fingerprint {}, planned \
                 {}): run the suite again",
                now.fingerprint, self.fingerprint
            );
            return Err(Error::in_file(&self.paths[0], message));
        }
        let set =
            generated::read_files(&generated::files(&self.paths)?, "generated", Some(classes))?;
        if count > set.len() as u64 {
            let message =
                format!("{count} generated images are asked for, but it holds {}", set.len());
            return Err(Error::in_file(&self.paths[0], message));
        }
        Ok(set.spread(count as usize))
    }
}

/// How the notes end. A change of what a fingerprint is changes the number.
const NOTE: &str = "set-1.json";

/// Images that are hashed together.
const BLOCK: usize = 4096;

/// Like [`Dataset::fingerprint`], but of blocks that all cores hash at once: a set may be larger
/// than the memory, and one core hashes it more slowly than disks deliver it.
fn fingerprint(set: &Dataset) -> String {
    let blocks = set.len().div_ceil(BLOCK);
    let (next, digests) = (AtomicUsize::new(0), Mutex::new(vec![[0; 32]; blocks]));
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let block = next.fetch_add(1, Ordering::Relaxed);
                    if block >= blocks {
                        break;
                    }
                    let digest = digest(set, block);
                    digests.lock().expect("nobody panics")[block] = digest;
                }
            });
        }
    });
    let mut hasher = blake3::Hasher::new_derive_key("gauntlet generated set 1");
    for number in [set.size.0, set.size.1, set.len()] {
        hasher.update(&(number as u64).to_le_bytes());
    }
    digests.into_inner().expect("nobody panics").iter().for_each(|digest| {
        hasher.update(digest);
    });
    hasher.finalize().to_hex()[..32].to_owned()
}

fn digest(set: &Dataset, block: usize) -> [u8; 32] {
    let (bytes, first) = (set.image_bytes(), block * BLOCK);
    let count = BLOCK.min(set.len() - first);
    // Whoever expects single images must be told of a read from first to last.
    set.pixels.will_need(first * bytes, count * bytes);
    let mut hasher = blake3::Hasher::new();
    for index in first..first + count {
        hasher.update(set.image(index));
    }
    for label in &set.labels[first..first + count] {
        hasher.update(&label.to_le_bytes());
    }
    if let Some(soft) = &set.soft {
        for index in first..first + count {
            hasher.update(soft.bytes(index));
        }
    }
    set.pixels.let_go(first * bytes, count * bytes);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::formats::npz;

    /// Images 0 to `count` of 2x2 pixels, each of its own number, ten to a class.
    fn write(path: &std::path::Path, range: std::ops::Range<u8>) {
        let pixels: Vec<u8> = range.clone().flat_map(|value| [value; 12]).collect();
        let labels: Vec<i64> = range.map(|value| i64::from(value / 10)).collect();
        npz::write_images(path, (2, 2), &pixels, &labels).unwrap();
    }

    #[test]
    fn a_set_is_the_same_in_one_file_or_in_many_parts() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("parts")).unwrap();
        write(&at("all.npz"), 0..50);
        write(&at("parts/part9.npz"), 0..20);
        write(&at("parts/part10.npz"), 20..50);
        let one = Reference::of(&[at("all.npz")]).unwrap();
        assert_eq!((one.images, one.resolution, one.classes), (50, 2, 5));
        let listed = [at("parts/part9.npz"), at("parts/part10.npz")];
        for paths in [&[at("parts")][..], &listed] {
            let many = Reference::of(paths).unwrap();
            assert_eq!(many, Reference { paths: paths.to_vec(), ..one.clone() });
        }
        let turned = Reference::of(&[listed[1].clone(), listed[0].clone()]).unwrap();
        assert_ne!(turned.fingerprint, one.fingerprint);

        let names: Vec<String> = (0..5).map(|class| class.to_string()).collect();
        let many = Reference::of(&[at("parts")]).unwrap();
        let all = many.open(&names, 50).unwrap();
        assert!((0..50).all(|index| usize::from(all.image(index)[0]) == index));
        // Fewer come from all over the set, and are the first of more.
        let (few, more) = (many.open(&names, 12).unwrap(), one.open(&names, 30).unwrap());
        assert!((0..12).all(|index| few.image(index) == more.image(index)));
        assert!(few.labels.iter().max() > Some(&2), "{:?}", few.labels);
        assert!((0..30).all(|i| more.labels[i] == u16::from(more.image(i)[0] / 10)));

        let message = many.open(&names, 51).unwrap_err().to_string();
        assert!(message.contains("holds 50"), "{message}");
        let message = many.open(&names[..4], 50).unwrap_err().to_string();
        assert!(message.contains("part10.npz: label 4 of image 20"), "{message}");
        write(&at("parts/part10.npz"), 21..51);
        let message = many.open(&names, 50).unwrap_err().to_string();
        assert!(message.contains("has changed since the plan"), "{message}");
    }
}

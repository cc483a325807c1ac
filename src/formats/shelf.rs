//! Files by name, wherever they lie: in a folder, in a zip archive, in a tar archive (plain,
//! gzip or xz). Archives are read where they are; nothing is unpacked to disk, so that no member
//! can climb out of its folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    path::{Component, Path, PathBuf},
};

use crate::{
    error::{AtPath, Error, Result},
    formats::{archive::Archive, bytes::Bytes, in_file},
};

/// What a tar archive may unpack to, besides 64 times its own size: bombs stop here.
const FREE_INFLATION: u64 = 1 << 30;
/// Folders in folders; deeper ones are taken for a circle of links.
const DEEPEST: usize = 32;

/// A place that holds files by name. Names have slashes and are relative.
#[derive(Debug)]
pub enum Shelf {
    /// A folder.
    Folder(PathBuf),
    /// A zip archive: where it lies, and its directory.
    Zip(PathBuf, Archive),
    /// A tar archive in memory: where it lies, and its files.
    Tar(PathBuf, BTreeMap<String, Bytes>),
}

/// How an archive's name ends.
const TAR_ENDINGS: [&str; 5] = [".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz"];

/// Whether `path` is called as an archive that [`Shelf::open`] reads.
pub fn is_archive(path: &Path) -> bool {
    let name = path.to_string_lossy().to_ascii_lowercase();
    name.ends_with(".zip") || TAR_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

impl Shelf {
    /// Opens the folder or archive at `path`. A tar archive is read into memory.
    ///
    /// # Errors
    /// If it is neither, is bad, or holds what could lead outside of it.
    pub fn open(path: &Path) -> Result<Self> {
        if fs::metadata(path).at(path)?.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        let bytes = Bytes::map(path)?;
        in_file(path, Self::archive(path, bytes))
    }

    /// Goes by the bytes, not by the name: browsers and people rename archives.
    fn archive(path: &Path, bytes: Bytes) -> Result<Self> {
        if bytes.starts_with(b"PK") {
            return Ok(Self::Zip(path.to_owned(), Archive::open(bytes)?));
        }
        let most = FREE_INFLATION + 64 * bytes.len() as u64;
        let files = if bytes.starts_with(b"\x1f\x8b") {
            untar(flate2::read::MultiGzDecoder::new(&bytes[..]), most)?
        } else if bytes.starts_with(b"\xfd7zXZ\0") {
            untar(liblzma::read::XzDecoder::new_multi_decoder(&bytes[..]), most)?
        } else if bytes.get(257..262) == Some(b"ustar") {
            untar_mapped(&bytes)?
        } else {
            return Err(Error::input(format!(
                "is no archive of a known kind (zip, tar, tar.gz, tar.xz){}",
                if looks_like_html(&bytes) { ": it is an HTML page" } else { "" }
            )));
        };
        Ok(Self::Tar(path.to_owned(), files))
    }

    /// The folder or archive itself.
    pub fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Zip(path, _) | Self::Tar(path, _) => path,
        }
    }

    /// Where `name` lies, for messages and errors.
    pub fn place(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Whether there is a file called `name`.
    pub fn holds(&self, name: &str) -> bool {
        match self {
            Self::Folder(path) => path.join(name).is_file(),
            Self::Zip(_, archive) => archive.entry(name).is_some(),
            Self::Tar(_, files) => files.contains_key(name),
        }
    }

    /// The bytes of the file called `name`: mapped if they lie on disk as they are.
    ///
    /// # Errors
    /// If there is none or it cannot be read; the message names archive and member.
    pub fn read(&self, name: &str) -> Result<Bytes> {
        let found = match self {
            Self::Folder(path) => return Bytes::map(&path.join(name)),
            Self::Zip(path, archive) => match archive.entry(name) {
                Some(entry) => Some(in_file(path, archive.read(entry))?),
                None => None,
            },
            Self::Tar(_, files) => files.get(name).cloned(),
        };
        found.ok_or_else(|| Error::in_file(self.path(), format!("holds no file `{name}`")))
    }

    /// All visible files in the folder `under` (empty: everywhere) and the folders in it, sorted by
    /// folder, then by name, as Python's `sorted(os.walk(...))` gives them.
    ///
    /// # Errors
    /// If a folder cannot be read, or links lead in a circle.
    pub fn names(&self, under: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        if let Self::Folder(path) = self {
            walk(path, under, &mut Vec::new(), &mut names)?;
        } else {
            let inside = |name: &&String| within(name, under).is_some_and(visible);
            names.extend(self.members().filter(inside).cloned());
        }
        names.sort_by(|a, b| split(a).cmp(&split(b)));
        Ok(names)
    }

    /// The names of the visible folders in the folder `under`, sorted.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn folders(&self, under: &str) -> Result<Vec<String>> {
        let mut found = BTreeSet::new();
        if let Self::Folder(path) = self {
            for (name, is_folder) in entries(&path.join(under))? {
                found.extend(is_folder.then_some(name));
            }
        } else {
            for name in self.members() {
                let folder = within(name, under).and_then(|rest| rest.split_once('/'));
                found.extend(folder.map(|(first, _)| first.to_owned()));
            }
        }
        Ok(found.into_iter().filter(|name| visible(name)).collect())
    }

    fn members(&self) -> Box<dyn Iterator<Item = &String> + '_> {
        match self {
            Self::Folder(_) => Box::new(std::iter::empty()),
            Self::Zip(_, archive) => Box::new(
                archive.entries().iter().map(|entry| &entry.name).filter(|n| !n.ends_with('/')),
            ),
            Self::Tar(_, files) => Box::new(files.keys()),
        }
    }
}

/// Whether `bytes` begin as an HTML page does, which servers send instead of what was asked for.
pub fn looks_like_html(bytes: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(512)]).to_ascii_lowercase();
    let start = start.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    ["<!doctype html", "<html", "<head", "<?xml"].iter().any(|mark| start.starts_with(mark))
}

/// `a/b` of `folder/a/b`.
fn within<'a>(name: &'a str, folder: &str) -> Option<&'a str> {
    if folder.is_empty() { Some(name) } else { name.strip_prefix(folder)?.strip_prefix('/') }
}

fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}

/// Neither hidden nor what macOS adds to archives.
fn visible(name: &str) -> bool {
    name.split('/').all(|part| !part.starts_with('.') && part != "__MACOSX")
}

/// The names in `folder`, and whether each is a folder (links are followed).
fn entries(folder: &Path) -> Result<Vec<(String, bool)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).at(folder)? {
        let entry = entry.at(folder)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().at(&entry.path())?;
        let is_folder = match kind.is_symlink() {
            true => fs::metadata(entry.path()).at(&entry.path())?.is_dir(),
            false => kind.is_dir(),
        };
        found.push((name, is_folder));
    }
    Ok(found)
}

/// `above` are the real folders on the way down, to notice a link that leads up to one of them.
fn walk(root: &Path, under: &str, above: &mut Vec<PathBuf>, out: &mut Vec<String>) -> Result<()> {
    let folder = root.join(under);
    let real = fs::canonicalize(&folder).at(&folder)?;
    if above.contains(&real) || above.len() > DEEPEST {
        return Err(Error::in_file(&folder, "symbolic links lead in a circle; remove the link"));
    }
    above.push(real);
    for (name, is_folder) in entries(&folder)?.into_iter().filter(|(name, _)| visible(name)) {
        let name = if under.is_empty() { name } else { format!("{under}/{name}") };
        if is_folder {
            walk(root, &name, above, out)?;
        } else {
            out.push(name);
        }
    }
    above.pop();
    Ok(())
}

fn broken(at: &str, error: &std::io::Error) -> Error {
    Error::input(format!("tar archive: {at}: {error}; is the file cut short?"))
}

/// The files of a tar archive that is not compressed: windows of it.
fn untar_mapped(bytes: &Bytes) -> Result<BTreeMap<String, Bytes>> {
    let mut archive = tar::Archive::new(std::io::Cursor::new(&bytes[..]));
    let (mut files, mut last) = (BTreeMap::new(), "the beginning".to_owned());
    for entry in archive.entries_with_seek().map_err(|error| broken(&last, &error))? {
        let entry = entry.map_err(|error| broken(&format!("after {last}"), &error))?;
        let Some(name) = member(&entry, &mut last)? else { continue };
        let (start, size) = (entry.raw_file_position(), entry.size());
        let Some(window) = bytes.window(start as usize, size as usize) else {
            return Err(Error::input(format!(
                "tar archive: {last} is cut short: it has {size} bytes from byte {start} on, the \
                 file ends at {}",
                bytes.len()
            )));
        };
        files.insert(name, window);
    }
    Ok(files)
}

/// The name of an entry if it is a file; `last` then says which it is. Folders have none.
fn member<R: Read>(entry: &tar::Entry<'_, R>, last: &mut String) -> Result<Option<String>> {
    let path = entry.path().map_err(|error| broken(last, &error))?.into_owned();
    let name = member_name(&path)?;
    *last = format!("member `{}`", path.display());
    let kind = entry.header().entry_type();
    if kind.is_dir() || kind.is_pax_global_extensions() {
        return Ok(None);
    }
    if !kind.is_file() && !kind.is_contiguous() {
        return Err(Error::input(format!(
            "tar archive: {last} is a link or a device, not a file; refused"
        )));
    }
    Ok(Some(name))
}

/// All files of a compressed tar archive, in memory.
fn untar(stream: impl Read, most: u64) -> Result<BTreeMap<String, Bytes>> {
    // One byte beyond shows that there is more.
    let mut archive = tar::Archive::new(stream.take(most + 1));
    let (mut files, mut total, mut last) = (BTreeMap::new(), 0u64, "the beginning".to_owned());
    for entry in archive.entries().map_err(|error| broken(&last, &error))? {
        let mut entry = entry.map_err(|error| broken(&format!("after {last}"), &error))?;
        let Some(name) = member(&entry, &mut last)? else { continue };
        total = total.saturating_add(entry.size());
        if total > most {
            return Err(Error::input(format!(
                "tar archive: {last}: it unpacks to more than {most} bytes; refused"
            )));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|error| broken(&last, &error))?;
        if bytes.len() as u64 != entry.size() {
            return Err(Error::input(format!(
                "tar archive: {last} is cut short: {} of {} bytes",
                bytes.len(),
                entry.size()
            )));
        }
        files.insert(name, bytes.into());
    }
    // The checksum of a compressed stream stands at its very end.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink())
        .map_err(|error| broken(&format!("after {last}"), &error))?;
    Ok(files)
}

fn member_name(path: &Path) -> Result<String> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            _ => {
                return Err(Error::input(format!(
                    "tar archive: member `{}` leads outside; refused",
                    path.display()
                )));
            }
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tar archive of one entry with that name, kind and content.
    fn tar(name: &str, kind: tar::EntryType, content: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        // Written by hand: the library would refuse the bad names that we want.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(kind);
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, content).unwrap();
        builder.into_inner().unwrap()
    }

    fn refused(name: &str, bytes: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = Shelf::open(&path).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left");
        error.to_string()
    }

    #[test]
    fn archives_cannot_climb_out() {
        let file = tar::EntryType::Regular;
        for name in ["../evil.png", "a/../../evil.png", "/etc/evil.png"] {
            let message = refused("x.tar", &tar(name, file, b"x"));
            assert!(message.contains(name) && message.contains("leads outside"), "{message}");
        }
        for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Char] {
            let message = refused("x.tar", &tar("a/link.png", kind, b""));
            assert!(message.contains("a/link.png") && message.contains("refused"), "{message}");
        }
    }

    #[test]
    fn cut_archives_name_the_member() {
        let whole = tar("a/1.png", tar::EntryType::Regular, &[7; 3000]);
        let message = refused("x.tar", &whole[..2000]);
        assert!(message.contains("a/1.png") && message.contains("cut short"), "{message}");
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gz, &whole).unwrap();
        let gz = gz.finish().unwrap();
        for length in [3, 20, gz.len() / 2, gz.len() - 4] {
            let message = refused("x.tar.gz", &gz[..length]);
            assert!(message.contains("cut short"), "{length}: {message}");
        }
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        std::io::Write::write_all(&mut xz, &whole).unwrap();
        let xz = xz.finish().unwrap();
        let message = refused("x.tar.xz", &xz[..xz.len() / 2]);
        assert!(message.contains("cut short"), "{message}");
        let message = refused("x.tar.gz", b"<!DOCTYPE html><title>Sign in</title>");
        assert!(message.contains("HTML"), "{message}");
    }

    #[test]
    fn bombs_stop_early() {
        let mut header = tar::Header::new_ustar();
        header.set_path("zeros").unwrap();
        header.set_size(3 << 30);
        header.set_cksum();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gz, header.as_bytes()).unwrap();
        let message = refused("x.tar.gz", &gz.finish().unwrap());
        assert!(message.contains("zeros") && message.contains("refused"), "{message}");
    }
}

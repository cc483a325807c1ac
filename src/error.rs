//! The one error type: what went wrong, where, and what to do about it.

use std::{
    fmt::Display,
    io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
};

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that a user, a file or the machine can cause. What only we can cause panics.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Input that cannot be used: a file, a key, a value, an argument. The message names it.
    #[error("{0}")]
    Input(String),
    /// The operating system refused something about `path`.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder concerned.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The numbers went wrong: a loss or logits that are not finite. The message names the step.
    #[error("{0}")]
    Numerics(String),
    /// A signal asked to stop; what was done so far is saved.
    #[error("interrupted; what is done is saved, run the same command again to go on")]
    Interrupted,
    /// Some jobs of a run failed; the message says which.
    #[error("{0}")]
    Jobs(String),
}

impl Error {
    /// An [`Error::Input`] from anything printable.
    pub fn input(message: impl Display) -> Self {
        Self::Input(message.to_string())
    }

    /// An [`Error::Input`] that begins with the file concerned.
    pub fn in_file(path: &Path, message: impl Display) -> Self {
        Self::Input(format!("{}: {message}", path.display()))
    }

    /// The process exit code that scripts see (documented in the README).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Jobs(_) | Self::Numerics(_) => 1,
            Self::Input(_) => 2,
            Self::Io { .. } => 3,
            Self::Interrupted => 130,
        }
    }
}

/// What `work` gives. An [`Error`] that it unwound with, where it could not be returned (a model
/// that fails in the middle of an attack), is returned; any other panic goes on.
///
/// # Errors
/// As `work`.
pub fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        Err(payload.downcast::<Error>().map_or_else(|other| resume_unwind(other), |error| *error))
    })
}

/// Adds the path to an operating-system error.
pub trait AtPath<T> {
    /// Names the file or folder that the failed operation was about.
    ///
    /// # Errors
    /// The same failure as [`Error::Io`] with `path`.
    fn at(self, path: &Path) -> Result<T>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { path: path.to_owned(), source })
    }
}

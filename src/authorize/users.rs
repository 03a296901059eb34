//! `users_file`: a watched list of usernames and e-mail addresses.

use std::{io, path::Path, sync::Arc};

use crate::identity::Identity;

/// A watched list of usernames and e-mail addresses.
#[derive(Debug)]
pub struct UsersFile {}

/// Why a users file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum UsersFileError {
    /// It can't be read.
    #[error("it can't be read")]
    Read(#[from] io::Error),
    /// It is longer than 1 MiB or 100,000 lines.
    #[error("it is longer than 1 MiB or 100,000 lines")]
    TooLong,
    /// Line number `.0`, from 1, is not one name or e-mail address.
    #[error("line {0} is not one username or e-mail address")]
    Line(usize),
    /// It is not a regular file.
    #[error("it is not a regular file")]
    NotAFile,
}

/// All users files of one configuration, each opened once.
#[derive(Clone, Debug, Default)]
pub struct UsersFiles {
    files: Vec<Arc<UsersFile>>,
}

impl UsersFiles {
    /// The file at `path`, read now unless it is open already.
    pub fn open(&mut self, path: &Path) -> Result<Arc<UsersFile>, UsersFileError> {
        let _ = path;
        Ok(Arc::new(UsersFile {}))
    }

    /// Reads again what has changed on disk; does blocking IO, so call it beside the requests, every few seconds.
    pub fn refresh(&self) {
        let _ = &self.files;
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

impl UsersFile {
    /// Whether the username or the verified e-mail address of `identity` is listed.
    pub fn lists(&self, identity: &Identity) -> bool {
        let _ = identity;
        false
    }
}

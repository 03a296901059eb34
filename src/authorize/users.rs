//! `users_file`: a watched list of usernames and e-mail addresses, one a line, without regard to case.
//!
//! ```text
//! # who may deploy
//! alice
//! bob@example.com      a word with @ is a verified e-mail address
//! ```
//!
//! The one IO of this room happens in [`UsersFiles::open`] and [`UsersFiles::refresh`]; a check reads what is in memory. A file that vanishes, or can't be
//! used as it is, leaves the last good list in force: one warning says so, one line when it is over. Replace the file by a rename, as a
//! half-written one is taken for the whole.

use std::{
    collections::HashSet,
    fs::{File, Metadata},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;

use crate::{identity::Identity, telemetry::causes};

const MOST_BYTES: u64 = 1024 * 1024;
const MOST_LINES: usize = 100_000;

/// A watched list of usernames and e-mail addresses.
#[derive(Debug)]
pub struct UsersFile {
    path: PathBuf,
    users: ArcSwap<Users>,
    watch: Mutex<Watch>,
}

/// The entries, in lower case.
#[derive(Debug, Default)]
struct Users {
    names: HashSet<String>,
    emails: HashSet<String>,
}

/// Which state of the file was read last.
#[derive(Debug)]
struct Watch {
    seen: Option<Stamp>,
    in_trouble: bool,
}

/// Changes whenever the content does: length, time of change, and the file itself where it is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

/// Why a users file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum UsersFileError {
    /// It can't be read.
    #[error("it can't be read")]
    Read(#[from] io::Error),
    /// It is longer than 1 MiB or 100,000 lines.
    #[error("it is longer than 1 MiB or 100,000 lines")]
    TooLong,
    /// Line number `.0`, from 1, is not one word.
    #[error("line {0} is not one username or e-mail address")]
    Line(usize),
    /// It is a directory, pipe or device.
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
    ///
    /// # Errors
    /// It can't be used as it is.
    pub fn open(&mut self, path: &Path) -> Result<Arc<UsersFile>, UsersFileError> {
        if let Some(file) = self.files.iter().find(|file| file.path == path) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(UsersFile::open(path)?);
        self.files.push(Arc::clone(&file));
        Ok(file)
    }

    /// Reads again what has changed on disk. Blocks on the disk: call it every few seconds, beside the requests.
    pub fn refresh(&self) {
        for file in &self.files {
            file.refresh();
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

impl UsersFile {
    /// Whether the username or the verified e-mail address of `identity` is listed.
    pub fn lists(&self, identity: &Identity) -> bool {
        let users = self.users.load();
        let listed = |email: &String| users.emails.contains(&email.to_ascii_lowercase());
        users.names.contains(&identity.username.to_ascii_lowercase())
            || identity.email.as_ref().is_some_and(listed)
    }

    fn open(path: &Path) -> Result<Self, UsersFileError> {
        let (users, stamp) = read(path, None)?.unwrap_or_default();
        Ok(Self {
            path: path.to_owned(),
            users: ArcSwap::from_pointee(users),
            watch: Mutex::new(Watch { seen: stamp, in_trouble: false }),
        })
    }

    fn refresh(&self) {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        match read(&self.path, watch.seen) {
            Ok(None) if !watch.in_trouble => {},
            Ok(changed) => {
                if let Some((users, stamp)) = changed {
                    self.users.store(Arc::new(users));
                    watch.seen = stamp;
                }
                watch.in_trouble = false;
                tracing::info!(users_file.path = %self.path.display(), "users file in use as it is on disk");
            },
            Err(error) if !watch.in_trouble => {
                watch.in_trouble = true;
                tracing::warn!(
                    users_file.path = %self.path.display(),
                    error = causes(&error),
                    "users file can't be used, the last good one stays in force"
                );
            },
            Err(_) => {},
        }
    }
}

/// The list and its stamp; none if it is what was `seen`.
fn read(
    path: &Path,
    seen: Option<Stamp>,
) -> Result<Option<(Users, Option<Stamp>)>, UsersFileError> {
    // Looked at before it is opened: opening a pipe would wait for a writer.
    let metadata = path.metadata()?;
    if !metadata.is_file() {
        return Err(UsersFileError::NotAFile);
    }
    if seen == Some(Stamp::of(&metadata)) {
        return Ok(None);
    }
    if metadata.len() > MOST_BYTES {
        return Err(UsersFileError::TooLong);
    }
    let file = File::open(path)?;
    // Taken before reading, so that a change meanwhile shows at the next look.
    let stamp = Stamp::of(&file.metadata()?);
    let mut text = String::new();
    file.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    Ok(Some((Users::parse(&text)?, Some(stamp))))
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self { length: metadata.len(), modified: metadata.modified().ok(), inode: inode(metadata) }
    }
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> u64 {
    0
}

impl Users {
    fn parse(text: &str) -> Result<Self, UsersFileError> {
        if text.len() as u64 > MOST_BYTES {
            return Err(UsersFileError::TooLong);
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut users = Self::default();
        for (number, line) in text.lines().enumerate() {
            if number >= MOST_LINES {
                return Err(UsersFileError::TooLong);
            }
            // Neither name nor address has a `#` in it that anybody uses.
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            match (words.next(), words.next()) {
                (None, _) => {},
                (Some(word), None) => users.add(word),
                (Some(_), Some(_)) => return Err(UsersFileError::Line(number + 1)),
            }
        }
        Ok(users)
    }

    fn add(&mut self, word: &str) {
        let list = if word.contains('@') { &mut self.emails } else { &mut self.names };
        list.insert(word.to_ascii_lowercase());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn somebody(username: &str, email: Option<&str>) -> Identity {
        Identity {
            gitlab: "main".into(),
            issuer: "https://gitlab.test".into(),
            sub: "1".into(),
            username: username.into(),
            name: String::new(),
            email: email.map(Into::into),
            groups: Vec::new(),
            ..Identity::default()
        }
    }

    #[test]
    fn entries_are_words_without_regard_to_case() {
        let text = "\u{feff}# team\r\n\r\nAlice\n  bob # on leave\nCarol@Example.com\n";
        let users = Users::parse(text).unwrap();
        let sorted = |set: &HashSet<String>| {
            let mut all: Vec<_> = set.iter().cloned().collect();
            all.sort();
            all
        };
        assert_eq!(sorted(&users.names), ["alice", "bob"]);
        assert_eq!(sorted(&users.emails), ["carol@example.com"]);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let parsed = |text: &str| Users::parse(text).unwrap_err().to_string();
        assert_eq!(parsed("alice\nbob carol\n"), "line 2 is not one username or e-mail address");
        assert!(parsed(&"\n".repeat(MOST_LINES + 1)).contains("longer"));
        assert!(parsed(&"x".repeat(1024 * 1024 + 1)).contains("longer"));
        assert!(Users::parse(&"\n".repeat(MOST_LINES)).is_ok());
        let folder = tempfile::tempdir().unwrap();
        let opened = UsersFiles::default().open(folder.path());
        assert!(matches!(opened, Err(UsersFileError::NotAFile)));
        let missing = UsersFiles::default().open(&folder.path().join("none"));
        assert!(matches!(missing, Err(UsersFileError::Read(_))));
    }

    #[test]
    fn names_and_addresses_are_kept_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        fs::write(&path, "alice\nbob@example.com\n").unwrap();
        let file = UsersFiles::default().open(&path).unwrap();
        let table = [
            ("ALICE", None, true),
            ("alice", Some("x@example.com"), true),
            ("alice2", None, false),
            ("bob", Some("Bob@Example.com"), true),
            ("bob", None, false),
            ("bob@example.com", None, false),
            ("mallory", Some("alice"), false),
            ("", None, false),
        ];
        for (username, email, listed) in table {
            let identity = somebody(username, email);
            assert_eq!(file.lists(&identity), listed, "{username} {email:?}");
        }
    }

    #[test]
    fn a_changed_file_counts_and_a_lost_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let mut files = UsersFiles::default();
        let replace = |text: &str| {
            let new = folder.path().join("new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, &path).unwrap();
        };
        replace("alice\n");
        let file = files.open(&path).unwrap();
        assert!(Arc::ptr_eq(&file, &files.open(&path).unwrap()));
        let who = |name| file.lists(&somebody(name, None));

        // Of the same length, so that the file itself must be told apart.
        replace("carol\n");
        assert!(who("alice") && !who("carol"), "nothing is read unasked");
        files.refresh();
        assert!(who("carol") && !who("alice"));

        fs::remove_file(&path).unwrap();
        files.refresh();
        assert!(who("carol"), "the last good list stays");
        replace("two words\n");
        files.refresh();
        files.refresh();
        assert!(who("carol"), "the last good list stays");

        replace("alice\ndave\n");
        files.refresh();
        assert!(who("dave") && who("alice") && !who("carol"));
        replace("");
        files.refresh();
        assert!(!who("dave"), "an empty list lists nobody");
    }
}

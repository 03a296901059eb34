//! Marks: what GitLab's hooks have said, by which words of GitLab are too old although they are young.
//!
//! ```text
//! mark  = GitLab + whom (a user, all members at or below a path, everybody) + when
//! word of `checked` on a session ── checked <= when + LAG of a mark that fits? ──▶ too old: ask again
//! ```
//!
//! A mark only ever makes labgate ask; what has become of the session GitLab says. It lasts as long as a word that is older could be good. Whoever
//! asked after a mark was *learnt* need not ask again because of it, though both fall into one second: that is why [`Marks::learnt`] tells a moment of
//! this process's own. [`Marks::mark`] is for the replica that gets the hook; what it returns is for the others, which take it by [`Marks::merge`].

use std::{
    collections::HashMap,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Session, deadlines::SKEW};
use crate::clock::Timestamp;

/// Whose words of GitLab are too old, and since when.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// The name of the `[gitlab.NAME]` table.
    pub gitlab: String,
    /// Whose.
    pub whom: Whom,
    /// Words that are not younger are too old.
    pub at: Timestamp,
}

/// Whom a mark is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Whom {
    /// The user of this id, as decimal text: the `sub`.
    User(String),
    /// All who are known to hold a membership in the group or project at this full path, or below it.
    Group(String),
    /// All users of that GitLab.
    Everybody,
}

/// The marks of a process; shared by all its gates, so that a reload loses none.
#[derive(Debug)]
pub struct Marks {
    kept: RwLock<Kept>,
    /// Words younger than this fit no mark: the one thing that most requests look at.
    latest: AtomicU64,
    /// Seconds that a mark is kept.
    lasts: AtomicU64,
    most: usize,
}

#[derive(Debug, Default)]
struct Kept {
    gitlabs: HashMap<String, OfGitLab>,
    count: usize,
}

/// The marks of one GitLab; paths in lower case.
#[derive(Debug, Default)]
struct OfGitLab {
    users: HashMap<String, Known>,
    groups: HashMap<String, Known>,
    everybody: Option<Known>,
}

/// A mark as this process knows it.
#[derive(Clone, Copy, Debug)]
struct Known {
    at: Timestamp,
    learnt: Instant,
}

impl Default for Marks {
    fn default() -> Self {
        Self::of_size(MOST)
    }
}

impl Marks {
    fn of_size(most: usize) -> Self {
        let (latest, lasts) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { kept: RwLock::default(), latest, lasts, most }
    }

    /// Keeps marks for as long as a word may be good by `recheck`; never shorter than was said before, since words from then may be good again.
    pub fn last_for(&self, recheck: Duration) {
        self.lasts.fetch_max((recheck + SKEW).as_secs(), Relaxed);
    }

    /// How long a mark is kept.
    pub fn lasts(&self) -> Duration {
        Duration::from_secs(self.lasts.load(Relaxed))
    }

    /// Marks whom a hook names at the moment `now`; when there is no room, everybody of that GitLab. Returns what other replicas must hear.
    pub fn mark(&self, gitlab: &str, whom: Whom, now: Timestamp) -> Mark {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let whom = self.room(&mut kept, whom, now);
        // A second event of one second is news too: somebody may have asked in between.
        let again = kept.known(gitlab, &whom).map(|known| known.at + Duration::from_secs(1));
        let at = again.map_or(now, |again| again.clamp(now, now + LAG));
        let mark = Mark { gitlab: gitlab.to_owned(), whom, at };
        self.keep(&mut kept, mark.clone(), |_| true);
        mark
    }

    /// Takes a mark of another replica. One that is known, or older than one that is, changes nothing.
    pub fn merge(&self, mark: Mark, now: Timestamp) {
        // A replica whose clock is wrong must not make all words of hours to come too old.
        let at = mark.at.min(now + SKEW);
        if at < self.over(now) {
            return;
        }
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let whom = self.room(&mut kept, mark.whom, now);
        self.keep(&mut kept, Mark { whom, at, ..mark }, |known| known.at < at);
    }

    /// Whom to mark: everybody, if one more mark would be too many.
    fn room(&self, kept: &mut Kept, whom: Whom, now: Timestamp) -> Whom {
        if kept.count >= self.most {
            kept.sweep(self.over(now));
        }
        if kept.count >= self.most { Whom::Everybody } else { whom }
    }

    fn keep(&self, kept: &mut Kept, mark: Mark, is_news: impl Fn(&Known) -> bool) {
        let known = Known { at: mark.at, learnt: Instant::now() };
        let latest = (mark.at + LAG).unix();
        kept.insert(mark.gitlab, mark.whom, known, is_news);
        self.latest.fetch_max(latest, Relaxed);
    }

    /// No word from before this moment is good, so no mark is needed.
    fn over(&self, now: Timestamp) -> Timestamp {
        now - Duration::from_secs(self.lasts.load(Relaxed))
    }

    /// When this process learnt of the latest mark by which GitLab's word on `session` is too old; none if its word is younger than all marks.
    pub fn learnt(&self, session: &Session) -> Option<Instant> {
        if session.checked.unix() > self.latest.load(Relaxed) {
            return None;
        }
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let marks = kept.gitlabs.get(&session.identity.gitlab)?;
        let user = marks.users.get(&session.identity.sub);
        let groups = session.identity.groups.iter().map(|membership| membership.path.as_str());
        let projects = session.identity.projects.iter().map(|project| project.path.as_str());
        let paths = groups.chain(projects);
        let groups = paths.filter(|_| !marks.groups.is_empty()).flat_map(|path| marks.above(path));
        let fitting = user.into_iter().chain(&marks.everybody).copied().chain(groups);
        let younger = fitting.filter(|known| session.checked <= known.at + LAG);
        younger.map(|known| known.learnt).max()
    }

    /// All that count at `now`, in no order: for replicas that have just come.
    pub fn all(&self, now: Timestamp) -> Vec<Mark> {
        let over = self.over(now);
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let all = kept.gitlabs.iter().flat_map(|(gitlab, marks)| {
            let mark =
                move |whom, known: &Known| Mark { gitlab: gitlab.clone(), whom, at: known.at };
            let users = marks.users.iter().map(move |(user, k)| mark(Whom::User(user.clone()), k));
            let groups =
                marks.groups.iter().map(move |(path, k)| mark(Whom::Group(path.clone()), k));
            let everybody = marks.everybody.iter().map(move |known| mark(Whom::Everybody, known));
            users.chain(groups).chain(everybody)
        });
        all.filter(|mark| mark.at >= over).collect()
    }
}

impl Kept {
    fn known(&self, gitlab: &str, whom: &Whom) -> Option<&Known> {
        let marks = self.gitlabs.get(gitlab)?;
        match whom {
            Whom::User(user) => marks.users.get(user),
            Whom::Group(path) => marks.groups.get(&path.to_ascii_lowercase()),
            Whom::Everybody => marks.everybody.as_ref(),
        }
    }

    fn insert(
        &mut self,
        gitlab: String,
        whom: Whom,
        known: Known,
        is_news: impl Fn(&Known) -> bool,
    ) {
        let marks = self.gitlabs.entry(gitlab).or_default();
        let before = marks.count();
        let later = |old: &mut Known| {
            if is_news(old) {
                *old = known;
            }
        };
        match whom {
            Whom::User(user) => {
                marks.users.entry(user).and_modify(later).or_insert(known);
            },
            Whom::Group(path) => {
                let path = path.to_ascii_lowercase();
                marks.groups.entry(path).and_modify(later).or_insert(known);
            },
            Whom::Everybody => {
                marks.everybody.get_or_insert(known);
                marks.everybody.as_mut().map(later);
                let older = |old: &Known| old.at > known.at;
                marks.users.retain(|_, old| older(old));
                marks.groups.retain(|_, old| older(old));
            },
        }
        self.count = self.count + marks.count() - before;
    }

    /// Forgets what is older than any word that is good.
    fn sweep(&mut self, over: Timestamp) {
        for marks in self.gitlabs.values_mut() {
            marks.users.retain(|_, known| known.at >= over);
            marks.groups.retain(|_, known| known.at >= over);
            marks.everybody = marks.everybody.filter(|known| known.at >= over);
        }
        self.gitlabs.retain(|_, marks| marks.count() > 0);
        self.count = self.gitlabs.values().map(OfGitLab::count).sum();
    }
}

impl OfGitLab {
    fn count(&self) -> usize {
        self.users.len() + self.groups.len() + usize::from(self.everybody.is_some())
    }

    /// The marks of the group at `path` and of all above it, whole segments without regard to case.
    fn above(&self, path: &str) -> Vec<Known> {
        let path = path.to_ascii_lowercase();
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        let marks = ends.filter_map(|end| self.groups.get(path.get(..end)?)).copied();
        marks.collect()
    }
}

/// Marks kept at most, about 1 MB.
const MOST: usize = 10_000;

/// So much younger than a mark a word must be: clocks of replicas differ a little, and moments are whole seconds. It costs one more question.
const LAG: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::AccessLevel, identity::Membership, session::tests::session};

    const NOW: Timestamp = Timestamp::from_unix(1_790_000_000);

    fn marks() -> Marks {
        let marks = Marks::of_size(100);
        marks.last_for(Duration::from_hours(1));
        marks
    }

    fn at(seconds: u64) -> Timestamp {
        NOW + Duration::from_secs(seconds)
    }

    fn mark(whom: Whom, at: Timestamp) -> Mark {
        Mark { gitlab: "main".into(), whom, at }
    }

    fn hook(marks: &Marks, whom: Whom, seconds: u64) {
        let marked = marks.mark("main", whom, at(seconds));
        assert_eq!(marked.gitlab, "main");
    }

    fn user(sub: &str) -> Whom {
        Whom::User(sub.into())
    }

    fn group(path: &str) -> Whom {
        Whom::Group(path.into())
    }

    /// A session of user 7, member of these groups, of which GitLab's word came `checked` seconds after `NOW`.
    fn checked(checked: u64, groups: &[&str]) -> Session {
        let mut session = session(0, 0);
        (session.checked, session.identity.sub) = (at(checked), "7".into());
        session.identity.gitlab = "main".into();
        let member = |path: &&str| Membership {
            path: (*path).into(),
            level: AccessLevel::from_number(30).unwrap(),
        };
        session.identity.groups = groups.iter().map(member).collect();
        session
    }

    #[test]
    fn a_mark_makes_older_words_too_old_and_younger_ones_not() {
        let marks = marks();
        hook(&marks, user("7"), 100);
        for (word, too_old) in [(0, true), (99, true), (100, true), (103, false), (500, false)] {
            let learnt = marks.learnt(&checked(word, &[]));
            assert_eq!(learnt.is_some(), too_old, "{word}");
        }
    }

    #[test]
    fn it_is_about_one_user_of_one_gitlab() {
        let marks = marks();
        hook(&marks, user("77"), 100);
        marks.mark("other", user("7"), at(100));
        assert!(marks.learnt(&checked(0, &[])).is_none());
        marks.mark("other", Whom::Everybody, at(100));
        assert!(marks.learnt(&checked(0, &[])).is_none());
        hook(&marks, Whom::Everybody, 100);
        assert!(marks.learnt(&checked(0, &[])).is_some());
    }

    #[test]
    fn a_group_is_meant_with_all_below_it_by_whole_segments_in_any_case() {
        for (marked, held, fits) in [
            ("acme", "acme", true),
            ("acme", "acme/web", true),
            ("Acme/Web", "aCME/wEB/shop", true),
            ("acme/web", "acme", false),
            ("acme/web", "acme/website", false),
            ("acme/we", "acme/web", false),
            ("web", "acme/web", false),
            ("acme/web/shop", "acme/web", false),
        ] {
            let marks = marks();
            hook(&marks, group(marked), 100);
            let held = checked(0, &["open", held]);
            assert_eq!(marks.learnt(&held).is_some(), fits, "{marked} {held:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_is_not_learnt_again() {
        let (marks, old) = (marks(), checked(0, &["acme"]));
        marks.merge(mark(user("7"), at(100)), at(100));
        let first = marks.learnt(&old);
        tokio::time::advance(Duration::from_secs(5)).await;
        marks.merge(mark(user("7"), at(100)), at(105));
        marks.merge(mark(user("7"), at(90)), at(105));
        assert_eq!(marks.learnt(&old), first);
        marks.merge(mark(group("acme"), at(50)), at(105));
        assert!(marks.learnt(&old) > first, "another mark is news");
        assert_eq!(marks.all(at(105)).len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_event_of_the_same_second_is_news_here_and_elsewhere() {
        let (ours, theirs, old) = (marks(), marks(), checked(0, &[]));
        theirs.merge(ours.mark("main", user("7"), at(100)), at(100));
        let first = (ours.learnt(&old), theirs.learnt(&old));
        tokio::time::advance(Duration::from_millis(300)).await;
        theirs.merge(ours.mark("main", user("7"), at(100)), at(100));
        assert!(ours.learnt(&old) > first.0 && theirs.learnt(&old) > first.1);
        // However many there are, they don't run ahead of the time.
        let last = (0..1000).map(|_| ours.mark("main", user("7"), at(100)).at).max();
        assert_eq!(last, Some(at(100) + LAG));
    }

    #[test]
    fn when_there_is_no_room_everybody_is_marked() {
        let marks = marks();
        for number in 0..100 {
            hook(&marks, user(&format!("x{number}")), 1);
        }
        assert!(marks.learnt(&checked(0, &[])).is_none());
        hook(&marks, group("elsewhere"), 2);
        assert!(marks.learnt(&checked(0, &[])).is_some());
        assert_eq!(marks.all(at(2)), [mark(Whom::Everybody, at(2))]);
        hook(&marks, user("8"), 3);
        assert_eq!(marks.all(at(3)).len(), 2, "there is room again");
    }

    #[test]
    fn marks_end_with_the_words_that_they_are_about() {
        let marks = marks();
        for number in 0..100 {
            hook(&marks, user(&format!("x{number}")), 1);
        }
        let later = at(3600 + 62);
        assert!(marks.all(later).is_empty());
        hook(&marks, user("7"), 3600 + 62);
        assert_eq!(marks.all(later), [mark(user("7"), later)], "the old ones made room");
        marks.merge(mark(user("9"), at(1)), later);
        assert_eq!(marks.all(later).len(), 1, "too late to matter");
    }

    #[test]
    fn a_replica_of_the_future_marks_no_more_than_a_minute_ahead() {
        let marks = marks();
        marks.merge(mark(user("7"), at(100_000)), at(100));
        assert!(marks.learnt(&checked(150, &[])).is_some());
        assert!(marks.learnt(&checked(170, &[])).is_none());
    }

    #[test]
    fn replicas_tell_each_other_by_what_serde_makes_of_it() {
        let (ours, theirs) = (marks(), marks());
        hook(&ours, user("7"), 1);
        hook(&ours, group("Acme/Web"), 2);
        ours.mark("other", Whom::Everybody, at(3));
        let bytes = postcard::to_allocvec(&ours.all(at(4))).unwrap();
        for mark in postcard::from_bytes::<Vec<Mark>>(&bytes).unwrap() {
            theirs.merge(mark, at(4));
        }
        let sorted = |marks: &Marks| {
            let mut all = marks.all(at(4));
            all.sort();
            all
        };
        assert_eq!(sorted(&ours), sorted(&theirs));
        let text = serde_json::to_string(&mark(user("7"), at(1))).unwrap();
        assert_eq!(serde_json::from_str::<Mark>(&text).unwrap(), mark(user("7"), at(1)));
    }
}

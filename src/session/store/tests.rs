//! What the store keeps, drops and never forgets, by one task and by fifty.

use std::{thread, time::Duration};

use super::{
    memory::{SHARDS, size},
    *,
};
use crate::session::tests::{NOW, session};

async fn overlay(store: &Store, session: &Session, now: Timestamp) -> Option<Overlay> {
    let known = store.get(&Arc::new(session.clone()), later(100), now).await;
    assert!(known.sure);
    known.overlay
}

fn later(seconds: u64) -> Timestamp {
    NOW + Duration::from_secs(seconds)
}

fn generation(session: &Session, generation: u32) -> Arc<Session> {
    let mut session = session.clone();
    session.generation = generation;
    Arc::new(session)
}

/// Sessions whose ids fall into one shard, where limits are met soonest.
fn neighbours(count: u8) -> Vec<Session> {
    (0..count)
        .map(|index| {
            let mut session = session(0, 0);
            session.id.0[0] = 16;
            session.id.0[1] = index;
            session
        })
        .collect()
}

#[tokio::test]
async fn a_newer_copy_is_kept_until_its_end() {
    let store = Store::memory(StoreLimits::default());
    let session = session(1, 0);
    assert_eq!(overlay(&store, &session, NOW).await, None);
    let newer = generation(&session, 2);
    assert_eq!(store.put(newer.clone(), later(10), NOW).await, Put::Stored);
    assert_eq!(overlay(&store, &session, later(9)).await, Some(Overlay::Newer(newer)));
    assert_eq!(overlay(&store, &session, later(10)).await, None);
}

#[tokio::test]
async fn the_latest_generation_wins_in_any_order() {
    let store = Store::memory(StoreLimits::default());
    let session = session(1, 0);
    let table = [(2, Put::Stored, 2), (1, Put::Older, 2), (2, Put::Older, 2), (3, Put::Stored, 3)];
    for (number, put, known) in table {
        assert_eq!(store.put(generation(&session, number), later(10), NOW).await, put);
        let known = generation(&session, known);
        assert_eq!(overlay(&store, &session, NOW).await, Some(Overlay::Newer(known)));
    }
    assert_eq!(store.counts().newer, 1);
}

#[tokio::test]
async fn a_revocation_holds_against_late_copies_until_its_end() {
    let store = Store::memory(StoreLimits::default());
    let session = session(1, 0);
    store.put(generation(&session, 1), later(10), NOW).await;
    store.revoke(session.id, later(10), NOW).await;
    store.revoke(session.id, later(5), NOW).await;
    assert_eq!(store.put(generation(&session, 9), later(10), later(9)).await, Put::Revoked);
    assert_eq!(overlay(&store, &session, later(9)).await, Some(Overlay::Revoked));
    assert_eq!(overlay(&store, &session, later(10)).await, None);
    assert_eq!(store.put(generation(&session, 9), later(10), later(10)).await, Put::Revoked);
    let counts = store.counts();
    assert_eq!((counts.newer, counts.newer_bytes, counts.revoked), (0, 0, 0));
}

#[tokio::test]
async fn the_oldest_copies_go_when_bytes_are_short() {
    let sessions = neighbours(10);
    let each = size(&sessions[0]);
    let store = Store::memory(StoreLimits { newer_bytes: 3 * each * SHARDS, revoked: 10 });
    for session in &sessions {
        store.put(generation(session, 1), later(10), NOW).await;
    }
    store.put(generation(&sessions[7], 2), later(10), NOW).await;
    store.put(generation(&sessions[0], 1), later(10), NOW).await;
    for (index, session) in sessions.iter().enumerate() {
        let known = overlay(&store, session, NOW).await.is_some();
        assert_eq!(known, [0, 7, 9].contains(&index), "{index}");
    }
    let counts = store.counts();
    assert_eq!((counts.newer, counts.newer_bytes, counts.evicted), (3, 3 * each, 8));
}

#[tokio::test]
async fn one_copy_stays_however_large_it_is() {
    let store = Store::memory(StoreLimits { newer_bytes: 1, revoked: 1 });
    let session = session(500, 0);
    store.put(generation(&session, 1), later(10), NOW).await;
    assert!(overlay(&store, &session, NOW).await.is_some());
}

#[tokio::test]
async fn lost_revocations_are_those_that_end_first_and_are_counted() {
    let store = Store::memory(StoreLimits { newer_bytes: 0, revoked: 3 * SHARDS });
    let sessions = neighbours(5);
    for (session, end) in sessions.iter().zip([50, 10, 40, 20, 30]) {
        store.revoke(session.id, later(end), NOW).await;
    }
    for (index, session) in sessions.iter().enumerate() {
        let known = overlay(&store, session, NOW).await.is_some();
        assert_eq!(known, [0, 2, 4].contains(&index), "{index}");
    }
    let counts = store.counts();
    assert_eq!((counts.revoked, counts.lost), (3, 2));
}

#[tokio::test]
async fn what_has_ended_is_swept_in_passing() {
    let store = Store::memory(StoreLimits::default());
    for round in 0..200_u64 {
        for session in neighbours(4) {
            let mut other = session.clone();
            other.id.0[2] ^= 1;
            store.put(generation(&session, 1), later(round + 1), later(round)).await;
            store.revoke(other.id, later(round + 1), later(round)).await;
        }
    }
    let counts = store.counts();
    assert!(counts.newer <= 8 && counts.revoked <= 8, "{counts:?}");
    assert_eq!((counts.evicted, counts.lost), (0, 0));
}

/// Many tasks change and end the same sessions: no later copy is lost to an earlier one, no ended session comes back.
#[test]
fn fifty_threads_agree() {
    let store = Store::memory(StoreLimits::default());
    let sessions = neighbours(8);
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    thread::scope(|scope| {
        for number in 0..50_u32 {
            let (store, sessions) = (&store, &sessions);
            scope.spawn(move || {
                runtime().block_on(async {
                    let mut highest = [0; 8];
                    for round in 0..100_u32 {
                        for (index, session) in sessions.iter().enumerate() {
                            let copy = generation(session, 1 + round * 50 + number);
                            store.put(copy, later(100), NOW).await;
                            if index == 0 && number == 25 && round == 50 {
                                store.revoke(session.id, later(100), NOW).await;
                                highest[0] = u32::MAX;
                            }
                            match overlay(store, session, NOW).await {
                                Some(Overlay::Newer(newer)) => {
                                    assert!(newer.generation >= highest[index]);
                                    highest[index] = newer.generation;
                                },
                                Some(Overlay::Revoked) if index == 0 => highest[0] = u32::MAX,
                                other => panic!("{other:?}"),
                            }
                        }
                    }
                });
            });
        }
    });
    runtime().block_on(async {
        assert_eq!(overlay(&store, &sessions[0], NOW).await, Some(Overlay::Revoked));
        for session in &sessions[1..] {
            let last = generation(session, 5000);
            assert_eq!(overlay(&store, session, NOW).await, Some(Overlay::Newer(last)));
        }
    });
    assert_eq!((store.counts().newer, store.counts().revoked), (7, 1));
}

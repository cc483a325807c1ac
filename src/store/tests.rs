//! What the store promises: whole or absent, once, and damage is noticed.

use serde_json::json;

use super::*;

fn id(name: &str) -> JobId {
    JobId::of(&json!({ "name": name }))
}

fn fresh() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

fn commit(store: &Store, id: &JobId, text: &str) -> Artifact {
    let slot = store.begin(store.try_lock(id).unwrap().unwrap()).unwrap();
    fs::create_dir(slot.out().join("deep")).unwrap();
    fs::write(slot.out().join("deep/a.txt"), text).unwrap();
    fs::write(slot.out().join("b.txt"), "b").unwrap();
    slot.commit("train", Provenance::begin()).unwrap()
}

#[test]
fn what_is_committed_is_found_and_verified() {
    let (_folder, store) = fresh();
    assert!(matches!(store.lookup(&id("x")), Lookup::Miss));
    let artifact = commit(&store, &id("x"), "hello");
    assert_eq!(fs::read_to_string(artifact.file("deep/a.txt")).unwrap(), "hello");
    let Lookup::Hit(found) = store.lookup(&id("x")) else { panic!() };
    assert_eq!(found.manifest, artifact.manifest);
    assert_eq!(found.manifest.files.len(), 2);
    store.verify(&id("x")).unwrap();
    assert_eq!(store.ids().unwrap(), [id("x")]);
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(store.root().join("work")).unwrap().count(), 0);
}

#[test]
fn abandoned_output_is_never_visible_and_work_stays() {
    let (_folder, store) = fresh();
    let slot = store.begin(store.try_lock(&id("x")).unwrap().unwrap()).unwrap();
    fs::write(slot.out().join("half"), "ha").unwrap();
    fs::write(slot.work().join("checkpoint"), "3").unwrap();
    drop(slot);
    assert!(matches!(store.lookup(&id("x")), Lookup::Miss));
    // A killed process cleans nothing: its folder is removed by the next attempt.
    let dead = store.root().join("tmp").join(format!("{}.999.0", id("x")));
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join(MANIFEST), "{}").unwrap();
    let slot = store.begin(store.try_lock(&id("x")).unwrap().unwrap()).unwrap();
    assert!(!dead.exists());
    assert_eq!(fs::read_to_string(slot.work().join("checkpoint")).unwrap(), "3");
}

#[test]
fn damage_is_noticed() {
    let (_folder, store) = fresh();
    for (name, harm) in [("short", "hell"), ("long", "hello!")] {
        let artifact = commit(&store, &id(name), "hello");
        fs::write(artifact.file("deep/a.txt"), harm).unwrap();
        assert!(matches!(store.lookup(&id(name)), Lookup::Damaged(_)), "{name}");
    }
    let artifact = commit(&store, &id("flip"), "hello");
    fs::write(artifact.file("deep/a.txt"), "jello").unwrap();
    assert!(store.has(&id("flip")), "sizes alone do not show it");
    assert!(store.verify(&id("flip")).unwrap_err().to_string().contains("content differs"));
    let artifact = commit(&store, &id("gone"), "hello");
    fs::remove_file(artifact.file("b.txt")).unwrap();
    assert!(matches!(store.lookup(&id("gone")), Lookup::Damaged(_)));
    let artifact = commit(&store, &id("torn"), "hello");
    fs::write(artifact.file(MANIFEST), "{\"format\": 1,").unwrap();
    assert!(matches!(store.lookup(&id("torn")), Lookup::Damaged(_)));
    assert!(store.require(&id("torn")).is_err());

    let lock = store.try_lock(&id("torn")).unwrap().unwrap();
    store.discard(&lock).unwrap();
    drop(lock);
    commit(&store, &id("torn"), "hello");
    store.verify(&id("torn")).unwrap();
}

#[test]
fn a_job_has_one_runner() {
    let (_folder, store) = fresh();
    let lock = store.try_lock(&id("x")).unwrap().unwrap();
    assert!(store.try_lock(&id("x")).unwrap().is_none());
    assert!(store.try_lock(&id("y")).unwrap().is_some());
    assert!(Lock::owner(&store.root().join("locks").join(id("x").as_str())).contains("process"));
    drop(lock);
    assert!(store.try_lock(&id("x")).unwrap().is_some());
}

#[test]
fn records_come_back() {
    let (_folder, store) = fresh();
    store.put_record(&id("x"), &json!({"stage": "fit"})).unwrap();
    store.put_record(&id("x"), &json!({"stage": "fit"})).unwrap();
    assert_eq!(store.record::<serde_json::Value>(&id("x")).unwrap(), json!({"stage": "fit"}));
    assert!(
        store
            .record::<serde_json::Value>(&id("y"))
            .unwrap_err()
            .to_string()
            .contains("no such job")
    );
    fs::write(store.root().join("jobs").join(format!("{}.json", id("y"))), "{").unwrap();
    assert!(store.record::<serde_json::Value>(&id("y")).is_err());
}

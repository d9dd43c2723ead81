//! Partial files that are filled, killed, damaged and full.
#![allow(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]

use std::ops::ControlFlow;

use peerproof_proof::ranges::open_bytes;

use super::*;
use crate::models::{Installed, Store};

const LENGTH: u64 = 200_001;

fn quiet(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A model file without keys or tensors, and bytes that belong to none.
fn content() -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend([0; 16]);
    bytes.extend((24..LENGTH).map(|index| (index * 7 / 3) as u8));
    bytes
}

fn id() -> ModelId {
    ModelId::from_bytes(*blake3::hash(&content()).as_bytes())
}

fn slice(range: Range<u64>) -> Slice {
    open_bytes(Mode::Plain, &content(), GROUP, range).expect("an opening")
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::new(dir.path().join("models"), "http://127.0.0.1:1");
    (dir, store)
}

fn put(partial: &Partial, range: Range<u64>) -> u64 {
    partial.insert(range.clone(), &slice(range)).expect("taken in")
}

fn missing(partial: &Partial) -> Vec<Range<u64>> {
    partial.missing(&[0..LENGTH], &mut quiet).expect("read")
}

#[test]
fn groups_come_in_any_order_and_become_a_model() {
    let (_dir, store) = store();
    assert!(store.partial(id()).expect("looked").is_none());
    let partial = store.begin(id(), LENGTH).expect("begun");
    assert_eq!(missing(&partial), [0..LENGTH]);
    assert_eq!(put(&partial, LENGTH - 1..LENGTH), LENGTH % 16_384);
    assert_eq!(put(&partial, 50_000..60_000), 16_384);
    assert_eq!(put(&partial, 50_000..70_000), 16_384, "one of two groups is new");
    assert_eq!(missing(&partial), [0..49_152, 81_920..196_608]);
    assert_eq!(partial.have_bytes(), 2 * 16_384 + LENGTH % 16_384);
    assert_eq!(partial.read(49_000..50_000).expect("read"), None);
    let part = partial.read(50_000..70_001).expect("read").expect("here");
    assert_eq!(part, content()[50_000..70_001]);
    assert!(partial.missing(&[0..LENGTH + 1], &mut quiet).is_err());
    assert!(partial.read(5..5).is_err());
    put(&partial, 0..LENGTH);
    assert_eq!(missing(&partial), []);
    let installed = store.adopt(partial, "tiny", "peers".into(), &mut quiet).expect("installed");
    assert_eq!((installed.id.as_str(), installed.bytes), (id().to_string().as_str(), LENGTH));
    assert_eq!(fs::read(&installed.path).expect("read"), content());
    let found: Installed = store.find("tiny").expect("listed");
    assert_eq!(found, installed);
    let kept = tree::of(&installed.path, id(), &mut |_| panic!("the tree was kept"));
    assert_eq!(kept.expect("a tree").root(), tree::root(id()));
    assert!(store.partial(id()).expect("looked").is_none());
    let names: Vec<_> = store
        .remove("tiny")
        .map(|m| fs::read_dir(m.path.parent().expect("in a folder")).expect("a folder").count())
        .into_iter()
        .collect();
    assert_eq!(names, [0], "nothing is left");
}

#[test]
fn what_was_fetched_outlives_the_process_and_is_hashed_before_it_is_believed() {
    let (_dir, store) = store();
    let partial = store.begin(id(), LENGTH).expect("begun");
    put(&partial, 0..100_000);
    let files = partial.files.clone();
    drop(partial);
    let flip = |path: &Path, at: u64| {
        let file = OpenOptions::new().read(true).write(true).open(path).expect("opened");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("read");
        file.write_all_at(&[byte[0] ^ 1], at).expect("written");
    };
    let again = || store.partial(id()).expect("looked").expect("there");
    assert_eq!(missing(&again()), [114_688..LENGTH]);
    // A damaged byte costs its group, a damaged value too, and nothing else.
    flip(&files.data, 20_000);
    flip(&files.values, HEADER_BYTES + 32 * 3 + 5);
    let damaged = again();
    assert_eq!(damaged.read(16_384..16_385).expect("read"), None);
    assert_eq!(missing(&damaged), [16_384..32_768, 49_152..65_536, 114_688..LENGTH]);
    assert_eq!(damaged.have_bytes(), 5 * 16_384);
    put(&damaged, 0..LENGTH);
    assert_eq!(missing(&damaged), []);
    drop(damaged);
    // A value of a group that never came is not believed either.
    flip(&files.values, HEADER_BYTES);
    assert_eq!(missing(&again()), [0..16_384]);
}

#[test]
fn files_that_do_not_fit_each_other_are_begun_anew() {
    let (_dir, store) = store();
    for at in [0, 8, 9, 12, 17, 48] {
        let partial = store.begin(id(), LENGTH).expect("begun");
        put(&partial, 0..1);
        let files = partial.files.clone();
        drop(partial);
        let mut header = fs::read(&files.values).expect("read");
        header[at] ^= 1;
        fs::write(&files.values, header).expect("written");
        assert!(store.partial(id()).expect("looked").is_none(), "byte {at}");
        assert!(!files.data.exists() && !files.values.exists());
    }
    let cut = |which: fn(&Files) -> &Path| {
        let partial = store.begin(id(), LENGTH).expect("begun");
        put(&partial, 0..1);
        let files = partial.files.clone();
        drop(partial);
        let file = OpenOptions::new().write(true).open(which(&files)).expect("opened");
        file.set_len(1000.min(file.metadata().expect("read").len() - 1)).expect("cut");
        assert!(store.partial(id()).expect("looked").is_none());
    };
    cut(|files| &files.data);
    cut(|files| &files.values);
}

#[test]
fn what_is_not_the_model_is_not_written() {
    let (_dir, store) = store();
    let partial = store.begin(id(), LENGTH).expect("begun");
    let before = fs::read(&partial.files.data).expect("read");
    let mut bad = slice(0..40_000);
    bad.bytes[33_000] ^= 1;
    let refused = partial.insert(0..40_000, &bad);
    assert!(matches!(refused, Err(InsertError::Range(RangeError::Root { .. }))));
    let elsewhere = partial.insert(16_384..16_385, &slice(0..1));
    assert!(matches!(elsewhere, Err(InsertError::Range(_))));
    assert!(matches!(partial.insert(LENGTH..LENGTH + 1, &bad), Err(InsertError::Range(_))));
    assert_eq!(fs::read(&partial.files.data).expect("read"), before);
    assert_eq!((partial.have_bytes(), missing(&partial)), (0, vec![0..LENGTH]));
}

#[test]
fn an_unfinished_file_gets_no_name() {
    let (_dir, store) = store();
    let partial = store.begin(id(), LENGTH).expect("begun");
    put(&partial, 0..LENGTH - 20_000);
    let error = store.adopt(partial, "tiny", "peers".into(), &mut quiet).expect_err("unfinished");
    assert!(matches!(error, ModelError::Changed { .. }), "{error}");
    assert!(store.list().expect("listed").is_empty());
    let partial = store.partial(id()).expect("looked").expect("kept");
    assert!(partial.have_bytes() > 0);
    // Another length than before is another beginning.
    drop(partial);
    assert_eq!(store.begin(id(), LENGTH + 1).expect("begun").have_bytes(), 0);
}

#[test]
fn a_name_that_stands_for_another_model_is_refused() {
    let (dir, store) = store();
    let other = dir.path().join("other.gguf");
    let mut bytes = content();
    bytes.push(1);
    fs::write(&other, bytes).expect("written");
    let source = crate::models::Source::Path(other);
    store.pull(&source, Some("tiny"), None, &mut quiet).expect("pulled");
    let partial = store.begin(id(), LENGTH).expect("begun");
    put(&partial, 0..LENGTH);
    let error = store.adopt(partial, "tiny", "peers".into(), &mut quiet).expect_err("taken");
    assert!(matches!(error, ModelError::Taken { .. }), "{error}");
    assert!(store.partial(id()).expect("looked").is_some(), "what was fetched is kept");
}

#[test]
fn unfinished_files_are_listed_and_deleted() {
    let (_dir, store) = store();
    assert_eq!(store.unfinished(), []);
    let partial = store.begin(id(), LENGTH).expect("begun");
    put(&partial, 0..20_000);
    let id = id().to_string();
    let listed = Unfinished { id: id.clone(), have_bytes: 32_768, bytes: LENGTH };
    assert_eq!(store.unfinished(), std::slice::from_ref(&listed), "also while somebody has it");
    assert!(matches!(store.discard(&id[..8]), Err(ModelError::Busy { .. })));
    drop(partial);
    assert_eq!(store.discard(&id[..7]).expect("looked"), None);
    assert_eq!(store.discard(&id[..8].to_uppercase()).expect("deleted"), Some(listed));
    assert_eq!(store.unfinished(), []);
    assert_eq!(store.discard(&id).expect("looked"), None);
}

#[test]
fn one_process_at_a_time() {
    let (_dir, store) = store();
    let partial = store.begin(id(), LENGTH).expect("begun");
    assert!(matches!(store.partial(id()), Err(ModelError::Busy { .. })));
    assert!(matches!(store.begin(id(), LENGTH), Err(ModelError::Busy { .. })));
    drop(partial);
    assert!(store.partial(id()).expect("looked").is_some());
}

#[test]
fn a_full_disk_says_so() {
    let (_dir, store) = store();
    let partial = store.begin(id(), LENGTH).expect("begun");
    let full = File::options().read(true).write(true).open("/dev/full").expect("opened");
    let partial = Partial { data: full, ..partial };
    let error = partial.insert(0..1, &slice(0..1)).expect_err("full");
    assert!(error.to_string().contains("free some space"), "{error}");
    assert_eq!(partial.have_bytes(), 0);
}

#[test]
fn stopping_stops_the_hashing() {
    let (_dir, store) = store();
    let partial = store.begin(id(), LENGTH).expect("begun");
    put(&partial, 0..LENGTH);
    drop(partial);
    let partial = store.partial(id()).expect("looked").expect("there");
    let stopped = partial.missing(&[0..LENGTH], &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(ModelError::Cancelled)));
}

#[test]
fn what_was_fetched_is_opened_to_others_as_it_came() {
    let (_dir, store) = store();
    let partial = store.begin(id(), LENGTH).expect("begun");
    put(&partial, LENGTH - 1..LENGTH);
    put(&partial, 20_000..60_000);
    put(&partial, 100_000..100_001);
    let check = |partial: &Partial| {
        for range in [20_000..60_000, 20_000..20_001, 33_000..60_000, 100_000..110_000] {
            let opened = partial.slice(range.clone()).expect("read");
            assert_eq!(opened, Some(slice(range.clone())), "{range:?}");
        }
        assert_eq!(partial.slice(60_000..100_001).expect("read"), None, "not all of it is here");
        assert!(partial.slice(5..5).is_err() && partial.slice(0..LENGTH + 1).is_err());
    };
    check(&partial);
    // Another process opens the same, a torn end notwithstanding.
    let beside = partial.files.beside.clone();
    drop(partial);
    let whole = fs::read(&beside).expect("kept");
    fs::write(&beside, [&whole[..], &[7; 20]].concat()).expect("written");
    let partial = store.partial(id()).expect("looked").expect("there");
    check(&partial);
    drop(partial);
    assert_eq!(fs::read(&beside).expect("kept"), whole);
    // What was damaged leads to nothing, and to nothing wrong; the next slice mends it.
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&beside, &bytes).expect("written");
        let partial = store.partial(id()).expect("looked").expect("there");
        let opened = partial.slice(20_000..60_000).expect("read");
        assert!(opened.is_none_or(|opened| opened == slice(20_000..60_000)), "byte {at}");
    }
    let partial = store.partial(id()).expect("looked").expect("there");
    put(&partial, 20_000..60_000);
    assert_eq!(partial.slice(20_000..60_000).expect("read"), Some(slice(20_000..60_000)));
}

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;

fn small() -> Options {
    Options {
        segment_size: 8 * 1024,
        max_record: 64 * 1024,
        spares: 1,
        keep: 0,
        reserve: 4096,
    }
}

fn put(id: u64, payload: &[u8]) -> Record<'_> {
    Record {
        kind: Kind::Put,
        version: 1,
        id,
        parts: [payload, &[], &[]],
    }
}

fn note(id: u64, payload: &[u8]) -> Record<'_> {
    Record {
        kind: Kind::Note,
        version: 1,
        id,
        parts: [payload, &[], &[]],
    }
}

/// The live messages with their notes.
fn contents(journal: &Journal) -> BTreeMap<u64, Vec<Vec<u8>>> {
    let reader = journal.reader();
    let read = |at: &Position| reader.read(*at).unwrap().payload;
    journal
        .live()
        .map(|(id, entry)| {
            let mut all = vec![read(&entry.put)];
            all.extend(entry.notes.iter().map(read));
            (id, all)
        })
        .collect()
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "segment"))
        .collect();
    paths.sort();
    paths
}

#[test]
fn what_was_appended_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), small()).unwrap();
    let three = Record {
        kind: Kind::Put,
        version: 7,
        id: 1,
        parts: [b"a", b"bc", b"def"],
    };
    let at = journal
        .append(&[three, put(2, b"two"), note(1, b"later")], true)
        .unwrap();
    let content = journal.reader().read(at[0]).unwrap();
    assert_eq!(
        (content.version, content.id, content.payload.as_slice()),
        (7, 1, b"abcdef".as_slice())
    );
    journal.append(&[Record::free(2)], false).unwrap();
    drop(journal);
    let mut journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!(
        contents(&journal),
        BTreeMap::from([(1, vec![b"abcdef".to_vec(), b"later".to_vec()])])
    );
    assert_eq!(journal.take_freed(), [2]);
    assert!(journal.damage().is_empty());
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Journal::open(dir.path(), small()).unwrap();
    let error = Journal::open(dir.path(), small()).unwrap_err();
    assert!(matches!(error.source, Fault::Locked));
}

#[test]
fn a_batch_costs_one_sync() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let mut journal = Journal::open_on(disk.clone(), dir.path(), Options::default()).unwrap();
    journal
        .append(&[put(1, b"opens the segment")], true)
        .unwrap();
    let before = disk.faults.syncs.load(SeqCst);
    let body = vec![7; 100];
    let batch: Vec<Record<'_>> = (2..1500).map(|id| put(id, &body)).collect();
    journal.append(&batch, true).unwrap();
    assert_eq!(disk.faults.syncs.load(SeqCst), before + 1);
    journal.append(&[Record::free(1)], false).unwrap();
    assert_eq!(disk.faults.syncs.load(SeqCst), before + 1);
    assert_eq!(journal.len(), 1498);
}

#[test]
fn done_segments_are_reclaimed_and_reused() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), small()).unwrap();
    let body = vec![1; 1000];
    for id in 1..=100 {
        journal.append(&[put(id, &body)], true).unwrap();
        if id != 50 {
            journal.append(&[Record::free(id)], false).unwrap();
        }
    }
    // The segment of message 50, the active one, and those whose marks free what is in these.
    assert!(
        segments(dir.path()).len() <= 4,
        "{:?}",
        segments(dir.path())
    );
    assert!(journal.bytes() <= 5 * 8192);
    drop(journal);
    let mut journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!(contents(&journal).keys().copied().collect::<Vec<_>>(), [50]);
    journal.append(&[Record::free(50)], true).unwrap();
    journal.reclaim();
    journal.reclaim();
    assert_eq!(segments(dir.path()).len(), 1);
    assert!(journal.is_idle());
}

#[test]
fn what_was_done_lately_is_known_after_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { keep: 2, ..small() };
    for id in 1..=5_u64 {
        let mut journal = Journal::open(dir.path(), options.clone()).unwrap();
        let known: Vec<u64> = (id.saturating_sub(2).max(1)..id).collect();
        assert!(journal.take_freed().ends_with(&known));
        journal
            .append(&[put(id, b"x"), Record::free(id)], true)
            .unwrap();
        journal.close();
    }
    assert_eq!(segments(dir.path()).len(), 2);
}

#[test]
fn a_mark_outlives_what_it_frees() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), small()).unwrap();
    let body = vec![1; 3000];
    // Two live messages in the first segment; the second frees one of them.
    journal
        .append(&[put(1, &body), put(2, &body)], true)
        .unwrap();
    journal
        .append(&[put(3, &body), Record::free(1), Record::free(3)], true)
        .unwrap();
    journal
        .append(&[put(4, &body), put(5, &body)], true)
        .unwrap();
    drop(journal);
    let journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!(
        contents(&journal).keys().copied().collect::<Vec<_>>(),
        [2, 4, 5]
    );
}

#[test]
fn a_full_disk_fails_the_batch_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let mut journal = Journal::open_on(disk.clone(), dir.path(), small()).unwrap();
    journal
        .append(&[put(1, b"one"), put(2, b"two")], true)
        .unwrap();
    // In the middle of a record.
    for room in [0, 10, 40, 700] {
        disk.faults.room.store(room, SeqCst);
        let body = vec![3; 500];
        let error = journal
            .append(&[put(3, &body), put(4, &body)], true)
            .unwrap_err();
        assert!(error.is_full());
        assert_eq!(journal.len(), 2);
    }
    // A new segment cannot be made either, but what frees messages can be written.
    disk.faults.room.store(7000, SeqCst);
    let body = vec![3; 7000];
    assert!(
        journal
            .append(&[put(5, &body)], true)
            .unwrap_err()
            .is_full()
    );
    disk.faults.room.store(-1, SeqCst);
    journal.append(&[Record::free(1)], true).unwrap();
    journal.append(&[put(6, &body)], true).unwrap();
    drop(journal);
    let journal = Journal::open(dir.path(), small()).unwrap();
    assert!(journal.damage().is_empty());
    assert_eq!(
        contents(&journal).keys().copied().collect::<Vec<_>>(),
        [2, 6]
    );
}

#[test]
fn the_reserve_lets_messages_be_freed_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let options = Options {
        segment_size: 256 * 1024,
        reserve: 128 * 1024,
        ..small()
    };
    let mut journal = Journal::open_on(disk.clone(), dir.path(), options.clone()).unwrap();
    journal.append(&[put(1, b"one")], true).unwrap();
    drop(journal);
    let mut journal = Journal::open_on(disk.clone(), dir.path(), options).unwrap();
    // As much as the reserve gives back.
    disk.faults.room.store(128 * 1024, SeqCst);
    assert!(
        journal
            .append(&[put(2, b"two")], true)
            .unwrap_err()
            .is_full()
    );
    assert!(dir.path().join(RESERVE).exists());
    journal.append(&[Record::free(1)], true).unwrap();
    assert!(!dir.path().join(RESERVE).exists());
    assert!(journal.is_empty());
}

#[test]
fn a_failed_sync_poisons_the_segment_and_voids_the_batch() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let mut journal = Journal::open_on(disk.clone(), dir.path(), small()).unwrap();
    journal.append(&[put(1, b"one")], true).unwrap();
    disk.faults.sync_fails.store(true, SeqCst);
    assert!(
        journal
            .append(&[put(2, b"not acknowledged")], true)
            .is_err()
    );
    assert!(journal.append(&[put(3, b"neither")], true).is_err());
    disk.faults.sync_fails.store(false, SeqCst);
    assert_eq!(journal.len(), 1);
    let at = journal.append(&[put(4, b"four")], true).unwrap();
    assert!(at[0].segment > 1, "a poisoned segment is not written to");
    drop(journal);
    let journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!(
        contents(&journal).keys().copied().collect::<Vec<_>>(),
        [1, 4]
    );
}

#[test]
fn a_failed_cut_poisons_too() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let mut journal = Journal::open_on(disk.clone(), dir.path(), small()).unwrap();
    journal.append(&[put(1, b"one")], true).unwrap();
    disk.faults.room.store(100, SeqCst);
    disk.faults.truncate_fails.store(true, SeqCst);
    let body = vec![0; 200];
    assert!(
        journal
            .append(&[put(2, b"whole, but not promised"), put(3, &body)], true)
            .is_err()
    );
    disk.faults.room.store(-1, SeqCst);
    journal.append(&[put(4, b"four")], true).unwrap();
    drop(journal);
    let journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!(
        contents(&journal).keys().copied().collect::<Vec<_>>(),
        [1, 4]
    );
}

#[test]
fn a_message_cannot_pass_for_a_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), small()).unwrap();
    // What an attacker can know: a whole segment of another journal, with its records, in a message.
    let other = tempfile::tempdir().unwrap();
    let mut foreign = Journal::open(other.path(), small()).unwrap();
    foreign
        .append(&[put(666, b"forged"), Record::free(1)], true)
        .unwrap();
    let evil = std::fs::read(&segments(other.path())[0]).unwrap();
    journal
        .append(
            &[put(1, b"first"), put(2, &evil[..2000]), put(3, b"last")],
            true,
        )
        .unwrap();
    let at = journal.entry(2).unwrap().put.offset as usize;
    drop(journal);
    let path = &segments(dir.path())[0];
    let mut octets = std::fs::read(path).unwrap();
    octets[at + 4] ^= 1;
    std::fs::write(path, &octets).unwrap();
    let journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!(journal.damage().len(), 1);
    assert_eq!(
        contents(&journal).keys().copied().collect::<Vec<_>>(),
        [1, 3]
    );
}

/// A small segment: its octets, and where each record ends.
fn sample() -> (Vec<u8>, Vec<(u64, usize)>) {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), small()).unwrap();
    let mut ends = Vec::new();
    for id in 1..=5_u64 {
        let body = vec![id as u8; id as usize * 9];
        let at = journal.append(&[put(id, &body)], true).unwrap();
        ends.push((id, at[0].offset as usize + RECORD_HEADER + body.len()));
    }
    drop(journal);
    (std::fs::read(&segments(dir.path())[0]).unwrap(), ends)
}

fn reopened(octets: &[u8]) -> (Journal, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(segment::path(dir.path(), 1), octets).unwrap();
    (
        Journal::open(
            dir.path(),
            Options {
                reserve: 0,
                ..small()
            },
        )
        .unwrap(),
        dir,
    )
}

#[test]
fn cut_at_every_octet_it_keeps_every_whole_record() {
    let (octets, ends) = sample();
    let last = ends.last().unwrap().1;
    for cut in format::RECORDS_AT as usize..last + 40 {
        let (mut journal, dir) = reopened(&octets[..cut]);
        let expected: Vec<u64> = ends
            .iter()
            .filter(|(_, end)| *end <= cut)
            .map(|(id, _)| *id)
            .collect();
        assert_eq!(
            contents(&journal).keys().copied().collect::<Vec<_>>(),
            expected,
            "cut at {cut}"
        );
        assert!(journal.damage().is_empty());
        // And it goes on.
        if cut % 16 == 0 {
            journal.append(&[put(9, b"next")], true).unwrap();
            drop(journal);
            let journal = Journal::open(dir.path(), small()).unwrap();
            assert_eq!(journal.len(), expected.len() + 1);
        }
    }
}

#[test]
fn a_flipped_bit_costs_one_record_at_most() {
    let (octets, ends) = sample();
    let last = ends.last().unwrap().1;
    for at in 0..last {
        let mut bad = octets.clone();
        bad[at] ^= 1 << (at % 8);
        let (journal, _dir) = reopened(&bad);
        let hit = ends
            .iter()
            .find(|(_, end)| at < *end)
            .filter(|_| at >= format::RECORDS_AT as usize)
            .map(|(id, _)| *id);
        let expected: Vec<u64> = (1..=5).filter(|id| Some(*id) != hit).collect();
        assert_eq!(
            contents(&journal).keys().copied().collect::<Vec<_>>(),
            expected,
            "flipped at {at}"
        );
        // The last record looks like a torn tail; all others are reported.
        assert_eq!(
            journal.damage().len(),
            usize::from(hit.is_some_and(|id| id != 5)),
            "flipped at {at}"
        );
    }
}

#[test]
fn a_damaged_segment_is_kept_aside() {
    let (mut octets, ends) = sample();
    octets[ends[1].1 - 1] ^= 0xff;
    let (mut journal, dir) = reopened(&octets);
    let free: Vec<Record<'_>> = [1, 3, 4, 5].map(Record::free).to_vec();
    journal.append(&free, true).unwrap();
    journal.reclaim();
    assert!(dir.path().join("0000000000000001.damaged").exists());
    assert!(
        segments(dir.path())
            .iter()
            .all(|path| !path.ends_with("0000000000000001.segment"))
    );
}

#[derive(Clone, Debug)]
enum Step {
    Put(u64, usize),
    Note(u64, usize),
    Free(u64),
    Reopen,
    Full(i64),
    SyncFails,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..20_u64, 0..3000_usize).prop_map(|(id, len)| Step::Put(id, len)),
        3 => (1..20_u64, 0..50_usize).prop_map(|(id, len)| Step::Note(id, len)),
        6 => (1..20_u64).prop_map(Step::Free),
        1 => Just(Step::Reopen),
        1 => (0..6000_i64).prop_map(Step::Full),
        1 => Just(Step::SyncFails),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The journal is a map with a history, whatever happens to the disk.
    #[test]
    fn it_agrees_with_a_map(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let mut journal = Journal::open_on(disk.clone(), dir.path(), small()).unwrap();
        let mut model: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
        for (count, step) in steps.into_iter().enumerate() {
            let octet = count as u8;
            match step {
                Step::Put(id, len) => {
                    let body = vec![octet; len];
                    if journal.append(&[put(id, &body)], true).is_ok() {
                        model.insert(id, vec![body]);
                    }
                }
                Step::Note(id, len) => {
                    let body = vec![octet; len];
                    if model.contains_key(&id) && journal.append(&[note(id, &body)], true).is_ok() {
                        model.get_mut(&id).unwrap().push(body);
                    }
                }
                Step::Free(id) => {
                    if journal.append(&[Record::free(id)], true).is_ok() {
                        model.remove(&id);
                    }
                }
                Step::Reopen => {
                    drop(journal);
                    journal = Journal::open_on(disk.clone(), dir.path(), small()).unwrap();
                    prop_assert!(journal.damage().is_empty());
                }
                Step::Full(room) => {
                    disk.faults.room.store(room, SeqCst);
                    let body = vec![octet; 2500];
                    let id = 100 + count as u64;
                    if journal.append(&[put(id, &body), put(id + 100, &body)], true).is_ok() {
                        model.insert(id, vec![body.clone()]);
                        model.insert(id + 100, vec![body]);
                    }
                    disk.faults.room.store(-1, SeqCst);
                }
                Step::SyncFails => {
                    disk.faults.sync_fails.store(true, SeqCst);
                    prop_assert!(journal.append(&[put(300, b"lost")], true).is_err());
                    disk.faults.sync_fails.store(false, SeqCst);
                    journal.append(&[], true).unwrap();
                }
            }
            prop_assert_eq!(&contents(&journal), &model);
        }
        drop(journal);
        let journal = Journal::open(dir.path(), small()).unwrap();
        prop_assert_eq!(contents(&journal), model);
    }

    #[test]
    fn any_octets_are_scanned(octets in prop::collection::vec(any::<u8>(), 0..4096)) {
        crate::fuzz::scan(&octets);
        let mut with_header = format::segment_header(1, &crate::format::Key([0; 32]));
        with_header.extend(octets);
        crate::fuzz::scan(&with_header);
    }
}

use super::*;

fn path(text: &str) -> &Path {
    Path::new(text)
}

#[test]
fn what_was_synced_survives_and_the_rest_may_not() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..200 {
        let disk = MemDisk::new();
        disk.create_dir_all(path("/a/b")).unwrap();
        let file = disk.create(path("/a/b/f")).unwrap();
        file.write_all_at(&[1; 2048], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(path("/a/b")).unwrap();
        file.write_all_at(&[2; 2048], 1024).unwrap();
        disk.crash(seed);
        assert!(file.len().is_err(), "a handle survived the crash");
        let bytes = disk.contents(path("/a/b/f")).unwrap();
        assert!(bytes[..1024].iter().all(|b| *b == 1));
        let sectors: Vec<u8> = bytes.chunks(SECTOR).map(|sector| sector[0]).collect();
        for (sector, bytes) in sectors.iter().zip(bytes.chunks(SECTOR)) {
            assert!(bytes.iter().all(|b| b == sector), "a torn sector");
        }
        if seed == 0 {
            assert_eq!(sectors, [1, 1, 1, 1]);
        }
        outcomes.insert(sectors);
    }
    assert!(outcomes.contains(&vec![1, 1, 2, 2, 2, 2]));
    assert!(outcomes.contains(&vec![1, 1, 2, 1]));
    assert!(outcomes.len() > 10, "{outcomes:?}");
}

#[test]
fn names_are_durable_once_their_directory_is_synced() {
    let disk = MemDisk::new();
    let file = disk.create(path("tmp")).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    file.sync_data().unwrap();
    disk.rename(path("tmp"), path("log")).unwrap();
    let lost = MemDisk::new();
    lost.create(path("log")).unwrap().sync_data().unwrap();
    lost.crash(0);
    assert_eq!(lost.list(path("")).unwrap(), Vec::<String>::new());

    disk.sync_dir(path("")).unwrap();
    disk.remove(path("log")).unwrap();
    assert!(disk.open(path("log")).is_err());
    disk.crash(0);
    assert_eq!(disk.contents(path("log")).unwrap(), b"x");
}

#[test]
fn a_crash_keeps_a_prefix_of_the_changes_of_names() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let disk = MemDisk::new();
        disk.create(path("a")).unwrap();
        disk.create(path("b")).unwrap();
        disk.rename(path("a"), path("c")).unwrap();
        disk.remove(path("b")).unwrap();
        disk.crash(seed);
        seen.insert(disk.list(path("")).unwrap().concat());
    }
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        ["", "a", "ab", "bc", "c"]
    );
}

#[test]
fn a_fault_comes_when_it_was_ordered() {
    let disk = MemDisk::new();
    let file = disk.create(path("f")).unwrap();
    disk.fail(Fault::once(Operation::Write, 1, ENOSPC));
    file.write_all_at(&[1; 4], 0).unwrap();
    let error = file.write_all_at(&[2; 4], 4).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    file.write_all_at(&[3; 4], 6).unwrap();
    assert_eq!(
        disk.contents(path("f")).unwrap(),
        [1, 1, 1, 1, 2, 2, 3, 3, 3, 3]
    );
    assert_eq!(disk.count(Operation::Write), 3);

    disk.fail(Fault::forever(Operation::SyncDir, 0, EIO));
    assert!(disk.sync_dir(path("")).is_err());
    assert!(disk.sync_dir(path("")).is_err());
    disk.heal();
    disk.sync_dir(path("")).unwrap();
}

#[test]
fn a_failed_sync_is_not_made_good_by_a_second_one() {
    let disk = MemDisk::new();
    let file = disk.create(path("f")).unwrap();
    disk.sync_dir(path("")).unwrap();
    file.preallocate(1024).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(&[9; 512], 0).unwrap();
    disk.fail(Fault::once(Operation::Sync, 0, EIO));
    assert!(file.sync_data().is_err());
    file.write_all_at(&[8; 512], 512).unwrap();
    file.sync_data().unwrap();
    disk.crash(0);
    let bytes = disk.contents(path("f")).unwrap();
    assert_eq!((bytes[0], bytes[512]), (0, 8));
}

#[test]
fn what_was_cut_off_stays_cut_off() {
    let disk = MemDisk::new();
    let file = disk.create(path("f")).unwrap();
    disk.sync_dir(path("")).unwrap();
    file.write_all_at(&[9; 2000], 0).unwrap();
    file.sync_data().unwrap();
    file.set_len(100).unwrap();
    file.set_len(2000).unwrap();
    file.sync_data().unwrap();
    disk.crash(0);
    let bytes = disk.contents(path("f")).unwrap();
    assert!(bytes[..100].iter().all(|b| *b == 9) && bytes[100..].iter().all(|b| *b == 0));
}

#[test]
fn a_rotten_byte_stays_rotten() {
    let disk = MemDisk::new();
    let file = disk.create(path("f")).unwrap();
    file.write_all_at(&[1; 10], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(path("")).unwrap();
    disk.rot(path("f"), 3, 0x80);
    disk.crash(0);
    assert_eq!(disk.contents(path("f")).unwrap()[3], 0x81);
}

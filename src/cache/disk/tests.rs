//! A disk by itself: what is written is read, what is purged is not, whoever reads.

use bytes::Bytes;

use super::*;
use crate::cache::entry::Body;
use crate::cache::freshness::Freshness;
use crate::cache::head::Head;
use crate::cache::record::Kept;

const PATIENCE: Duration = Duration::from_secs(20);

fn settings(path: &Path) -> Settings {
    Settings {
        path: path.to_owned(),
        size: 16 << 20,
        memory: 16 << 20,
        keys: 1,
    }
}

fn record(disk: &Disk, tag: &str, body: Vec<u8>) -> Record {
    Record::Response(Kept {
        status: 200,
        head: Head::read(b"etag: \"e\"\r\n").unwrap(),
        freshness: Freshness {
            born: wall(),
            lifetime: 60,
            stale_while_revalidate: 0,
            stale_if_error: 0,
            flags: 0,
        },
        asked: wall(),
        stamp: disk.stamp(),
        tags: [tag.as_bytes().into()].into(),
        body: Body::of(vec![body.into()]),
    })
}

/// `None`: nothing; whether it is fresh, and its body.
async fn read(disk: &Disk, key: &str) -> Option<(bool, Bytes)> {
    match disk.read(key.as_bytes(), true).await? {
        Record::Response(kept) => Some((kept.freshness.is_fresh(wall()), kept.body.chunks().concat().into())),
        Record::Varies { .. } => None,
    }
}

/// Everything before has been written when this has been.
async fn written(disk: &Disk) {
    let nothing = Purge::Url((*b"nothing").into());
    disk.purge(&nothing, false, disk.stamp()).await.unwrap();
}

#[tokio::test]
async fn what_was_written_is_read_also_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(&settings(dir.path())).unwrap();
    for n in [0, 1, 20_000, 300_000] {
        disk.write(format!("k{n}").as_bytes(), &record(&disk, "t", vec![7; n]));
    }
    written(&disk).await;
    assert_eq!(read(&disk, "k20000").await, Some((true, vec![7; 20_000].into())));
    assert_eq!(read(&disk, "other").await, None);
    let first = disk.stamp();
    disk.close(PATIENCE);
    drop(disk);
    let disk = Disk::open(&settings(dir.path())).unwrap();
    assert!(
        disk.stamp() > first,
        "purges of each run are newer than all entries before"
    );
    for n in [0, 1, 20_000, 300_000] {
        assert_eq!(read(&disk, &format!("k{n}")).await, Some((true, vec![7; n].into())));
    }
    assert_eq!(disk.report().hits, 4);
    disk.close(PATIENCE);
    drop(disk);
    // With keys that are made of something else.
    let disk = Disk::open(&Settings {
        keys: 2,
        ..settings(dir.path())
    })
    .unwrap();
    assert_eq!(read(&disk, "k1").await, None);
}

#[tokio::test]
async fn purges_hold_at_once_and_for_what_is_asked_for_before() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(&settings(dir.path())).unwrap();
    let keys = [
        "http://a/u",
        "http://a/u\nvariant",
        "http://a/t",
        "http://a/p/x",
        "http://a/s",
        "http://a/rest",
    ];
    for (key, tag) in keys.iter().zip(["", "", "t", "", "", ""]) {
        disk.write(key.as_bytes(), &record(&disk, &format!("{tag}-"), vec![1]));
    }
    disk.write(b"http://a/t", &record(&disk, "t", vec![1]));
    written(&disk).await;
    let stamp = disk.stamp() + 1;
    // Nobody waits for these.
    drop(disk.purge(&Purge::Url((*b"http://a/u").into()), false, stamp));
    drop(disk.purge(&Purge::Tag((*b"t").into()), false, stamp));
    drop(disk.purge(&Purge::Prefix((*b"http://a/p/").into()), false, stamp));
    drop(disk.purge(&Purge::Url((*b"http://a/s").into()), true, stamp));
    for key in ["http://a/u", "http://a/t", "http://a/p/x"] {
        assert_eq!(read(&disk, key).await, None, "{key}");
    }
    assert_eq!(read(&disk, "http://a/s").await, Some((false, vec![1].into())));
    assert_eq!(read(&disk, "http://a/rest").await, Some((true, vec![1].into())));
    // Asked for before, and come since.
    disk.write(b"http://a/p/late", &record(&disk, "", vec![2]));
    disk.write(b"http://a/late", &record(&disk, "t", vec![2]));
    written(&disk).await;
    assert_eq!(
        (read(&disk, "http://a/p/late").await, read(&disk, "http://a/late").await),
        (None, None)
    );
    // Asked for since.
    let mut newer = record(&disk, "t", vec![3]);
    if let Record::Response(kept) = &mut newer {
        kept.stamp = stamp;
    }
    disk.write(b"http://a/p/x", &newer);
    written(&disk).await;
    assert_eq!(read(&disk, "http://a/p/x").await, Some((true, vec![3].into())));
    disk.purge(&Purge::All, false, stamp + 1).await.unwrap();
    assert_eq!(read(&disk, "http://a/p/x").await, None);
    assert_eq!(disk.report().entries, 0);
}

#[tokio::test]
async fn what_finds_no_room_is_counted_and_nothing_older_stays_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let small = Settings {
        memory: 1 << 20,
        ..settings(dir.path())
    };
    let disk = Disk::open(&small).unwrap();
    disk.write(b"k", &record(&disk, "t", vec![1; 100]));
    written(&disk).await;
    // More than may wait in line.
    disk.write(b"k", &record(&disk, "t", vec![2; 300_000]));
    written(&disk).await;
    assert_eq!((read(&disk, "k").await, disk.report().dropped), (None, 1));
    disk.write(b"k", &record(&disk, "t", vec![3; 100]));
    written(&disk).await;
    assert_eq!(read(&disk, "k").await, Some((true, vec![3; 100].into())));
    // Larger than any file may be: no failure, and not there.
    disk.write(b"k", &record(&disk, "t", vec![4; 9 << 20]));
    written(&disk).await;
    assert_eq!((read(&disk, "k").await, disk.report().dropped), (None, 1));
}

#[tokio::test]
async fn a_disk_that_is_taken_away_fails_loudly_and_a_purge_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::create_dir(&path).unwrap();
    let disk = Disk::open(&settings(&path)).unwrap();
    disk.write(b"k", &record(&disk, "t", vec![1]));
    written(&disk).await;
    std::fs::rename(&path, dir.path().join("away")).unwrap();
    for n in 0..5 {
        disk.write(format!("k{n}").as_bytes(), &record(&disk, "t", vec![1]));
        let _ = disk.purge(&Purge::Url((*b"nothing").into()), false, disk.stamp()).await;
    }
    let report = disk.report();
    assert!(!report.works && report.write_errors >= 3, "{report:?}");
    assert_eq!(disk.read(b"k", true).await.map(|_| ()), None);
    std::fs::rename(dir.path().join("away"), &path).unwrap();
    let until = Instant::now() + PATIENCE;
    while !disk.report().works {
        assert!(Instant::now() < until);
        disk.write(b"again", &record(&disk, "t", vec![1]));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    written(&disk).await;
    assert!(read(&disk, "again").await.is_some());
}

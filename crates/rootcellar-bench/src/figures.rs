//! scratch
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::layout::{HybridKind, LayoutKind, LooseKind, PackedKind};
use rootcellar_store::{DiskOptions, Durability, Verified};

use crate::candidate::OpenDisk;
use crate::{Candidate as _, CandidateKind as _, DiskCandidate, Random, Usage};

fn contents(n: usize, len: u64) -> Vec<Bytes> {
    let mut r = Random::new(7);
    (0..n).map(|_| r.bytes(len)).collect()
}

/// x
#[allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, clippy::too_many_lines)]
pub fn figures(dir: &Path, what: &str) {
    let fresh = || {
        let d = tempfile::tempdir_in(dir).unwrap();
        d
    };
    let kind = |l: Arc<dyn LayoutKind>| DiskCandidate::new(l);
    if what.contains("put") {
        let cs = contents(262_144, 4096);
        let hash = Usage::least(
            3,
            || (),
            |()| {
                for c in &cs {
                    std::hint::black_box(Digest::of(DigestFunction::Sha256, c));
                }
            },
        );
        println!("hash {:?} per blob {:?}", hash, hash.cpu / 262_144);
        for l in [
            Arc::new(HybridKind::default()) as Arc<dyn LayoutKind>,
            Arc::new(PackedKind),
            Arc::new(LooseKind),
        ] {
            let k = kind(l.clone());
            if l.name() == "loose" && what.contains("noloose") {
                continue;
            }
            let n = if l.name() == "loose" { 32_768 } else { 262_144 };
            let old = std::cell::RefCell::new(Vec::new());
            let u = Usage::least(
                6,
                || {
                    old.borrow_mut().clear();
                    let d = fresh();
                    (k.open(d.path()), d)
                },
                |(c, d)| {
                    for batch in cs[..n].chunks(1000) {
                        c.put_many(
                            batch
                                .iter()
                                .map(|b| Verified::of(DigestFunction::Sha256, b.clone()))
                                .collect(),
                        );
                    }
                    c.close();
                    old.borrow_mut().push(d);
                },
            );
            let per = u.cpu / n as u32;
            println!(
                "{} put incl hash+close {:?} per blob {:?} wall {:?} ratio {:.2}",
                l.name(),
                u,
                per,
                u.wall / n as u32,
                hash.cpu.as_secs_f64() / 262_144.0 / per.as_secs_f64()
            );
        }
    }
    if what.contains("get") {
        let cs = contents(262_144, 4096);
        for l in [
            Arc::new(HybridKind::default()) as Arc<dyn LayoutKind>,
            Arc::new(LooseKind),
        ] {
            let k = kind(l.clone());
            let n = if l.name() == "loose" { 20_000 } else { 262_144 };
            let d = fresh();
            let c = k.open(d.path());
            let mut ds = Vec::new();
            for batch in cs[..n].chunks(1000) {
                let v: Vec<Verified> = batch
                    .iter()
                    .map(|b| Verified::of(DigestFunction::Sha256, b.clone()))
                    .collect();
                ds.extend(v.iter().map(Verified::digest));
                c.put_many(v);
            }
            Random::new(3).shuffle(&mut ds);
            let u = Usage::least(
                if what.contains("long") { 40 } else { 5 },
                || (),
                |()| {
                    c.get_each(&ds);
                },
            );
            println!("{} get {:?} per {:?}", l.name(), u, u.cpu / n as u32);
        }
    }
    if what.contains("find") {
        let n = 1_000_000u64;
        let d = fresh();
        let c = kind(Arc::new(HybridKind::default())).open(d.path());
        let mut r = Random::new(5);
        let mut ds = Vec::new();
        for _ in 0..n / 1000 {
            let v: Vec<Verified> = (0..1000)
                .map(|_| Verified::of(DigestFunction::Sha256, r.bytes(64)))
                .collect();
            ds.extend(v.iter().map(Verified::digest));
            c.put_many(v);
        }
        let absent: Vec<Digest> = (0..n)
            .map(|_| Digest::of(DigestFunction::Sha256, &r.bytes(32)))
            .collect();
        let mut all: Vec<Digest> = ds.iter().chain(&absent).copied().collect();
        r.shuffle(&mut all);
        let u = Usage::least(
            3,
            || (),
            |()| {
                for b in all.chunks(10_000) {
                    c.find_missing(b);
                }
            },
        );
        println!("find {:?} per {:?}", u, u.cpu / 2_000_000);
        let (_, close) = Usage::of(|| drop(c));
        let (c, start) = Usage::of(|| kind(Arc::new(HybridKind::default())).open(d.path()));
        println!("drop {close:?} start {start:?}");
        drop(c);
    }
    if what.contains("always") {
        for n in [1usize, 64] {
            let d = fresh();
            let o = DiskOptions {
                durability: Durability::Always,
                scrub: None,
                ..DiskOptions::default()
            };
            let c = OpenDisk::open(d.path(), &o);
            let per = 400;
            let cs: Vec<Vec<Bytes>> = (0..n)
                .map(|t| {
                    let mut r = Random::new(100 + t as u64);
                    (0..per).map(|_| r.bytes(4096)).collect()
                })
                .collect();
            let (_, u) = Usage::of(|| {
                c.runtime.block_on(async {
                    let mut js = Vec::new();
                    for cs in cs.clone() {
                        let s = c.store.clone();
                        js.push(tokio::spawn(async move {
                            for b in cs {
                                use rootcellar_store::BlobStore as _;
                                s.put(Verified::of(DigestFunction::Sha256, b)).await.unwrap();
                            }
                        }));
                    }
                    for j in js {
                        j.await.unwrap();
                    }
                })
            });
            println!(
                "always {n} writers: {:?} per blob wall {:?} cpu {:?} commits {} {}",
                u,
                u.wall / (n * per) as u32,
                u.cpu / (n * per) as u32,
                c.store.statistics().counters.commits,
                c.store.statistics().counters.syncs
            );
        }
        for n in [1usize, 64] {
            let d = fresh();
            let per = 100;
            let cs: Vec<Vec<Bytes>> = (0..n)
                .map(|t| {
                    let mut r = Random::new(100 + t as u64);
                    (0..per).map(|_| r.bytes(4096)).collect()
                })
                .collect();
            let (_, u) = Usage::of(|| {
                std::thread::scope(|s| {
                    for (t, cs) in cs.iter().enumerate() {
                        let p = d.path().to_owned();
                        s.spawn(move || {
                            for (i, c) in cs.iter().enumerate() {
                                use std::io::Write;
                                std::hint::black_box(Digest::of(DigestFunction::Sha256, c));
                                let mut f = std::fs::File::create(p.join(format!("{t}-{i}"))).unwrap();
                                f.write_all(c).unwrap();
                                f.sync_all().unwrap();
                            }
                        });
                    }
                })
            });
            println!(
                "fsync {n} writers: {:?} per blob wall {:?} cpu {:?}",
                u,
                u.wall / (n * per) as u32,
                u.cpu / (n * per) as u32
            );
        }
    }
    if what.contains("million") {
        for n in [1_000_000u64, 5_000_000] {
            let d = fresh();
            let o = DiskOptions {
                scrub: None,
                ..DiskOptions::default()
            };
            let c = OpenDisk::open(d.path(), &o);
            let mut r = Random::new(5);
            let mut worst = Duration::ZERO;
            let t = std::time::Instant::now();
            for _ in 0..n / 1000 {
                let v: Vec<Verified> = (0..1000)
                    .map(|_| Verified::of(DigestFunction::Sha256, r.bytes(32)))
                    .collect();
                let (_, u) = Usage::of(|| c.put_many(v));
                worst = worst.max(u.wall);
            }
            let s = c.store.statistics();
            println!(
                "{n}: {:?} index bytes per blob {:.1}, worst batch {worst:?} disk {}",
                t.elapsed(),
                s.index_bytes as f64 / s.blobs as f64,
                s.bytes
            );
            drop(c);
            for _ in 0..3 {
                let (c, start) = Usage::of(|| OpenDisk::open(d.path(), &o));
                let s = c.store.statistics();
                println!(
                    "start {start:?} index {:.1} doubt {}",
                    s.index_bytes as f64 / s.blobs as f64,
                    s.doubtful_blobs
                );
                drop(c);
            }
        }
    }
    if what.contains("large") {
        let c64 = contents(1, 64 << 20).remove(0);
        let plain = Usage::least(5, fresh, |d| {
            Digest::of(DigestFunction::Sha256, &c64);
            std::fs::write(d.path().join("x"), &c64).unwrap();
        });
        let k = kind(Arc::new(HybridKind::default()));
        let u = Usage::least(
            5,
            || {
                let d = fresh();
                (OpenDisk::open(d.path(), &k.options), d)
            },
            |(c, _d)| {
                use rootcellar_store::{BlobStore as _, LocalStore as _};
                let digest = Digest::of(DigestFunction::Sha256, b"x");
                let _ = digest;
                let dg = DG.get_or_init(|| Digest::of(DigestFunction::Sha256, &c64));
                c.runtime.block_on(async {
                    let mut i = c.store.spool().ingest(*dg).unwrap();
                    for p in 0..(c64.len() >> 18) {
                        i.write(c64.slice(p << 18..(p + 1) << 18)).await.unwrap();
                    }
                    c.store.put(i.finish().unwrap()).await.unwrap();
                });
            },
        );
        println!(
            "large plain {plain:?} ours {u:?} ratio cpu {:.2}",
            plain.cpu.as_secs_f64() / u.cpu.as_secs_f64()
        );
    }
    let _ = Duration::ZERO;
}
static DG: std::sync::OnceLock<Digest> = std::sync::OnceLock::new();

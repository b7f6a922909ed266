//! Bytes that rounding costs, by mix: arithmetic over drawn sizes, nothing is stored.

use crate::mix::{Mix, Random};

const DRAWN: usize = 200_000;
const THRESHOLDS: [u64; 6] = [1 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];
const INODE_BYTES: u64 = 256;

pub fn run() {
    println!("Part of the blobs / of the bytes that a threshold packs, percent\n");
    println!(
        "| mix | mean size | 1 KiB | 4 KiB | 8 KiB | 16 KiB | 32 KiB | 64 KiB |\n|---|---|---|---|---|---|---|---|"
    );
    let mixes: Vec<(String, Vec<u64>)> = Mix::all()
        .iter()
        .map(|mix| (mix.name().to_owned(), drawn(mix)))
        .collect();
    for (name, sizes) in &mixes {
        let sum: u64 = sizes.iter().sum();
        print!("| {name} | {} |", sum / sizes.len() as u64);
        for threshold in THRESHOLDS {
            let packed = || sizes.iter().filter(|size| **size <= threshold);
            let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole as f64;
            print!(
                " {:.0} / {:.1} |",
                percent(packed().count() as u64, DRAWN as u64),
                percent(packed().sum(), sum)
            );
        }
        println!();
    }
    println!("\nBytes on the disk per stored byte: packed records of up to 16 KiB by alignment, and loose files\n");
    println!("| mix | packed: 64 | 512 | 4096 | loose, + inode | whole mix: loose | 16 KiB, 512 | 16 KiB, 4096 |");
    println!("|---|---|---|---|---|---|---|---|");
    for (name, sizes) in &mixes {
        let (small, large): (Vec<u64>, Vec<u64>) = sizes.iter().partition(|size| **size <= 16 << 10);
        let rounded = |sizes: &[u64], to: u64| sizes.iter().map(|size| size.next_multiple_of(to)).sum::<u64>() as f64;
        let loose = |sizes: &[u64]| rounded(sizes, 4096) + (sizes.len() as u64 * INODE_BYTES) as f64;
        let (packed, all) = (small.iter().sum::<u64>() as f64, sizes.iter().sum::<u64>() as f64);
        println!(
            "| {name} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} |",
            rounded(&small, 64) / packed,
            rounded(&small, 512) / packed,
            rounded(&small, 4096) / packed,
            loose(&small) / packed,
            loose(sizes) / all,
            (rounded(&small, 512) + loose(&large)) / all,
            (rounded(&small, 4096) + loose(&large)) / all,
        );
    }
}

fn drawn(mix: &Mix) -> Vec<u64> {
    let mut random = Random::new(1);
    (0..DRAWN).map(|_| mix.size(&mut random)).collect()
}

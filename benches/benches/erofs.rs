//! What it costs to write the image of a tree of 100,000 files.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rootcellar_stage::erofs::{Attributes, Source, Tree, encode};

const FILES: usize = 100_000;
const FILES_IN_A_DIRECTORY: usize = 10;
/// The part of the files that lie by themselves, as in `deb-root`.
const LOOSE_PART: usize = 8;

const ATTRIBUTES: Attributes = Attributes {
    mode: 0o644,
    mtime: 1_321_009_871,
    mtime_nanos: 0,
};

/// Names of a tree, and the paths of what lies by itself.
struct Names {
    directories: Vec<String>,
    files: Vec<String>,
    paths: Vec<String>,
}

impl Names {
    fn new() -> Self {
        Self {
            directories: (0..FILES / FILES_IN_A_DIRECTORY)
                .map(|number| format!("package-{number}"))
                .collect(),
            files: (0..FILES_IN_A_DIRECTORY)
                .map(|number| format!("some-module-{number}.js"))
                .collect(),
            paths: (0..FILES / LOOSE_PART)
                .map(|number| format!("/sha256/{:02x}/{number:062x}", number % 256))
                .collect(),
        }
    }

    fn tree(&self) -> Tree<'_> {
        let mut tree = Tree::new(ATTRIBUTES);
        let mut number = 0_usize;
        for directory in &self.directories {
            let directory = tree.add_directory(Tree::ROOT, directory, ATTRIBUTES);
            for file in &self.files {
                let source = match number % LOOSE_PART {
                    0 => Source::Redirect(&self.paths[number / LOOSE_PART]),
                    _ => Source::Device {
                        number: 1,
                        sector: u32::try_from(number * 8).expect("a small pack"),
                    },
                };
                tree.add_file(directory, file, ATTRIBUTES, 4000, source);
                number += 1;
            }
        }
        tree
    }
}

fn image(c: &mut Criterion) {
    let names = Names::new();
    let mut group = c.benchmark_group("erofs image");
    group.throughput(Throughput::Elements(FILES as u64));
    group.sample_size(20);
    group.bench_function("walk and write", |b| b.iter(|| encode(names.tree())));
    group.finish();
}

criterion_group!(benches, image);
criterion_main!(benches);

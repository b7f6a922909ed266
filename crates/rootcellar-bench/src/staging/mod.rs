//! What staging costs: a root of tens of thousands of files, beside what others do with one.
//!
//! Everything is measured in one run, on one disk, with warm caches: processor time for what is long, and medians of time on the
//! clock for what is short.

mod farms;
mod tree;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rootcellar_digest::Digest;
use rootcellar_proto::reapi;
use rootcellar_reapi::{Outputs, RelPath};
use rootcellar_stage::erofs::{self, Attributes, Source, Tree};
use rootcellar_stage::{
    CopyStager, ImageLimits, Means, OverlayOptions, OverlayStager, Owner, StageOptions, StagedRoot, Stager,
    StagerOptions,
};
use rootcellar_store::layout::LooseKind;
use rootcellar_store::{LocalStore as _, Location};

use self::farms::Farm;
use self::tree::{Root, VARIANTS};
use crate::Candidate as _;
use crate::candidate::OpenDisk;
use crate::figures::{Ground, hybrid, options};
use crate::measure::{count, micros};
use crate::report::{Figure, Goal};
use crate::usage::Usage;

const FILES: usize = 50_000;
const DIRECTORIES: usize = 5000;
const IMAGE_FILES: usize = 100_000;
const CACHED_RUNS: usize = 200;
const CAPTURES: usize = 30;
const RUNS: usize = 5;
/// Each makes tens of thousands of files.
const FARM_RUNS: usize = 2;

/// What is asked, by a name for the command line.
pub const QUESTIONS: [&str; 5] = ["image", "cached", "uncached", "farms", "capture"];

/// Measures staging with mounts made by `means`, for this process's own user, and tells `say` what is going on. Of [`QUESTIONS`] those
/// are answered that `is_asked`.
///
/// # Errors
/// Why overlays cannot be had on this disk.
///
/// # Panics
/// If the disk fails.
pub fn figures(
    ground: &Ground<'_>,
    means: Means,
    is_asked: impl Fn(&str) -> bool,
    mut say: impl FnMut(&str),
) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    if is_asked("image") {
        say("staging: an image in memory");
        figures.push(image(ground));
    }
    let bench = Bench::new(ground, means, &mut say)?;
    if is_asked("cached") {
        say("staging: a root that is staged again and again");
        figures.extend(bench.cached());
    }
    if is_asked("uncached") || is_asked("farms") {
        say("staging: a root that was never staged");
        let (figure, cpu) = bench.uncached();
        figures.push(figure);
        if is_asked("farms") {
            figures.extend(bench.against_farms(cpu, ground, &mut say));
        }
    }
    if is_asked("capture") {
        say("staging: what an action left");
        figures.extend(bench.capture());
    }
    Ok(figures)
}

/// A root in a store.
struct Bench {
    disk: OpenDisk,
    root: Root,
    dir: tempfile::TempDir,
    means: Means,
}

/// Milliseconds of CPU.
struct FarmCost {
    farm: Farm,
    stage: f64,
    remove: f64,
}

impl Bench {
    fn new(ground: &Ground<'_>, means: Means, say: &mut impl FnMut(&str)) -> Result<Self, String> {
        let dir = ground.fresh();
        let disk = OpenDisk::open(&dir.path().join("store"), &hybrid().options);
        let probed = rootcellar_stage::probe_overlay(dir.path(), &means, Owner::current());
        disk.runtime.block_on(probed).map_err(|reason| reason.to_string())?;
        say("staging: making a root");
        let mut root = Root::new(ground.shrunk(FILES), ground.shrunk(DIRECTORIES));
        for blobs in std::mem::take(&mut root.blobs).chunks(1000) {
            disk.put_many(blobs.to_vec());
        }
        Ok(Self { disk, root, dir, means })
    }

    fn overlay(&self, name: &str) -> OverlayStager {
        let options = OverlayOptions {
            roots: StagerOptions::default(),
            images: ImageLimits::default(),
            means: self.means.clone(),
        };
        OverlayStager::open(self.disk.store.clone(), self.dir.path().join(name), options).expect("a stager opens")
    }

    fn stage(&self, stager: &dyn Stager) -> Box<dyn StagedRoot> {
        self.stage_root(stager, self.root.digest)
    }

    fn stage_root(&self, stager: &dyn Stager, root: Digest) -> Box<dyn StagedRoot> {
        let options = StageOptions {
            owner: Owner::current(),
            working_directory: RelPath::root(),
            directories: BTreeSet::new(),
        };
        let staged = self.disk.runtime.block_on(stager.stage(root, options));
        staged.expect("the root is staged")
    }

    fn unstage(&self, root: Box<dyn StagedRoot>) {
        self.disk.runtime.block_on(root.remove()).expect("the root is removed");
    }

    fn cached(&self) -> Vec<Figure> {
        let stager = self.overlay("cached");
        self.unstage(self.stage(&stager));
        let mut times = Vec::new();
        let (mut staging, mut removing) = (Vec::new(), Vec::new());
        for _ in 0..CACHED_RUNS {
            let begin = Instant::now();
            let root = self.stage(&stager);
            let staged = begin.elapsed();
            self.unstage(root);
            times.push(begin.elapsed());
            staging.push(staged);
            removing.push(begin.elapsed() - staged);
        }
        let question = format!(
            "a root of {} files that was staged before: stage and remove, ms",
            self.root.files.len()
        );
        let detail = format!(
            "median of {CACHED_RUNS}: stage {:.2} ms, remove {:.2} ms; what an action waits for is the first",
            millis(median(&mut staging)),
            millis(median(&mut removing))
        );
        let (middle, least) = (median(&mut times), *times.iter().min().expect("it ran"));
        vec![
            Figure {
                question: format!("{question}, median"),
                value: millis(middle),
                goal: Goal::AtMost(1.5),
                detail: detail.clone(),
            },
            Figure {
                question: format!("{question}, least"),
                value: millis(least),
                goal: Goal::AtMost(0.7),
                detail,
            },
        ]
    }

    /// Also milliseconds of CPU.
    fn uncached(&self) -> (Figure, f64) {
        let mut number = 0;
        let fresh = || {
            number += 1;
            self.overlay(&format!("uncached-{number}"))
        };
        let mut staged = Vec::new();
        let cold = Usage::least(RUNS, fresh, |stager| {
            let root = self.stage(&stager);
            staged.push((root, stager));
        });
        staged.into_iter().for_each(|(root, _)| self.unstage(root));

        let stager = self.overlay("variants");
        self.unstage(self.stage(&stager));
        let mut variants = self.root.variants.iter();
        let mut staged = Vec::new();
        let next = || *variants.next().expect("a variant for each run");
        let warm = Usage::least(VARIANTS, next, |root| staged.push(self.stage_root(&stager, root)));
        assert_eq!(stager.image_statistics().made, 1 + VARIANTS as u64);
        staged.into_iter().for_each(|root| self.unstage(root));

        let (files, directories) = (self.root.files.len(), self.root.directories.len());
        let a_file = |usage: Usage| micros(usage.cpu) / count(files as u64);
        let figure = Figure {
            question: format!("a root of {files} files never staged, blobs here: stage, ms of CPU"),
            value: millis(warm.cpu),
            goal: Goal::AtMost(80.0),
            detail: format!(
                "{directories} directories, known from other roots that are kept; {:.2} us of CPU a file. With none of them known: {:.1} ms, {:.2} us",
                a_file(warm),
                millis(cold.cpu),
                a_file(cold)
            ),
        };
        (figure, millis(warm.cpu))
    }

    fn against_farms(&self, cpu: f64, ground: &Ground<'_>, say: &mut impl FnMut(&str)) -> Option<Figure> {
        let farms = self.farms(ground, say);
        let told = |cost: &FarmCost| {
            format!(
                "{} {:.0} ms and {:.0} to remove them",
                cost.farm.name(),
                cost.stage,
                cost.remove
            )
        };
        let others: Vec<String> = farms.iter().map(told).collect();
        let hard_links = farms.iter().find(|cost| cost.farm == Farm::HardLink);
        hard_links.map(|cost| Figure {
            question: "the same with hard links, against that".to_owned(),
            value: cost.stage / cpu,
            goal: Goal::AtLeast(40.0),
            detail: format!(
                "CPU on this disk: {}; with removal, hard links against a mount {:.0}",
                others.join(", "),
                (cost.stage + cost.remove) / cpu
            ),
        })
    }

    /// What each costs that this disk can do.
    fn farms(&self, ground: &Ground<'_>, say: &mut impl FnMut(&str)) -> Vec<FarmCost> {
        let dir = ground.fresh();
        farms::spread(dir.path());
        let loose = OpenDisk::open(&dir.path().join("store"), &options(Arc::new(LooseKind)));
        let sources = self.sources(&loose);
        let mut costs = Vec::new();
        for farm in Farm::ALL.into_iter().filter(|farm| farm.works(dir.path())) {
            say(&format!("staging: {}", farm.name()));
            let mut made = Vec::new();
            let fresh = || {
                tempfile::tempdir_in(dir.path())
                    .expect("a directory can be made")
                    .keep()
            };
            let stage = Usage::least(FARM_RUNS, fresh, |to| {
                farm.stage(&self.root, &sources, &to);
                made.push(to);
            });
            let next = || made.pop().expect("one for each run");
            let remove = Usage::least(FARM_RUNS, next, |from| {
                fs::remove_dir_all(from).expect("what was made can be removed");
            });
            costs.push(FarmCost {
                farm,
                stage: millis(stage.cpu),
                remove: millis(remove.cpu),
            });
        }
        costs
    }

    /// Puts all files into a store that has a file for each, and tells which.
    fn sources(&self, loose: &OpenDisk) -> Vec<PathBuf> {
        let digests: Vec<Digest> = self.root.files.iter().map(|(_, digest)| *digest).collect();
        for digests in digests.chunks(1000) {
            let contents = self
                .disk
                .runtime
                .block_on(rootcellar_store::BlobStore::get_many(&*self.disk.store, digests));
            let blobs = digests.iter().zip(contents).map(|(digest, content)| {
                rootcellar_store::Verified::check(*digest, content.expect("it was put")).expect("it is whole")
            });
            loose.put_many(blobs.collect());
        }
        let path = |digest: &Digest| match loose.store.locate(*digest).expect("the blob is there") {
            Location::Loose { path } => path.to_path_buf(),
            _ => unreachable!("this layout has files"),
        };
        digests.iter().map(path).collect()
    }

    fn capture(&self) -> Vec<Figure> {
        let whole = whole_root();
        let stager = self.overlay("captured");
        // What is known of a tree after its first capture stays with its image.
        self.capture_once(&stager, &whole);
        let mut times: Vec<Duration> = (0..CAPTURES).map(|_| self.capture_once(&stager, &whole)).collect();
        let middle = median(&mut times);
        let copying = CopyStager::open(
            self.disk.store.clone(),
            self.dir.path().join("copied"),
            StagerOptions::default(),
        );
        let copied = self.capture_once(&copying.expect("a stager opens"), &whole);
        let files = self.root.files.len();
        vec![
            Figure {
                question: format!("capture of a whole root of {files} files, one changed, ms"),
                value: millis(middle),
                goal: Goal::AtMost(5.0),
                detail: format!("median of {CAPTURES}, DIRECTORY_ONLY; the changed file included"),
            },
            Figure {
                question: "the same by reading every file again, against that".to_owned(),
                value: copied.as_secs_f64() / middle.as_secs_f64(),
                goal: Goal::AtLeast(150.0),
                detail: format!("{:.0} ms, of a copied root that is in memory", millis(copied)),
            },
        ]
    }

    fn capture_once(&self, stager: &dyn Stager, whole: &Outputs) -> Duration {
        let root = self.stage(stager);
        let (path, _) = &self.root.files[self.root.files.len() / 2];
        fs::write(root.path().join(path), "changed").expect("a file of the root can be written");
        let begin = Instant::now();
        let captured = self
            .disk
            .runtime
            .block_on(root.capture(whole))
            .expect("the root is captured");
        let time = begin.elapsed();
        assert_eq!(captured.directories.len(), 1);
        self.unstage(root);
        time
    }
}

/// An image from a tree that is in memory.
fn image(ground: &Ground<'_>) -> Figure {
    let files = ground.shrunk(IMAGE_FILES);
    let names: Vec<String> = (0..10).map(|number| format!("some-module-{number}.js")).collect();
    let directories: Vec<String> = (0..files / 10).map(|number| format!("package-{number}")).collect();
    let paths: HashMap<usize, String> = (0..files)
        .step_by(8)
        .map(|number| (number, format!("/sha256/{:02x}/{number:062x}", number % 256)))
        .collect();
    let write = |()| {
        let attributes = Attributes {
            mode: 0o644,
            mtime: 1_321_009_871,
            mtime_nanos: 0,
        };
        let (mut tree, mut number) = (Tree::new(attributes), 0_usize);
        for directory in &directories {
            let directory = tree.add_directory(Tree::ROOT, directory, attributes);
            for name in &names {
                let sector = u32::try_from(number * 8).expect("a small pack");
                let source = paths
                    .get(&number)
                    .map_or(Source::Device { number: 1, sector }, |path| Source::Redirect(path));
                tree.add_file(directory, name, attributes, 4000, source);
                number += 1;
            }
        }
        std::hint::black_box(erofs::encode(tree));
    };
    let usage = Usage::least(RUNS, || (), write);
    Figure {
        question: format!("an image of {files} files, tree in memory: us of CPU a file"),
        value: micros(usage.cpu) / count(files as u64),
        goal: Goal::AtMost(1.0),
        detail: "walking the tree included; one file in eight lies by itself".to_owned(),
    }
}

fn whole_root() -> Outputs {
    let command = reapi::Command {
        output_paths: vec![String::from(".")],
        output_directory_format: reapi::command::OutputDirectoryFormat::DirectoryOnly.into(),
        ..reapi::Command::default()
    };
    Outputs::parse(&command, &RelPath::root()).expect("the root is an output")
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

//! Two input roots, and a store that holds their blobs: small ones in packs, the others as files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::image::{Node, Source, Writer};
use crate::mix::{Mix, Random};

const FILES_IN_DIR: usize = 10;
const DIRS_IN_DIR: usize = 8;
/// Every tenth file is another one in the second root.
const CHANGED: usize = 10;
/// Large blobs are cut here: they are loose whatever the threshold, and only cost time.
const SIZE_MAX: u64 = 1 << 20;

/// The paths of a root's files, in the order of a walk, and their blobs.
pub struct Root(pub Vec<(String, usize)>);

impl Root {
    pub fn new(files: usize, is_second: bool) -> Self {
        let file = |at: usize| {
            let is_changed = is_second && at.is_multiple_of(CHANGED);
            let blob = if is_changed { files + at / CHANGED } else { at };
            (format!("{}source_{:04}.h", dir(at / FILES_IN_DIR), at % 1000), blob)
        };
        Self((0..files).map(file).collect())
    }

    pub fn tree(&self, places: &[Source], sizes: &[u64]) -> Node {
        let mut root = BTreeMap::new();
        for (path, blob) in &self.0 {
            let mut dir = &mut root;
            let (dirs, name) = path.rsplit_once('/').unwrap_or(("", path));
            for step in dirs.split('/').filter(|step| !step.is_empty()) {
                let next = dir.entry(step.to_owned()).or_insert_with(|| Node::Dir(BTreeMap::new()));
                let Node::Dir(children) = next else {
                    unreachable!("a file and a directory of one name")
                };
                dir = children;
            }
            dir.insert(
                name.to_owned(),
                Node::File {
                    size: sizes[*blob],
                    source: places[*blob].clone(),
                },
            );
        }
        Node::Dir(root)
    }
}

fn dir(number: usize) -> String {
    if number == 0 {
        return String::new();
    }
    format!("{}component_{}/", dir((number - 1) / DIRS_IN_DIR), number)
}

/// The sizes of both roots' blobs.
pub fn sizes(mix: &Mix, files: usize) -> Vec<u64> {
    let mut random = Random::new(7);
    let blobs = files + files / CHANGED;
    (0..blobs).map(|_| mix.size(&mut random).min(SIZE_MAX)).collect()
}

#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The largest blob that is packed.
    pub packed_max: u64,
    pub align: u64,
    pub pack_bytes: u64,
}

pub struct Store {
    pub dir: PathBuf,
    pub packs: Vec<File>,
    pub places: Vec<Source>,
    pub stored_bytes: u64,
    pub shape: Shape,
    /// What every blob begins with.
    pub noise: Vec<u8>,
}

impl Store {
    /// Stores every blob, the first root's in the order of a walk.
    pub fn fill(dir: &Path, sizes: &[u64], shape: Shape) -> io::Result<Self> {
        fs::create_dir_all(dir.join("loose"))?;
        fs::create_dir_all(dir.join("packs"))?;
        fs::create_dir_all(dir.join("tmp"))?;
        for number in 0..256 {
            fs::create_dir_all(dir.join(format!("loose/{number:02x}")))?;
        }
        let noise: Vec<u8> = {
            let mut random = Random::new(3);
            (0..SIZE_MAX / 8)
                .flat_map(|_| random.below(u64::MAX).to_le_bytes())
                .collect()
        };
        let mut store = Self {
            dir: dir.to_owned(),
            packs: vec![],
            places: vec![],
            stored_bytes: 0,
            shape,
            noise,
        };
        let (mut pack, mut end) = (None, u64::MAX);
        for (blob, size) in sizes.iter().enumerate() {
            store.stored_bytes += size;
            if *size > shape.packed_max {
                let name = loose_name(blob);
                fs::write(dir.join("tmp/new"), &store.noise[..*size as usize])?;
                fs::rename(dir.join("tmp/new"), dir.join("loose").join(&name))?;
                store.places.push(Source::Path(format!("/{name}")));
                continue;
            }
            let padded = size.next_multiple_of(shape.align);
            if end.saturating_add(padded) > shape.pack_bytes {
                (pack, end) = (Some(store.new_pack()?), 0);
            }
            let out: &mut BufWriter<File> = pack.as_mut().expect("one was made");
            out.write_all(&store.noise[..*size as usize])?;
            out.write_all(&[0; 4096][..(padded - size) as usize])?;
            store.places.push(Source::Device {
                device: store.packs.len() as u16 - 1,
                at: end,
            });
            end += padded;
        }
        if let Some(mut pack) = pack {
            pack.flush()?;
        }
        Ok(store)
    }

    fn new_pack(&mut self) -> io::Result<BufWriter<File>> {
        let path = self.dir.join(format!("packs/{:08}.data", self.packs.len()));
        let out = File::create(&path)?;
        self.packs.push(File::open(path)?);
        Ok(BufWriter::with_capacity(1 << 20, out))
    }

    /// The image of a root.
    pub fn image(&self, root: &Root, sizes: &[u64]) -> Vec<u8> {
        let block_bits = self.shape.align.trailing_zeros() as u8;
        Writer {
            block_bits,
            devices: self.packs.len() as u16,
        }
        .write(&root.tree(&self.places, sizes))
    }

    /// Bytes on the disk, and files.
    pub fn disk(&self) -> io::Result<(u64, u64)> {
        let (mut bytes, mut files, mut dirs) = (0, 0, vec![self.dir.join("loose"), self.dir.join("packs")]);
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                let status = entry.metadata()?;
                bytes += status.blocks() * 512;
                if status.is_dir() {
                    dirs.push(entry.path());
                } else {
                    files += 1;
                }
            }
        }
        Ok((bytes, files))
    }
}

/// Any 64 hexadecimal digits will do, if they are spread as a hash's are.
fn loose_name(blob: usize) -> String {
    let mut random = Random::new(blob as u64 + 99);
    random.below(2);
    let words: Vec<u64> = (0..4).map(|_| random.below(u64::MAX)).collect();
    format!(
        "{:02x}/{:016x}{:016x}{:016x}{:016x}",
        words[0] >> 56,
        words[0],
        words[1],
        words[2],
        words[3]
    )
}

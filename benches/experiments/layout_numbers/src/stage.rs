//! What a staged root costs, by threshold, alignment and pack size: image, mount, first use cold and warm, second
//! use.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::measure::{Cost, Each, cached_bytes, cost, drop_caches, median, slab_bytes};
use crate::mix::{Mix, Random};
use crate::mount::{Overlay, c_path, erofs, image_file};
use crate::store::{Root, Shape, Store, sizes};

/// A root as it is mounted.
struct Staged {
    erofs: OwnedFd,
    overlay: Overlay,
    build: Cost,
    mount: Cost,
    image_bytes: usize,
}

fn stage(store: &Store, root: &Root, sizes: &[u64]) -> io::Result<Staged> {
    let (build, image) = cost(|| store.image(root, sizes));
    let (mount, mounted) = cost(|| {
        let image = image_file(&store.dir, &image)?;
        let erofs = erofs(&image, &store.packs)?;
        let overlay = Overlay::mount(&erofs, &store.dir)?;
        io::Result::Ok((erofs, overlay))
    });
    let (erofs, overlay) = mounted?;
    Ok(Staged {
        erofs,
        overlay,
        build,
        mount,
        image_bytes: image.len(),
    })
}

fn stat_all(root: &OwnedFd, paths: &[(std::ffi::CString, u64)]) {
    for (path, size) in paths {
        let status = rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW).expect("a staged file");
        assert_eq!(status.st_size as u64, *size);
    }
}

fn open_at(root: &OwnedFd, path: &std::ffi::CStr) -> File {
    rustix::fs::openat(root, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .expect("a staged file")
        .into()
}

fn read_all(root: &OwnedFd, paths: &[(std::ffi::CString, u64)], expected: &[u8]) {
    let mut buffer = vec![0; 2 << 20];
    for (path, size) in paths {
        let size = *size as usize;
        let mut file = open_at(root, path);
        let (mut end, mut read) = (0, 1);
        while read > 0 {
            read = file.read(&mut buffer[end..]).expect("a stored blob");
            end += read;
        }
        assert_eq!(end, size);
        let edge = size.min(64);
        assert!(buffer[..edge] == expected[..edge] && buffer[size - edge..size] == expected[size - edge..size]);
    }
}

/// Costs of one use of a root, each per file.
struct Use {
    build: Each,
    mount_us: f64,
    stat: Each,
    first: Each,
    second: Each,
    unmount: Each,
    image_bytes: usize,
}

fn use_root(store: &Store, root: &Root, sizes: &[u64], is_random: bool) -> io::Result<Use> {
    let mut paths: Vec<_> = root.0.iter().map(|(path, blob)| (c_path(path), sizes[*blob])).collect();
    if is_random {
        Random::new(5).shuffle(&mut paths);
    }
    let expected = &store.noise;
    let staged = stage(store, root, sizes)?;
    let mounted = staged.overlay.root();
    let (stat, ()) = cost(|| stat_all(mounted, &paths));
    let (first, ()) = cost(|| read_all(mounted, &paths, expected));
    let (second, ()) = cost(|| read_all(mounted, &paths, expected));
    let Staged {
        erofs,
        overlay,
        build,
        mount,
        image_bytes,
    } = staged;
    let (unmount, ()) = cost(|| drop((overlay, erofs)));
    Ok(Use {
        build: build.each(root.0.len()),
        mount_us: mount.wall.as_secs_f64() * 1e6,
        stat: stat.each(root.0.len()),
        first: first.each(root.0.len()),
        second: second.each(root.0.len()),
        unmount: unmount.each(root.0.len()),
        image_bytes,
    })
}

/// The table of thresholds, alignments and pack sizes.
pub fn run(scratch: &Path, mix: &str, shapes: &[Shape], runs: usize, files: usize) -> io::Result<()> {
    println!("mix {mix}, {files} files; us per file: wall (CPU); mount: us for the whole root\n");
    head();
    table(scratch, &Mix::named(mix), shapes, runs, files)
}

/// Roots of files of one size each: all packed, and all loose.
pub fn one_size(scratch: &Path, runs: usize, files: usize) -> io::Result<()> {
    println!("{files} files of one size, packed and loose; us per file: wall (CPU)\n");
    head();
    for size in [512, 1024, 4096, 8192, 16_384, 32_768, 65_536] {
        let shapes = [size, 0].map(|packed_max| Shape {
            packed_max,
            align: 512,
            pack_bytes: 256 << 20,
        });
        println!("| **{size}** |");
        table(
            scratch,
            &Mix::Tree {
                name: String::new(),
                sizes: vec![size],
            },
            &shapes,
            runs,
            files,
        )?;
    }
    Ok(())
}

fn head() {
    println!(
        "| packed up to, align, pack | devices | image B/file | build | mount | stat cold | read cold, walk | \
         read cold, random | stat warm | read warm | read again | unmount | fill | disk B per stored B | files |"
    );
    println!("|{}", "---|".repeat(15));
}

fn table(scratch: &Path, mix: &Mix, shapes: &[Shape], runs: usize, files: usize) -> io::Result<()> {
    let (sizes, root) = (sizes(mix, files), Root::new(files, false));
    for shape in shapes {
        let dir = scratch.join("store");
        let (fill, store) = cost(|| Store::fill(&dir, &sizes, *shape));
        let store = store?;
        let line = line(&store, &root, &sizes, runs)?;
        let (disk, files) = store.disk()?;
        let label = format!(
            "{} B, {}, {} MiB",
            shape.packed_max,
            shape.align,
            shape.pack_bytes >> 20
        );
        println!(
            "| {label} | {} | {line} | {} | {:.3} | {files} |",
            store.packs.len(),
            fill.each(sizes.len()),
            (disk + files * 256) as f64 / store.stored_bytes as f64,
        );
        drop(store);
        fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

fn line(store: &Store, root: &Root, sizes: &[u64], runs: usize) -> io::Result<String> {
    let (mut walks, mut randoms, mut warms) = (vec![], vec![], vec![]);
    for _ in 0..runs {
        drop_caches();
        walks.push(use_root(store, root, sizes, false)?);
        drop_caches();
        randoms.push(use_root(store, root, sizes, true)?);
        warms.push(use_root(store, root, sizes, false)?);
    }
    let of = |uses: &[Use], pick: fn(&Use) -> Each| median(&uses.iter().map(pick).collect::<Vec<_>>());
    let mount = of(&warms, |one| Each {
        wall: one.mount_us,
        cpu: 0.0,
    })
    .wall;
    Ok(format!(
        "{:.0} | {} | {mount:.0} | {} | {} | {} | {} | {} | {} | {}",
        walks[0].image_bytes as f64 / root.0.len() as f64,
        of(&warms, |one| one.build),
        of(&walks, |one| one.stat),
        of(&walks, |one| one.first),
        of(&randoms, |one| one.first),
        of(&warms, |one| one.stat),
        of(&warms, |one| one.first),
        of(&warms, |one| one.second),
        of(&warms, |one| one.unmount),
    ))
}

/// What idle images hold: two roots, the first one mounted twice.
pub fn memory(scratch: &Path, mix: &str, shapes: &[Shape], files: usize) -> io::Result<()> {
    const MIB: f64 = (1 << 20) as f64;
    let sizes = sizes(&Mix::named(mix), files);
    let (first, second) = (Root::new(files, false), Root::new(files, true));
    println!("mix {mix}; MiB\n");
    println!(
        "| packed up to | step | pages of packs | of loose files | of the images' files | \
         slab: erofs | overlay | dentries | ext4 inodes |"
    );
    println!("|{}", "---|".repeat(9));
    for shape in shapes {
        let dir = scratch.join("store");
        let store = Store::fill(&dir, &sizes, *shape)?;
        drop_caches();
        let slabs = || [&["erofs_inode"][..], &["ovl_inode"], &["dentry"], &["ext4_inode_cache"]].map(slab_bytes);
        let before = slabs();
        let mut mounted: Vec<(Staged, &Root)> = vec![];
        let show = |step: &str, mounts: &[(&OwnedFd, &Root)]| -> io::Result<()> {
            let mut bytes = [0; 3];
            for pack in &store.packs {
                bytes[0] += cached_bytes(pack)?;
            }
            for place in &store.places {
                if let crate::image::Source::Path(path) = place {
                    bytes[1] += cached_bytes(&File::open(dir.join("loose").join(&path[1..]))?)?;
                }
            }
            for (mount, root) in mounts {
                for (path, _) in &root.0 {
                    bytes[2] += cached_bytes(&open_at(mount, &c_path(path)))?;
                }
            }
            let [packs, loose, images] = bytes.map(|bytes| bytes as f64 / MIB);
            let now = slabs();
            let grown = |kind: usize| (now[kind] as f64 - before[kind] as f64) / MIB;
            println!(
                "| {} | {step} | {packs:.1} | {loose:.1} | {images:.1} | {:.1} | {:.1} | {:.1} | {:.1} |",
                shape.packed_max,
                grown(0),
                grown(1),
                grown(2),
                grown(3),
            );
            Ok(())
        };
        show("nothing mounted (loose files looked at)", &[])?;
        for (step, root) in [
            ("first root read", &first),
            ("second root too", &second),
            ("first root once more", &first),
        ] {
            let paths: Vec<_> = root.0.iter().map(|(path, blob)| (c_path(path), sizes[*blob])).collect();
            let staged = stage(&store, root, &sizes)?;
            read_all(staged.overlay.root(), &paths, &store.noise);
            mounted.push((staged, root));
            let mounts: Vec<_> = mounted.iter().map(|(staged, root)| (&staged.erofs, *root)).collect();
            show(step, &mounts)?;
        }
        let idle: Vec<_> = mounted.into_iter().map(|(staged, root)| (staged.erofs, root)).collect();
        let mounts: Vec<_> = idle.iter().map(|(erofs, root)| (erofs, *root)).collect();
        show("overlays unmounted, images kept", &mounts)?;
        drop(mounts);
        drop(idle);
        show("images unmounted", &[])?;
        drop(store);
        fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

/// Mount and unmount of an image, by the number of packs it names; and the block sizes that the kernel takes.
pub fn devices(scratch: &Path) -> io::Result<()> {
    use crate::image::{Node, Source, Writer};
    let pack = scratch.join("pack");
    fs::write(&pack, vec![1; 8192])?;
    let one = |block_bits, devices, device, at| {
        let file = Node::File {
            size: 100,
            source: Source::Device { device, at },
        };
        Writer { block_bits, devices }.write(&Node::Dir([("file".to_owned(), file)].into()))
    };
    println!("| packs | mount, us | unmount, us |\n|---|---|---|");
    for devices in [1, 4, 16, 64, 256, 512] {
        let packs: Vec<File> = (0..devices).map(|_| File::open(&pack)).collect::<io::Result<_>>()?;
        let image = image_file(scratch, &one(9, devices, devices - 1, 512))?;
        let (mut mounts, mut unmounts) = (vec![], vec![]);
        for _ in 0..31 {
            let (mount, mounted) = cost(|| erofs(&image, &packs));
            let mounted = mounted?;
            let mut text = Vec::new();
            open_at(&mounted, c"file").read_to_end(&mut text)?;
            assert_eq!(text, [1; 100]);
            mounts.push(mount.each(1));
            unmounts.push(cost(|| drop(mounted)).0.each(1));
        }
        println!("| {devices} | {} | {} |", median(&mounts), median(&unmounts));
    }
    println!("\n| block | mount |\n|---|---|");
    let packs = [File::open(&pack)?];
    for bits in [6, 8, 9, 10, 12, 13] {
        let image = image_file(scratch, &one(bits, 1, 0, 0))?;
        let outcome = erofs(&image, &packs).map_or_else(|error| error.to_string(), |_| "works".to_owned());
        println!("| {} | {outcome} |", 1 << bits);
    }
    fs::remove_file(pack)
}

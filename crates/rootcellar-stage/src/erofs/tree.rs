//! What an image is to show.

const SECTOR_BYTES: u64 = 512;

/// Bytes of the largest file on a device: what one chunk of 2^31 sectors holds.
pub const ON_DEVICE_BYTES_MAX: u64 = SECTOR_BYTES << 31;

/// A tree, made from its root on.
///
/// Names are the caller's to check: each is one path component of 255 bytes at the most, and the only one of its name in its
/// directory.
#[derive(Debug)]
pub struct Tree<'a> {
    /// Parents before children, the root first.
    pub(super) directories: Vec<Directory<'a>>,
    /// Packs that files lie in: how many sectors of each there are, up to the end of the last file.
    pub(super) devices: Vec<u64>,
}

/// What an inode says besides what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u16,
    /// When it was modified, in seconds since the Unix epoch.
    pub mtime: i64,
    /// Nanoseconds beyond these seconds.
    pub mtime_nanos: u32,
}

/// Where the bytes of a file lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// In a device of the image, counted from 1, from this 512-byte sector on. Every device up to the highest number is there.
    Device {
        /// Which device.
        number: u16,
        /// The first sector.
        sector: u32,
    },
    /// In a file of one of the overlay's data-only layers, at this path from its root: `/` and the components.
    Redirect(&'a str),
}

#[derive(Debug)]
pub(super) struct Directory<'a> {
    pub(super) parent: usize,
    pub(super) attributes: Attributes,
    /// Not yet `.` and `..` as long as there is nothing else.
    pub(super) nodes: Vec<Node<'a>>,
}

#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) name: &'a str,
    pub(super) kind: Kind<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind<'a> {
    /// By its number.
    Directory(usize),
    File {
        attributes: Attributes,
        size: u64,
        source: Option<Source<'a>>,
    },
    Link {
        attributes: Attributes,
        target: &'a str,
    },
}

impl Directory<'_> {
    /// Adds `.` and `..` to a directory that is empty. It has this number.
    fn begin(&mut self, number: usize) {
        let dots = [(".", number), ("..", self.parent)];
        self.nodes.extend(dots.map(|(name, directory)| Node {
            name,
            kind: Kind::Directory(directory),
        }));
    }

    /// Puts all in the order of their names. The directory has this number.
    pub(super) fn complete(&mut self, number: usize) {
        if self.nodes.is_empty() {
            self.begin(number);
        }
        self.nodes.sort_unstable_by_key(|node| node.name);
    }
}

impl<'a> Tree<'a> {
    /// The number of the root.
    pub const ROOT: usize = 0;

    /// A root with nothing in it.
    pub fn new(root: Attributes) -> Self {
        Self {
            directories: vec![Directory {
                parent: Self::ROOT,
                attributes: root,
                nodes: Vec::new(),
            }],
            devices: Vec::new(),
        }
    }

    /// Makes room for so many more nodes in a directory.
    pub fn reserve(&mut self, directory: usize, nodes: usize) {
        // Those that each has beyond them: `.` and `..`.
        self.directories[directory].nodes.reserve_exact(nodes + 2);
    }

    /// Adds a directory to the directory with the number `parent`, and tells its own.
    pub fn add_directory(&mut self, parent: usize, name: &'a str, attributes: Attributes) -> usize {
        let number = self.directories.len();
        self.add(parent, name, Kind::Directory(number));
        self.directories.push(Directory {
            parent,
            attributes,
            nodes: Vec::new(),
        });
        number
    }

    /// Adds a file of `size` bytes. An empty one lies nowhere.
    ///
    /// # Panics
    /// If it is on a device and larger than [`ON_DEVICE_BYTES_MAX`].
    pub fn add_file(&mut self, parent: usize, name: &'a str, attributes: Attributes, size: u64, source: Source<'a>) {
        let source = Some(source).filter(|_| size > 0);
        if let Some(Source::Device { number, sector }) = source {
            assert!(size <= ON_DEVICE_BYTES_MAX, "the caller checks sizes");
            let index = usize::from(number).checked_sub(1).expect("devices are counted from 1");
            self.devices.resize(self.devices.len().max(index + 1), 0);
            let end = u64::from(sector) + size.div_ceil(SECTOR_BYTES);
            self.devices[index] = self.devices[index].max(end);
        }
        self.add(
            parent,
            name,
            Kind::File {
                attributes,
                size,
                source,
            },
        );
    }

    /// Adds a symbolic link.
    pub fn add_link(&mut self, parent: usize, name: &'a str, attributes: Attributes, target: &'a str) {
        self.add(parent, name, Kind::Link { attributes, target });
    }

    fn add(&mut self, parent: usize, name: &'a str, kind: Kind<'a>) {
        assert!((1..=255).contains(&name.len()), "the caller checks names");
        let directory = &mut self.directories[parent];
        if directory.nodes.is_empty() {
            directory.begin(parent);
        }
        directory.nodes.push(Node { name, kind });
    }
}

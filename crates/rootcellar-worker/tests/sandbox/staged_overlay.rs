//! Claims about a root that is mounted by the overlay stager: what the command can do in it, and what is captured of it.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi;
use rootcellar_reapi::functions::{from_proto, to_proto};
use rootcellar_reapi::{InputTree, NodeName, Outputs, RelPath, TreeLimits, encode_directory};
use rootcellar_stage::{
    Captured, ImageLimits, Means, MountHelper, OverlayOptions, OverlayStager, Owner, StageOptions, StagedRoot, Stager,
    StagerOptions, UserNamespaces, read_tree,
};
use rootcellar_store::{BlobStoreExt as _, DiskOptions, DiskStore, LocalStore as _, SystemClock};
use rootcellar_worker::sandbox::{Identity, MOUNT_POINTS, Root, Sandbox, SandboxSpec, Subtree};
use tempfile::TempDir;

use crate::fixture::{Fixture, HOST_ID, SANDBOX, block_on, end_of, spec_at};
use crate::harness::{Claim, is_root};

pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "a_staged_overlay_is_a_root_like_any_other",
        needs: &[],
        holds: a_staged_overlay_is_a_root_like_any_other,
    },
    Claim {
        name: "a_staged_overlay_is_read_only_where_its_tree_says_so",
        needs: &[],
        holds: a_staged_overlay_is_read_only_where_its_tree_says_so,
    },
    Claim {
        name: "what_is_in_a_staged_overlay_reaches_neither_store_nor_layers",
        needs: &[],
        holds: what_is_in_a_staged_overlay_reaches_neither_store_nor_layers,
    },
];

const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// Namespaces that the helper makes, as the server has them.
#[derive(Debug)]
struct Helpers(Sandbox);

#[async_trait::async_trait]
impl UserNamespaces for Helpers {
    async fn of(&self, owner: Owner) -> std::io::Result<OwnedFd> {
        let identity = Identity {
            uid: 0,
            gid: 0,
            host_uid: owner.uid,
            host_gid: owner.gid,
        };
        self.0.user_namespace(identity).map_err(std::io::Error::other)
    }
}

/// As the root of the machine, EROFS images; else files in memory.
fn means() -> Means {
    if is_root() {
        return Means::Privileged(Arc::new(Helpers(SANDBOX.clone())));
    }
    let connect = || SANDBOX.mount_helper().map_err(std::io::Error::other);
    Means::Unprivileged(Arc::new(MountHelper::new(connect)))
}

/// A store with the fixture's tree in it, and a stager.
struct Staging {
    store: Arc<DiskStore>,
    stager: OverlayStager,
    root: Digest,
    dir: TempDir,
}

impl Staging {
    /// `marks` are values of `SubtreeReadOnly` for directories right below the root, and for the root itself (`""`).
    async fn new(fixture: &Fixture, marks: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().unwrap();
        let store = DiskStore::open(dir.path().join("store"), DiskOptions::default(), Arc::new(SystemClock)).await;
        let store = Arc::new(store.unwrap());
        let plain = read_tree(store.clone(), store.spool().clone(), FUNCTION, &fixture.path(""))
            .await
            .unwrap();
        let tree = InputTree::load(&*store, plain, &TreeLimits::default()).await.unwrap();
        let marks: HashMap<&str, &str> = marks.iter().copied().collect();
        let root = mark(&store, &tree, &marks).await;
        let options = OverlayOptions {
            roots: StagerOptions {
                mount_points: MOUNT_POINTS,
                ..StagerOptions::default()
            },
            images: ImageLimits::default(),
            means: means(),
        };
        let stager = OverlayStager::open(store.clone(), dir.path().join("stage"), options).unwrap();
        Self {
            store,
            stager,
            root,
            dir,
        }
    }

    async fn stage(&self) -> Box<dyn StagedRoot> {
        let options = StageOptions {
            owner: match is_root() {
                true => Owner {
                    uid: HOST_ID,
                    gid: HOST_ID,
                },
                false => Owner::current(),
            },
            working_directory: RelPath::root(),
            directories: BTreeSet::new(),
        };
        self.stager.stage(self.root, options).await.unwrap()
    }
}

/// Puts marks on a tree, and stores it.
async fn mark(store: &Arc<DiskStore>, tree: &InputTree, marks: &HashMap<&str, &str>) -> Digest {
    use prost::Message as _;

    let properties = |name: &str| {
        marks.get(name).map(|value| reapi::NodeProperties {
            properties: vec![reapi::NodeProperty {
                name: "SubtreeReadOnly".into(),
                value: (*value).into(),
            }],
            ..reapi::NodeProperties::default()
        })
    };
    let read = |encoded: &Bytes| reapi::Directory::decode(encoded.clone()).unwrap();
    let mut root = read(&tree.directories()[0].encoded);
    for node in &mut root.directories {
        let digest = from_proto(FUNCTION, node.digest.as_ref().unwrap()).unwrap();
        let mut directory = read(&tree.directory(&digest).unwrap().encoded);
        directory.node_properties = properties(&node.name);
        let stored = store.put_bytes(FUNCTION, encode_directory(directory)).await.unwrap();
        node.digest = Some(to_proto(stored));
    }
    root.node_properties = properties("");
    store.put_bytes(FUNCTION, encode_directory(root)).await.unwrap()
}

fn spec(root: &dyn StagedRoot, script: &str) -> SandboxSpec {
    let mut spec = spec_at("/".into(), &["sh", "-c", script]);
    spec.root = Root::Mount(root.mount().unwrap().try_clone_to_owned().unwrap());
    spec.read_only = root.access().root_read_only;
    let parts = root.access().subtrees.iter();
    spec.subtrees = parts
        .map(|part| Subtree {
            path: part.path.clone(),
            read_only: part.read_only,
        })
        .collect();
    spec
}

async fn capture(root: &dyn StagedRoot) -> Captured {
    let command = reapi::Command {
        output_paths: vec![".".into()],
        output_directory_format: reapi::command::OutputDirectoryFormat::DirectoryOnly.into(),
        ..reapi::Command::default()
    };
    root.capture(&Outputs::parse(&command, &RelPath::root()).unwrap())
        .await
        .unwrap()
}

fn root_digest(captured: &Captured) -> Digest {
    from_proto(
        FUNCTION,
        captured.directories[0].root_directory_digest.as_ref().unwrap(),
    )
    .unwrap()
}

fn a_staged_overlay_is_a_root_like_any_other() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("home/input"), "input\n").unwrap();
    block_on(async {
        let staging = Staging::new(&fixture, &[]).await;
        let root = staging.stage().await;
        let script = "ls -a / && id -u && cat /home/input && echo more >> /home/input && cat /home/input && \
            mkdir -p /new/below && mv /home/input /new && rm -r /etc && ln /new/input /new/twice && \
            chmod 600 /bin/busybox && chmod 755 /bin/busybox && \
            [ $(stat -c %u /bin/busybox) = 0 ] && [ $(stat -c %u /new/below) = 0 ] && cut -d' ' -f5 /proc/self/mountinfo | grep -c '^/$'";
        let ran = end_of(spec(&*root, script)).await;
        assert_eq!(
            ran.stdout, ".\n..\nbin\ndev\netc\nhome\nproc\ntmp\n0\ninput\ninput\nmore\n1\n",
            "{ran:?}"
        );
        let captured = root_digest(&capture(&*root).await);
        let tree = InputTree::load(&*staging.store, captured, &TreeLimits::default())
            .await
            .unwrap();
        let names: Vec<&str> = tree.root().names().map(NodeName::as_str).collect();
        // What the tree has of the sandbox's own places stays in it.
        assert_eq!(names, ["bin", "dev", "home", "new", "proc", "tmp"]);
        let below = tree.directory_at(&RelPath::parse("new").unwrap()).unwrap();
        assert_eq!(below.directory.files().len(), 2);
        root.remove().await.unwrap();
    });
}

fn a_staged_overlay_is_read_only_where_its_tree_says_so() {
    let fixture = Fixture::new();
    block_on(async {
        let attempt =
            "for d in / /bin /etc /home; do touch $d/f && echo $d; done; rm /bin/busybox; echo x > /bin/sh; true";
        for (marks, writable, refused) in [
            (&[("", "true"), ("home", "false")][..], "/home\n", 5),
            (&[("bin", "true")], "/\n/etc\n/home\n", 3),
            (&[("", "true")], "", 6),
        ] {
            let staging = Staging::new(&fixture, marks).await;
            let root = staging.stage().await;
            let ran = end_of(spec(&*root, attempt)).await;
            assert_eq!(ran.stdout, writable, "{marks:?}: {ran:?}");
            assert_eq!(
                ran.stderr.matches("Read-only file system").count(),
                refused,
                "{marks:?}: {ran:?}"
            );
            let captured = root_digest(&capture(&*root).await);
            let tree = InputTree::load(&*staging.store, captured, &TreeLimits::default())
                .await
                .unwrap();
            assert_eq!(tree.root().files().len(), usize::from(writable.starts_with("/\n")));
            let home = tree.directory_at(&RelPath::parse("home").unwrap()).unwrap();
            assert_eq!(home.directory.files().len(), usize::from(writable.contains("/home")));
            assert_eq!(tree.root().properties().subtree_read_only, None, "a mark is no output");
            root.remove().await.unwrap();
        }
    });
}

fn what_is_in_a_staged_overlay_reaches_neither_store_nor_layers() {
    let fixture = Fixture::new();
    block_on(async {
        let staging = Staging::new(&fixture, &[]).await;
        let root = staging.stage().await;
        let attempts = [
            &format!("grep {} /proc/self/mountinfo", staging.dir.path().display()),
            "grep -v upperdir=/proc/self/fd/ /proc/self/mountinfo | grep ' / / '",
            "mknod /home/whiteout c 0 0",
            "mount -o remount,upperdir=/tmp /",
            "unshare -Um true",
            "ls /proc/self/fd/ | grep -q '^[4-9]$'",
        ];
        let tries: Vec<String> = attempts
            .iter()
            .map(|attempt| format!("if {attempt}; then echo 'WORKED: {}'; fi; ", attempt.replace('\'', "")))
            .collect();
        let ran = end_of(spec(&*root, &tries.concat())).await;
        assert_eq!(ran.stdout, "", "{ran:?}");
        // Nothing was changed by any of it.
        let tree = InputTree::load(&*staging.store, staging.root, &TreeLimits::default())
            .await
            .unwrap();
        assert_eq!(root_digest(&capture(&*root).await), tree.root_digest());
        root.remove().await.unwrap();
    });
}

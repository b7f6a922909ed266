//! What an action has got out of its sandbox cannot change what was captured.
//!
//! Each test plays an action that has passed on a descriptor of an output, or of something that holds one. However it goes on with
//! it, the stored blob stays as it is: either nothing can write through the descriptor any more, and the file itself became the
//! blob, or the blob is a copy.

#![allow(unsafe_code, reason = "mappings and io_uring have no safe interface here")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write as _};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rootcellar_digest::Digest;
use rootcellar_reapi::functions::from_proto;
use rootcellar_stage::StagedRoot;
use rootcellar_store::testing::skip;
use rootcellar_store::{LocalStore as _, Location};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::{FUNCTION, Fixture, Kind, capture, options};

/// Large enough to lie in a file of its own.
const OUTPUT_BYTES: usize = 1 << 20;

/// A root in which an action has written one large output.
struct Acted {
    fixture: Fixture,
    root: Box<dyn StagedRoot>,
    output: PathBuf,
    inode: u64,
}

/// Whether the file of the action became the blob.
#[derive(Debug, PartialEq, Eq)]
enum Became {
    Moved,
    Copied,
}

impl Acted {
    /// One for each stager that moves outputs.
    async fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for kind in Kind::all().into_iter().filter(|kind| *kind != Kind::Copy) {
            all.push(Self::new(kind).await);
        }
        all
    }

    async fn new(kind: Kind) -> Self {
        let fixture = Fixture::new(kind).await;
        let digest = fixture.tree(|dir| fs::write(dir.join("input"), "input").unwrap()).await;
        let root = fixture.stage_with(digest, options("")).await.unwrap();
        let output = root.path().join("output");
        fs::write(&output, vec![7; OUTPUT_BYTES]).unwrap();
        let inode = fs::metadata(&output).unwrap().ino();
        Self {
            fixture,
            root,
            output,
            inode,
        }
    }

    fn open(&self, options: &mut OpenOptions) -> File {
        options.open(&self.output).unwrap()
    }

    /// Captures, lets `attack` do its worst, and looks at the blob.
    async fn capture(&self, attack: impl FnOnce()) -> Became {
        let captured = capture(&*self.root, &["output"]).await;
        let digest = from_proto(FUNCTION, captured.files[0].digest.as_ref().unwrap()).unwrap();
        let Location::Loose { path } = self.fixture.store.locate(digest).unwrap() else {
            panic!("a large blob lies in a file of its own");
        };
        attack();
        assert_eq!(
            Digest::of(FUNCTION, &fs::read(&path).unwrap()),
            digest,
            "a stored blob was changed"
        );
        let metadata = fs::metadata(&path).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o444, uid));
        if metadata.ino() == self.inode {
            Became::Moved
        } else {
            Became::Copied
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_nobody_holds_is_moved() {
    for acted in Acted::all().await {
        rustix::fs::setxattr(&acted.output, "user.note", b"mine", rustix::fs::XattrFlags::empty()).unwrap();
        assert_eq!(acted.capture(|| ()).await, Became::Moved);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_with_two_names_is_copied() {
    for acted in Acted::all().await {
        let other = acted.root.path().join("other");
        fs::hard_link(&acted.output, &other).unwrap();
        assert_eq!(acted.capture(|| ()).await, Became::Copied);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_for_writing_reaches_no_blob() {
    for acted in Acted::all().await {
        let leaked = acted.open(OpenOptions::new().write(true));
        let became = acted.capture(|| leaked.write_all_at(b"poison", 0).unwrap()).await;
        assert_eq!(became, Became::Copied);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_for_reading_cannot_be_opened_anew_for_writing() {
    for acted in Acted::all().await {
        let leaked = acted.open(OpenOptions::new().read(true));
        let again = format!("/proc/self/fd/{}", leaked.as_raw_fd());
        let became = acted.capture(|| {
            let reopened = OpenOptions::new().write(true).open(&again);
            assert_eq!(reopened.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
            let chmod = rustix::fs::fchmod(&leaked, rustix::fs::Mode::RWXU);
            assert_eq!(chmod, Err(rustix::io::Errno::ROFS));
        });
        assert_eq!(became.await, Became::Moved);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_mapping_reaches_no_blob() {
    for acted in Acted::all().await {
        let file = acted.open(OpenOptions::new().read(true).write(true));
        // SAFETY: a new mapping of a file that stays as long as it is.
        let mapping = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(
                std::ptr::null_mut(),
                OUTPUT_BYTES,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(mapping, libc::MAP_FAILED);
        drop(file);
        let address = mapping as usize;
        // SAFETY: within the mapping, which is there until the end of this function.
        let became = acted
            .capture(|| unsafe { (address as *mut u8).write_volatile(66) })
            .await;
        assert_eq!(became, Became::Copied);
        // SAFETY: mapped above, and not used after this.
        assert_eq!(unsafe { libc::munmap(address as *mut libc::c_void, OUTPUT_BYTES) }, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_in_a_socket_that_holds_itself_is_closed_in_time() {
    for acted in Acted::all().await {
        let leaked = acted.open(OpenOptions::new().write(true));
        let (sender, receiver) = UnixStream::pair().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let rights = [leaked.as_fd(), receiver.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&rights)));
        sendmsg(&sender, &[IoSlice::new(b"!")], &mut ancillary, SendFlags::empty()).unwrap();
        // Closing the sender makes the kernel look for such sockets, a moment later. Only after that this one becomes such.
        drop((leaked, sender));
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(receiver);
        assert_eq!(acted.capture(|| ()).await, Became::Moved);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_in_a_socket_that_somebody_holds_reaches_no_blob() {
    for acted in Acted::all().await {
        let leaked = acted.open(OpenOptions::new().write(true));
        let (sender, _receiver) = UnixStream::pair().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let rights = [leaked.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&rights)));
        sendmsg(&sender, &[IoSlice::new(b"!")], &mut ancillary, SendFlags::empty()).unwrap();
        let mut again = leaked.try_clone().unwrap();
        drop(leaked);
        let became = acted.capture(|| again.write_all(b"poison").unwrap()).await;
        assert_eq!(became, Became::Copied);
    }
}

/// A ring that has a file among its own.
fn ring_with(file: &File) -> Option<OwnedFd> {
    const REGISTER_FILES: libc::c_long = 2;
    /// `struct io_uring_params`: 120 bytes, of which none has to be set.
    type Parameters = [u8; 120];
    let mut parameters: Parameters = [0; size_of::<Parameters>()];
    // SAFETY: the structure is as large as the kernel's, and lives through the call.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 2, parameters.as_mut_ptr()) };
    if ring < 0 {
        skip("this kernel has no io_uring for this process");
        return None;
    }
    // SAFETY: a fresh descriptor that is nobody else's.
    let ring = unsafe { OwnedFd::from_raw_fd(i32::try_from(ring).unwrap()) };
    let files = [file.as_raw_fd()];
    // SAFETY: one descriptor is read from the array.
    let registered = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            REGISTER_FILES,
            files.as_ptr(),
            1,
        )
    };
    assert_eq!(registered, 0);
    Some(ring)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_ring_is_not_moved_while_the_ring_is_there() {
    for acted in Acted::all().await {
        let leaked = acted.open(OpenOptions::new().write(true));
        let Some(ring) = ring_with(&leaked) else { continue };
        drop(leaked);
        assert_eq!(acted.capture(|| ()).await, Became::Copied);
        drop(ring);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_ring_that_is_gone_is_waited_for() {
    for acted in Acted::all().await {
        let leaked = acted.open(OpenOptions::new().write(true));
        let Some(ring) = ring_with(&leaked) else { continue };
        drop((leaked, ring));
        // The kernel takes its time, and on a busy machine longer than anybody waits for: the blob is whole in any case.
        acted.capture(|| ()).await;
    }
}

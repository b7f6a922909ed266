//! Opens sockets for 32-bit x86 programs that ask the old way.
//!
//! Most 32-bit C libraries make all socket calls through `socketcall`, which has its arguments in memory. A filter cannot
//! see the family there; refusing the call would break programs that the sandbox promises to run. So the filter
//! leaves it to init, which has the same user, network and filter as the command: it copies the arguments, decides
//! on the copy, opens the socket itself and hands it over (Linux 5.14; before that, such calls fail).

use std::io;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};

use super::listener::{Call, Listener};
use super::program::is_known_family;

/// The part of a socket's type that is not flags (linux/net.h).
const TYPE_BITS: u32 = 0xF;

/// Answers the next call that waits. Whatever goes wrong with that is the error of the call.
pub(in super::super) fn answer_one(listener: &Listener) -> io::Result<()> {
    let Some(call) = listener.next()? else { return Ok(()) };
    match open(listener, call).and_then(|opened| hand_over(listener, call, opened)) {
        Ok(()) => Ok(()),
        Err(error) => listener.refuse(call, error.raw_os_error().unwrap_or(libc::EPERM)),
    }
}

fn hand_over(listener: &Listener, call: Call, opened: Option<(OwnedFd, bool)>) -> io::Result<()> {
    // Without a socket there is nobody any more who wants one.
    opened.map_or(Ok(()), |(socket, close_on_exec)| {
        listener.give(call, socket, close_on_exec)
    })
}

/// Opens the socket that `call` asks for, or nothing if nobody waits for it any more.
fn open(listener: &Listener, call: Call) -> io::Result<Option<(OwnedFd, bool)>> {
    let [_, address, ..] = call.arguments;
    let Some([family, kind, protocol]) = listener.read_words(call, address)? else {
        return Ok(None);
    };
    if !is_known_family(family, protocol) {
        return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
    }
    let family = u16::try_from(family).map_err(|_| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
    let flags = SocketFlags::from_bits_retain(kind & !TYPE_BITS);
    let socket = socket_with(
        AddressFamily::from_raw(family),
        SocketType::from_raw(kind & TYPE_BITS),
        flags | SocketFlags::CLOEXEC,
        NonZeroU32::new(protocol).map(Protocol::from_raw),
    )?;
    Ok(Some((socket, flags.contains(SocketFlags::CLOEXEC))))
}

//! From rules to the instructions that the kernel runs (classic BPF over `struct seccomp_data`, seccomp(2)).
//!
//! ```text
//! load arch;  for each ABI:  not this arch? skip its section
//! section:    load number;  for each call:  not this number? skip its block
//! block:      look at an argument if need be;  return
//! end of section: allow      end of program: kill
//! ```

use libc::{AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, EAFNOSUPPORT, ENOSYS, EPERM, NETLINK_ROUTE, sock_filter};

use super::tables::EVERYWHERE;
use super::{Abi, Rule};

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const JUMP_IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Where things lie in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

/// Every flag that `clone` and `unshare` have for a new namespace. The time namespace's bit is part of the exit signal in
/// `clone`, where no signal has it.
const NEW_NAMESPACES: u32 = 0x7E02_0080;

/// Types a character into a terminal, and moves text within a console: both act for the user at the keyboard.
const TYPING: [u32; 2] = [0x5412, 0x541C];

/// The number of `socket` inside `socketcall`.
const SOCKETCALL_SOCKET: u32 = 1;

/// Makes the program for all the ways into the kernel that this machine has.
pub(super) fn assemble(abis: &[Abi]) -> Vec<sock_filter> {
    let mut program = vec![load(ARCH)];
    for abi in abis {
        let section = section(abi);
        program.push(if_equal(abi.audit_arch, 1, 0));
        program.push(instruction(
            JUMP,
            u32::try_from(section.len()).expect("a section has a few hundred instructions"),
        ));
        program.extend(section);
    }
    program.push(instruction(RETURN, libc::SECCOMP_RET_KILL_PROCESS));
    program
}

fn section(abi: &Abi) -> Vec<sock_filter> {
    let mut section = vec![load(NUMBER)];
    if let Some(end) = abi.numbers_end {
        section.extend([jump(JUMP_IF_AT_LEAST, end, 0, 1), refuse(ENOSYS)]);
    }
    for (_, number, rule) in abi.calls.iter().chain(EVERYWHERE) {
        let block = block(*rule);
        section.push(if_equal(
            *number,
            0,
            u8::try_from(block.len()).expect("a block has a dozen instructions"),
        ));
        section.extend(block);
    }
    section.push(allow());
    section
}

/// Makes what decides about one call. It always returns: the number is no longer loaded when it ends.
fn block(rule: Rule) -> Vec<sock_filter> {
    match rule {
        Rule::Refuse => vec![refuse(EPERM)],
        Rule::Absent => vec![refuse(ENOSYS)],
        Rule::NoNewNamespace => {
            vec![
                load(argument(0)),
                jump(JUMP_IF_ANY_BIT, NEW_NAMESPACES, 0, 1),
                refuse(EPERM),
                allow(),
            ]
        }
        Rule::NoTyping => {
            let [type_in, console] = TYPING;
            vec![
                load(argument(1)),
                if_equal(type_in, 1, 0),
                if_equal(console, 0, 1),
                refuse(EPERM),
                allow(),
            ]
        }
        Rule::KnownFamilies => vec![
            load(argument(0)),
            if_equal(AF_UNIX.unsigned_abs(), 5, 0),
            if_equal(AF_INET.unsigned_abs(), 4, 0),
            if_equal(AF_INET6.unsigned_abs(), 3, 0),
            if_equal(AF_NETLINK.unsigned_abs(), 0, 3),
            load(argument(2)),
            if_equal(NETLINK_ROUTE.unsigned_abs(), 0, 1),
            allow(),
            refuse(EAFNOSUPPORT),
        ],
        Rule::NoHiddenSocket => vec![
            load(argument(0)),
            if_equal(SOCKETCALL_SOCKET, 0, 1),
            refuse(EPERM),
            allow(),
        ],
    }
}

/// Where the low half of an argument lies. All the arguments that are looked at are 32 bits to the kernel too, which
/// ignores the high half.
fn argument(index: u32) -> u32 {
    const { assert!(cfg!(target_endian = "little"), "the low half comes first") };
    16 + 8 * index
}

fn load(offset: u32) -> sock_filter {
    instruction(LOAD, offset)
}

fn allow() -> sock_filter {
    instruction(RETURN, libc::SECCOMP_RET_ALLOW)
}

fn refuse(errno: i32) -> sock_filter {
    instruction(RETURN, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs())
}

fn if_equal(value: u32, then: u8, otherwise: u8) -> sock_filter {
    jump(JUMP_IF_EQUAL, value, then, otherwise)
}

fn instruction(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// A comparison with `k`, and how many instructions to skip after it.
fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

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
        Rule::AskInit => vec![
            load(argument(0)),
            if_equal(SOCKETCALL_SOCKET, 0, 1),
            instruction(RETURN, libc::SECCOMP_RET_USER_NOTIF),
            allow(),
        ],
    }
}

/// Tells what the block of `KnownFamilies` decides, for arguments that the filter cannot see.
pub(super) fn is_known_family(family: u32, protocol: u32) -> bool {
    match i32::try_from(family) {
        Ok(AF_UNIX | AF_INET | AF_INET6) => true,
        Ok(AF_NETLINK) => protocol == NETLINK_ROUTE.unsigned_abs(),
        _ => false,
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

#[cfg(test)]
mod tests {
    use std::fs;

    use libc::{SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_USER_NOTIF};

    use super::super::tables::{AARCH64, ARM, I386, RISCV64, X86_64};
    use super::*;

    const ALL: [Abi; 5] = [X86_64, I386, AARCH64, ARM, RISCV64];

    /// Runs a program as the kernel would.
    fn run(program: &[sock_filter], arch: u32, number: u32, arguments: [u32; 3]) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            let taken = |condition: bool| usize::from(if condition { jt } else { jf });
            at += 1;
            match code {
                LOAD => {
                    loaded = match k {
                        NUMBER => number,
                        ARCH => arch,
                        _ => arguments[usize::try_from((k - 16) / 8).unwrap()],
                    }
                }
                JUMP => at += usize::try_from(k).unwrap(),
                JUMP_IF_EQUAL => at += taken(loaded == k),
                JUMP_IF_AT_LEAST => at += taken(loaded >= k),
                JUMP_IF_ANY_BIT => at += taken(loaded & k != 0),
                RETURN => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn every_call_of_every_table_gets_what_its_rule_says() {
        let program = assemble(&ALL);
        let (eperm, enosys) = (SECCOMP_RET_ERRNO | 1, SECCOMP_RET_ERRNO | 38);
        for abi in &ALL {
            let answer = |number: u32, arguments| run(&program, abi.audit_arch, number, arguments);
            for (name, number, rule) in abi.calls.iter().chain(EVERYWHERE) {
                let (harmless, harmful, expected) = match rule {
                    Rule::Refuse => (None, [0, 0, 0], eperm),
                    Rule::Absent => (None, [0, 0, 0], enosys),
                    Rule::NoNewNamespace => (Some([0x11, 0, 0]), [0x1000_0011, 0, 0], eperm),
                    Rule::NoTyping => (Some([0, 0x5413, 0]), [0, 0x541C, 0], eperm),
                    Rule::KnownFamilies => (Some([16, 3, 0]), [16, 3, 9], SECCOMP_RET_ERRNO | 97),
                    Rule::AskInit => (Some([8, 0, 0]), [1, 0, 0], SECCOMP_RET_USER_NOTIF),
                };
                assert_eq!(answer(*number, harmful), expected, "{name}");
                assert!(
                    harmless.is_none_or(|arguments| answer(*number, arguments) == SECCOMP_RET_ALLOW),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn all_other_calls_are_allowed() {
        let program = assemble(&ALL);
        for abi in &ALL {
            let filtered = |number| abi.calls.iter().chain(EVERYWHERE).any(|(_, other, _)| *other == number);
            for number in (0..1000).filter(|number| !filtered(*number)) {
                assert_eq!(
                    run(&program, abi.audit_arch, number, [0, 0, 0]),
                    SECCOMP_RET_ALLOW,
                    "{number}"
                );
            }
        }
    }

    #[test]
    fn unknown_ways_into_the_kernel_are_closed() {
        let program = assemble(&ALL);
        assert_eq!(run(&program, 0xC000_0016, 39, [0, 0, 0]), SECCOMP_RET_KILL_PROCESS);
        assert_eq!(
            run(&program, X86_64.audit_arch, 0x4000_0027, [0, 0, 0]),
            SECCOMP_RET_ERRNO | 38
        );
    }

    #[test]
    fn hidden_arguments_are_judged_as_visible_ones() {
        let program = assemble(&[X86_64]);
        for (family, protocol) in (0..64).flat_map(|family| [(family, 0), (family, 9)]) {
            let visible = run(&program, X86_64.audit_arch, 41, [family, 1, protocol]) == SECCOMP_RET_ALLOW;
            assert_eq!(is_known_family(family, protocol), visible, "{family} {protocol}");
        }
    }

    /// Compares the tables with the kernel's headers, where they are installed.
    #[test]
    fn the_tables_agree_with_the_kernels_headers() {
        let headers = [
            (X86_64, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
            (I386, "/usr/include/x86_64-linux-gnu/asm/unistd_32.h"),
            (AARCH64, "/usr/include/asm-generic/unistd.h"),
        ];
        for (abi, header) in headers {
            let Ok(text) = fs::read_to_string(header) else {
                println!("skipped {header}: not installed");
                continue;
            };
            for (name, number, _) in abi.calls.iter().chain(EVERYWHERE) {
                let defined = text.lines().find_map(|line| {
                    line.strip_prefix("#define __NR_")?
                        .strip_prefix(name)?
                        .strip_prefix(' ')
                });
                // An older header does not know the youngest calls.
                assert!(
                    defined.is_none_or(|value| value.trim() == number.to_string()),
                    "{name} of {header}: {defined:?}"
                );
            }
        }
    }
}

//! Who the command is: one user and one group, mapped to an unprivileged pair of the host, and no powers at all.
//!
//! A user namespace is made even where the server is root: uid 0 without capabilities can still write the host's
//! kernel settings, and a mapped uid cannot.

use std::fs;
use std::io;

use rustix::process::{DumpableBehavior, Pid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use rustix::{fs::Gid, fs::Uid};

use super::error::{Failure, failed};
use super::spec::Identity;

/// The highest capability that a kernel could know: one word of bits.
const CAPABILITIES_MAX: u32 = 63;

/// Ids that root can try to map; any that are not root's do.
const NOBODY: u32 = 65_534;

/// Whether this process may map ids other than its own, and change groups.
#[derive(Clone, Copy, Debug)]
pub(super) struct MappingPower(bool);

impl MappingPower {
    pub(super) fn of_this_process() -> Result<Self, Failure> {
        let held = rustix::thread::capabilities(None)
            .map_err(failed("read capabilities"))?
            .effective;
        // The root of a rootless container has the capabilities, but gave up changing groups when it was mapped.
        let setgroups = fs::read_to_string("/proc/self/setgroups").map_err(failed("read /proc/self/setgroups"))?;
        let may_change_groups = setgroups.trim_end() != "deny";
        Ok(Self(
            may_change_groups && held.contains(CapabilitySet::SETUID | CapabilitySet::SETGID),
        ))
    }
}

/// Writes the maps of the user namespace that `child` lives in (user_namespaces(7)).
pub(super) fn map_ids(child: Pid, identity: Identity, power: MappingPower) -> Result<(), Failure> {
    refuse_host_root(identity)?;
    let Identity {
        uid,
        gid,
        host_uid,
        host_gid,
    } = identity;
    let write = |file: &str, content: &str| {
        let path = format!("/proc/{}/{file}", child.as_raw_nonzero());
        fs::write(path, content).map_err(failed(format!("write {:?} to {file}", content.trim_end())))
    };
    if !power.0 {
        // Whoever may not change groups must give that up for the namespace before the kernel takes a group map.
        write("setgroups", "deny\n")?;
    }
    write("uid_map", &format!("{uid} {host_uid} 1\n"))?;
    write("gid_map", &format!("{gid} {host_gid} 1\n"))
}

/// Refuses to map to the machine's root.
fn refuse_host_root(identity: Identity) -> Result<(), Failure> {
    if is_root_of_host(identity)? {
        return Err(Failure::unfit(
            "a sandbox is never mapped to the root of the host: choose another id",
        ));
    }
    Ok(())
}

/// Tells whether an identity maps to the machine's root user or group.
pub(super) fn is_root_of_host(identity: Identity) -> Result<bool, Failure> {
    Ok(is_host_root(identity.host_uid, "uid_map")? || is_host_root(identity.host_gid, "gid_map")?)
}

/// Tells whether an id is the machine's root. In a container that maps its root to somebody else, 0 is not.
fn is_host_root(id: u32, map: &str) -> Result<bool, Failure> {
    let path = format!("/proc/self/{map}");
    let map = fs::read_to_string(&path).map_err(failed(format!("read {path}")))?;
    Ok(id == 0 && maps_zero_to_zero(&map))
}

/// Returns an identity that can be tried out: of this process, or of nobody if this is the machine's root.
pub(super) fn for_trial() -> Result<Identity, Failure> {
    let own = Identity::own(0, 0);
    Ok(if is_root_of_host(own)? {
        Identity {
            host_uid: NOBODY,
            host_gid: NOBODY,
            ..own
        }
    } else {
        own
    })
}

fn maps_zero_to_zero(map: &str) -> bool {
    map.lines()
        .any(|line| line.split_ascii_whitespace().take(2).eq(["0", "0"]))
}

/// Becomes the mapped user and group, with no other group. Capabilities in the user namespace stay.
pub(super) fn assume(identity: Identity, power: MappingPower) -> Result<(), Failure> {
    let uid = Uid::from_raw(identity.uid);
    let gid = Gid::from_raw(identity.gid);
    if power.0 {
        set_thread_groups(&[]).map_err(failed("leave all groups"))?;
    }
    set_thread_res_gid(gid, gid, gid).map_err(failed(format!("become group {}", identity.gid)))?;
    // Without this, leaving a uid that is mapped to 0 inside would clear the capabilities that mounting needs.
    rustix::thread::set_keep_capabilities(true).map_err(failed("keep capabilities"))?;
    set_thread_res_uid(uid, uid, uid).map_err(failed(format!("become user {}", identity.uid)))?;
    let sets = rustix::thread::capabilities(None).map_err(failed("read capabilities"))?;
    let sets = CapabilitySets {
        effective: sets.permitted,
        ..sets
    };
    set_capabilities(None, sets).map_err(failed("raise capabilities"))
}

/// Gives up every capability for good, for this process and whatever it starts.
pub(super) fn drop_all_power() -> Result<(), Failure> {
    for capability in 0..=CAPABILITIES_MAX {
        let capability = CapabilitySet::from_bits_retain(1 << capability);
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first number that this kernel does not know: it knows none above either.
            Err(rustix::io::Errno::INVAL) => break,
            Err(errno) => return Err(failed(format!("drop {capability:?} from the bounding set"))(errno)),
        }
    }
    clear_ambient_capability_set().map_err(failed("clear ambient capabilities"))?;
    set_capabilities_secure_bits(locked_bits()).map_err(failed("lock the secure bits"))?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(failed("drop capabilities"))?;
    set_no_new_privs(true).map_err(failed("set no_new_privs"))
}

/// Being uid 0 means nothing any more, and nobody can change that.
fn locked_bits() -> CapabilitiesSecureBits {
    use CapabilitiesSecureBits as Bits;
    Bits::NO_ROOT
        | Bits::NO_ROOT_LOCKED
        | Bits::NO_SETUID_FIXUP
        | Bits::NO_SETUID_FIXUP_LOCKED
        | Bits::KEEP_CAPS_LOCKED
        | Bits::NO_CAP_AMBIENT_RAISE
        | Bits::NO_CAP_AMBIENT_RAISE_LOCKED
}

/// Hides this process's memory and descriptors from the command, which has the same user id. `exec` undoes it for the
/// command itself.
pub(super) fn hide_from_same_user() -> Result<(), Failure> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("become undumpable"))
}

/// Lets the command open its own standard streams again, by way of `/dev/stdout`: the files become its user's.
pub(super) fn give_file(file: &fs::File, identity: Identity, name: &str) -> Result<(), Failure> {
    let give = || -> io::Result<()> {
        if file.metadata()?.is_file() {
            std::os::unix::fs::fchown(file, Some(identity.host_uid), Some(identity.host_gid))?;
        }
        Ok(())
    };
    give().map_err(failed(format!("give {name} to host user {}", identity.host_uid)))
}

#[cfg(test)]
mod tests {
    use super::maps_zero_to_zero;

    #[test]
    fn only_the_identity_map_makes_zero_the_root_of_the_host() {
        assert!(maps_zero_to_zero("         0          0 4294967295\n"));
        assert!(!maps_zero_to_zero("         0       1000          1\n"));
        assert!(!maps_zero_to_zero(
            "         0       1000          1\n         1     100000      65536\n"
        ));
    }
}

//! Who an action is: the ids it asks for inside, and ids of nobody else's outside.
//!
//! A server that is root gives every worker slot a user and group of the host that nothing else has, so that two actions share
//! no identity that the kernel knows. A server that is not root has only its own ids to give.

use rootcellar_stage::Owner;

use crate::sandbox::Identity;

/// The first host id that is given to actions: above what systemd, container engines and directories hand out, and within
/// what programs with signed ids can hold.
const HOST_ID_BASE: u32 = 1_900_000_000;

/// A worker's place among those of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot(pub u32);

impl Slot {
    /// The ids on the host of what runs in this slot.
    pub fn owner(self) -> Owner {
        let current = Owner::current();
        if current.uid != 0 {
            return current;
        }
        Owner {
            uid: HOST_ID_BASE + self.0,
            gid: HOST_ID_BASE + self.0,
        }
    }

    /// Maps the ids that an action asked for to those of this slot.
    pub(crate) fn identity(self, uid: u32, gid: u32) -> Identity {
        let owner = self.owner();
        Identity {
            uid,
            gid,
            host_uid: owner.uid,
            host_gid: owner.gid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_slots_share_no_host_identity_of_a_root_server() {
        let (one, two) = (Slot(0).identity(0, 0), Slot(1).identity(0, 0));
        if Owner::current().uid == 0 {
            assert_ne!(one.host_uid, two.host_uid);
            assert_ne!(one.host_gid, two.host_gid);
        }
        assert_ne!(one.host_uid, 0, "an action is never the host's root");
    }
}

//! Where the groups of this process are, and whether groups can be made in them.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::io::Errno;

use super::{Controller, Parent, Version};

const PREFIX: &str = "rootcellar-";

/// For each controller, where groups with it can be made, or why nowhere.
pub(super) fn parents() -> HashMap<Controller, Result<Parent, String>> {
    let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let found = read("/proc/self/mountinfo").and_then(|mounts| Ok(hierarchies(&mounts, &read("/proc/self/cgroup")?)));
    let hierarchies = match found {
        Ok(hierarchies) => hierarchies,
        Err(reason) => {
            return Controller::ALL
                .map(|controller| (controller, Err(reason.clone())))
                .into();
        }
    };
    let unified = hierarchies.iter().find(|hierarchy| hierarchy.version == Version::V2);
    let passed_on = unified.map(|hierarchy| pass_on(&hierarchy.group));
    let mut parents = HashMap::new();
    for controller in Controller::ALL {
        let in_unified = match (unified, &passed_on) {
            (Some(hierarchy), Some(Ok(passed_on))) if passed_on.contains(controller.name()) => Some(Ok(Parent {
                version: Version::V2,
                path: hierarchy.group.clone(),
            })),
            (_, Some(Err(reason))) => Some(Err(reason.clone())),
            _ => None,
        };
        let parent = match in_unified {
            Some(Ok(parent)) => Ok(parent),
            // Version 1 may have it; if not, that version 2 does not pass it on is the better reason.
            reason => in_hierarchy_of_its_own(&hierarchies, controller).map_err(|other| match reason {
                Some(Err(reason)) => reason,
                _ => other,
            }),
        };
        parents.insert(controller, parent);
    }
    parents
}

fn in_hierarchy_of_its_own(hierarchies: &[Hierarchy], controller: Controller) -> Result<Parent, String> {
    let has_it = |hierarchy: &&Hierarchy| hierarchy.controllers.contains(controller.name());
    let Some(hierarchy) = hierarchies.iter().find(has_it) else {
        return Err("no hierarchy of control groups has it".to_owned());
    };
    check_writable(&hierarchy.group)?;
    Ok(Parent {
        version: Version::V1,
        path: hierarchy.group.clone(),
    })
}

fn check_writable(group: &Path) -> Result<(), String> {
    rustix::fs::access(group, Access::WRITE_OK).map_err(|error| {
        let path = group.display();
        format!("no groups can be made in {path}: {error} (as root, or in a group that was delegated)")
    })
}

/// Makes a group of version 2 pass on the controllers that it has, and returns those.
fn pass_on(group: &Path) -> Result<BTreeSet<String>, String> {
    let available = fs::read_to_string(group.join("cgroup.controllers"))
        .map_err(|error| format!("{}: {error}", group.join("cgroup.controllers").display()))?;
    let available: BTreeSet<String> = available.split_whitespace().map(str::to_owned).collect();
    let wanted: Vec<&str> = Controller::ALL
        .map(Controller::name)
        .into_iter()
        .filter(|name| available.contains(*name))
        .collect();
    if wanted.is_empty() {
        return Ok(BTreeSet::new());
    }
    check_writable(group)?;
    let order = wanted.iter().map(|name| format!("+{name} ")).collect::<String>();
    let switch = group.join("cgroup.subtree_control");
    let told = match fs::write(&switch, &order) {
        Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
            make_room(group).and_then(|()| fs::write(&switch, &order))
        }
        told => told,
    };
    told.map_err(|error| format!("{} does not pass controllers on: {error}", group.display()))?;
    Ok(wanted.into_iter().map(str::to_owned).collect())
}

/// Moves this process out of a group, to one below it.
fn make_room(group: &Path) -> io::Result<()> {
    let own = own_group(group);
    match fs::create_dir(&own) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    fs::write(own.join("cgroup.procs"), std::process::id().to_string())
}

fn own_group(group: &Path) -> PathBuf {
    group.join(format!("{PREFIX}{}-server", std::process::id()))
}

/// Moves this process back, if it moved.
pub(super) fn leave(parent: &Parent) {
    let own = own_group(&parent.path);
    if !own.exists() {
        return;
    }
    // The group that passes controllers on takes no process; whoever looks finds an empty group, which the next start removes.
    let left =
        fs::write(parent.path.join("cgroup.procs"), std::process::id().to_string()).and_then(|()| fs::remove_dir(&own));
    if let Err(error) = left {
        tracing::debug!(group = %own.display(), %error, "a control group stays until the next start");
    }
}

/// The path of a worker's group.
pub(super) fn worker_group(parent: &Path, slot: u32) -> PathBuf {
    parent.join(format!("{PREFIX}{}-{slot}", std::process::id()))
}

/// Removes the groups of processes that are gone.
pub(super) fn remove_leftovers(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|rest| rest.split_once('-'))
            .and_then(|(pid, _)| pid.parse::<u32>().ok());
        let is_gone = |pid: u32| !Path::new("/proc").join(pid.to_string()).exists();
        if pid.is_some_and(is_gone)
            && let Err(error) = fs::remove_dir(entry.path())
        {
            tracing::debug!(group = %entry.path().display(), %error, "a control group that an earlier run left stays");
        }
    }
}

/// A hierarchy of control groups, and the group of this process in it.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    version: Version,
    controllers: BTreeSet<String>,
    group: PathBuf,
}

/// Reads `/proc/self/mountinfo` and `/proc/self/cgroup` (proc(5)).
fn hierarchies(mounts: &str, groups: &str) -> Vec<Hierarchy> {
    mounts.lines().filter_map(|mount| hierarchy(mount, groups)).collect()
}

fn hierarchy(mount: &str, groups: &str) -> Option<Hierarchy> {
    let (before, behind) = mount.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, point) = (before.next()?, before.next()?);
    let mut behind = behind.split(' ');
    let (kind, options) = (behind.next()?, behind.nth(1)?);
    let (version, controllers): (Version, BTreeSet<String>) = match kind {
        "cgroup2" => (Version::V2, BTreeSet::new()),
        "cgroup" => (Version::V1, options.split(',').map(str::to_owned).collect()),
        _ => return None,
    };
    let path = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        let is_it = match version {
            Version::V2 => names.is_empty(),
            Version::V1 => !names.is_empty() && names.split(',').all(|name| controllers.contains(name)),
        };
        is_it.then_some(path)
    })?;
    // In a container, what is mounted may be a part of the whole, and the path may lead out of it.
    let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
    Some(Hierarchy {
        version,
        controllers,
        group: Path::new(point).join(below),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
24 1 0:22 / /sys/fs/cgroup/memory rw,relatime shared:5 - cgroup cgroup rw,memory
25 1 0:23 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
26 1 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
27 1 0:25 /docker/abc /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
28 1 8:1 / / rw - ext4 /dev/root rw
";
    const GROUPS: &str = "\
4:memory:/system.slice/x.service
3:cpu,cpuacct:/
2:pids:/docker/abc/inner
1:name=systemd:/
0::/user.slice
";

    #[test]
    fn the_own_group_of_each_hierarchy_is_found() {
        let found = hierarchies(MOUNTS, GROUPS);
        let groups: Vec<_> = found
            .iter()
            .map(|hierarchy| hierarchy.group.to_str().unwrap())
            .collect();
        assert_eq!(
            groups,
            [
                "/sys/fs/cgroup/memory/system.slice/x.service",
                "/sys/fs/cgroup/cpu,cpuacct/",
                "/sys/fs/cgroup/unified/user.slice",
                "/sys/fs/cgroup/pids/inner",
            ]
        );
        assert_eq!(found[2].version, Version::V2);
        assert!(found[1].controllers.contains("cpu"));
    }

    #[test]
    fn a_group_outside_of_what_is_mounted_is_the_mount() {
        let mount = "27 1 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(
            hierarchies(mount, "0::/../elsewhere\n")[0].group,
            Path::new("/sys/fs/cgroup/../elsewhere")
        );
        let mount = "27 1 0:25 /part /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(hierarchies(mount, "0::/other\n")[0].group, Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn a_group_of_version_2_passes_on_what_it_has() {
        let group = tempfile::tempdir().unwrap();
        fs::write(group.path().join("cgroup.controllers"), "cpuset cpu memory hugetlb\n").unwrap();
        let passed_on = pass_on(group.path()).unwrap();
        assert_eq!(
            passed_on.iter().map(String::as_str).collect::<Vec<_>>(),
            ["cpu", "memory"]
        );
        let told = fs::read_to_string(group.path().join("cgroup.subtree_control")).unwrap();
        assert_eq!(told.trim(), "+memory +cpu");
        fs::write(group.path().join("cgroup.controllers"), "hugetlb\n").unwrap();
        assert!(pass_on(group.path()).unwrap().is_empty());
    }
}

//! Claims about what of the host, its network and its processes the command can reach.

use std::io::Read;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use rootcellar_worker::sandbox::{Network, SandboxSpec};

use crate::fixture::{Fixture, block_on, run, start};
use crate::harness::{Claim, Need};
use crate::processes::{unique_nap, with};
use crate::trial::with_trial;

pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "there_is_no_network_but_loopback",
        needs: &[],
        holds: there_is_no_network_but_loopback,
    },
    Claim {
        name: "loopback_works",
        needs: &[Need::Gcc],
        holds: loopback_works,
    },
    Claim {
        name: "the_hosts_ports_are_out_of_reach",
        needs: &[],
        holds: the_hosts_ports_are_out_of_reach,
    },
    Claim {
        name: "abstract_sockets_of_the_host_are_out_of_reach",
        needs: &[Need::Gcc],
        holds: abstract_sockets,
    },
    Claim {
        name: "the_hosts_processes_are_invisible",
        needs: &[],
        holds: the_hosts_processes_are_invisible,
    },
    Claim {
        name: "init_cannot_be_looked_into",
        needs: &[Need::Gcc],
        holds: init_cannot_be_looked_into,
    },
    Claim {
        name: "every_namespace_is_its_own",
        needs: &[],
        holds: every_namespace_is_its_own,
    },
    Claim {
        name: "two_sandboxes_do_not_see_each_other",
        needs: &[],
        holds: two_sandboxes_do_not_see_each_other,
    },
];

fn there_is_no_network_but_loopback() {
    let fixture = Fixture::new();
    assert_eq!(
        fixture
            .shell("tail -n +3 /proc/net/dev | cut -d: -f1 | grep -v sit0")
            .trim(),
        "lo"
    );
    assert!(fixture.shell("ip -o link show lo").contains("UP"));
    assert_eq!(fixture.shell("ip route"), "");
    assert!(fixture.shell("ip -o addr show lo").contains("127.0.0.1/8"));
}

fn loopback_works() {
    assert_eq!(run(with_trial().spec(&["trial", "loopback"])).stdout, "ok\n");
}

/// Describes an attempt to reach a port of the host.
fn reach(fixture: &Fixture, port: u16, network: Network) -> SandboxSpec {
    let mut spec = fixture.script(&format!("echo hello | nc -w 2 127.0.0.1 {port}"));
    spec.network = network;
    spec
}

fn the_hosts_ports_are_out_of_reach() {
    let fixture = Fixture::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_ne!(run(reach(&fixture, port, Network::Loopback)).code(), 0);
    let visitor = std::thread::spawn(move || {
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        text
    });
    run(reach(&fixture, port, Network::Host));
    assert_eq!(visitor.join().unwrap(), "hello\n");
}

fn abstract_sockets() {
    let fixture = with_trial();
    let name = format!("rootcellar-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let attempt = fixture.spec(&["trial", "abstract", &name]);
    assert_eq!(run(attempt).stdout, "ECONNREFUSED\n");
    let mut attempt = fixture.spec(&["trial", "abstract", &name]);
    attempt.network = Network::Host;
    assert_eq!(run(attempt).stdout, "ok\n", "the attempt itself is sound");
}

fn the_hosts_processes_are_invisible() {
    let nap = unique_nap();
    let mut bystander = std::process::Command::new("sleep").arg(&nap).spawn().unwrap();
    let fixture = Fixture::new();
    let seen = fixture.shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' ' || true; ps");
    assert!(!seen.contains(&nap), "{seen}");
    let ran = run(fixture.script(&format!("kill -9 {}", bystander.id())));
    assert!(ran.stderr.contains("No such process"), "{ran:?}");
    assert!(bystander.try_wait().unwrap().is_none());
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

fn init_cannot_be_looked_into() {
    let fixture = with_trial();
    for path in [
        "mem", "environ", "maps", "auxv", "exe", "root/bin", "cwd/bin", "fd/0", "ns/user", "ns/mnt",
    ] {
        let attempt = fixture.spec(&["trial", "open", &format!("/proc/1/{path}")]);
        assert_eq!(run(attempt).stdout, "EACCES\n", "{path}");
    }
    assert_eq!(run(fixture.spec(&["trial", "ptrace", "1"])).stdout, "EPERM\n");
    assert_eq!(
        run(fixture.spec(&["trial", "ptrace-child"])).stdout,
        "ok\n",
        "debuggers work"
    );
    assert_eq!(run(fixture.spec(&["trial", "readmem", "1"])).stdout, "EPERM\n");
    assert_eq!(run(fixture.spec(&["trial", "pidfd-getfd", "1"])).stdout, "EPERM\n");
}

fn every_namespace_is_its_own() {
    let fixture = Fixture::new();
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let inside = fixture.shell(&format!("readlink /proc/self/ns/{name}"));
        let outside = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(inside.trim(), outside.to_str().unwrap(), "{name}");
    }
    assert_eq!(fixture.shell("cut -d: -f3 /proc/self/cgroup | sort -u"), "/\n");
}

fn two_sandboxes_do_not_see_each_other() {
    let (first, second, nap) = (Fixture::new(), Fixture::new(), unique_nap());
    block_on(async {
        let mut started = start(first.script(&format!("echo secret > /dev/shm/s; echo up; sleep {nap}"))).await;
        started.says("up").await;
        let neighbour = with(&nap);
        let attempt = "ls /dev/shm; ps | grep -c '[s]leep'; kill -9 -1; true";
        let seen = start(second.script(attempt)).await.end().await.unwrap();
        assert_eq!(seen.stdout, "0\n");
        assert_eq!(with(&nap), neighbour, "the other one is still there");
        started.running.kill();
        started.end().await.unwrap();
    });
}

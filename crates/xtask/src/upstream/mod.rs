//! BuildStream's own tests, run against Rootcellar.
//!
//! Upstream judges a server by three of its suites, found in its source distribution:
//!
//! - `remote-execution`: builds run on the server, artifacts stay local;
//! - `remote-cache`: builds run locally, artifacts are pushed to and pulled from the server;
//! - `integration`: everything an element may do in a sandbox. Upstream runs these locally; here the same tests build
//!   on the server, which makes them a hundred questions about the sandbox.
//!
//! The machine is prepared once, below the target directory; see [`ground`].

mod ground;
mod server;

use std::process::Command;

use ground::Ground;
use server::Server;

use crate::machine;
use crate::stage::{Stages, run as run_command};

/// A suite of upstream's, and how it learns of the server.
struct Suite {
    name: &'static str,
    arguments: &'static [&'static str],
    services: &'static [&'static str],
}

/// The suites that ask for a server by themselves, and the one that is told to use it.
const SUITES: &[Suite] = &[
    Suite {
        name: "remote-execution",
        arguments: &["--remote-execution", "tests/remoteexecution"],
        services: &["REMOTE_EXECUTION_SERVICE"],
    },
    Suite {
        name: "remote-cache",
        arguments: &["--remote-cache", "tests/remotecache"],
        services: &["ARTIFACT_INDEX_SERVICE", "ARTIFACT_STORAGE_SERVICE"],
    },
    Suite {
        name: "integration",
        // The tests of recc download it.
        arguments: &[
            "--integration",
            "tests/integration",
            "--ignore=tests/integration/recc.py",
        ],
        services: &["ROOTCELLAR_INTEGRATION_SERVICE"],
    },
];

/// Tests that say nothing about a server here.
const LEFT_OUT: &[&str] = &[
    // They expect the digests of upstream's own base system.
    "--ignore=tests/integration/digest-environment.py",
    // They start clients that do not know of the server.
    "--ignore=tests/integration/interactive_build.py",
    // They download recc.
    "--ignore=tests/integration/recc.py",
    // It expects an error of the local sandbox.
    "--deselect=tests/integration/cachedfail.py::test_host_tools_errors_are_not_cached",
    // They run a shell whose libraries they filter out, which only a base without glibc survives.
    "--deselect=tests/integration/filter.py::test_filter_pass_integration",
    "--deselect=tests/integration/filter.py::test_filter_pass_integration_uncached",
    // It moves /bin aside, which in a Debian is a link already.
    "--deselect=tests/integration/symlinks.py::test_symlink_in_sandbox_path",
];

/// What `cargo xtask upstream` was asked for.
#[derive(Debug, Default, Eq, PartialEq)]
struct Request {
    endpoint: Option<String>,
    suites: Vec<String>,
    for_pytest: Vec<String>,
}

impl Request {
    /// Reads `--endpoint URL` and `--suite NAME`; the first other argument and all after it go to pytest.
    fn read(arguments: &[String]) -> Result<Self, String> {
        let mut request = Self::default();
        let mut rest = arguments;
        while let [name, value, others @ ..] = rest {
            match name.as_str() {
                "--endpoint" => request.endpoint = Some(value.clone()),
                "--suite" if SUITES.iter().any(|suite| suite.name == value) => request.suites.push(value.clone()),
                "--suite" => return Err(format!("there is no suite `{value}`; there are {}", names())),
                _ => break,
            }
            rest = others;
        }
        request.for_pytest = rest.to_vec();
        Ok(request)
    }

    fn wants(&self, suite: &Suite) -> bool {
        self.suites.is_empty() || self.suites.iter().any(|name| name == suite.name)
    }
}

/// Prepares what upstream's tests need, and runs those that `arguments` ask for.
pub(crate) fn run(stages: &mut Stages, arguments: &[String]) -> Result<(), String> {
    let request = Request::read(arguments)?;
    let ground = Ground::default();
    stages.run("upstream: Debian packages", machine::install_upstream_packages)?;
    stages.run("upstream: Python packages and tests", || ground.install_tests())?;
    stages.run("upstream: base system", || ground.make_base_system())?;
    stages.run("upstream: changes to the tests", || {
        ground.point_the_tests_at_the_base_system()
    })?;

    let mut own = None;
    let endpoint = match &request.endpoint {
        Some(endpoint) => endpoint.clone(),
        None => {
            stages.run("upstream: server", || {
                Server::start(&ground.server_directory()).map(|it| own = Some(it))
            })?;
            own.as_ref().map(Server::url).unwrap_or_default()
        }
    };
    let wanted = SUITES.iter().filter(|suite| request.wants(suite));
    // A suite that fails does not keep the next one from telling what it knows.
    let failures: Vec<String> = wanted
        .filter_map(|suite| run_suite(stages, suite, &ground, &endpoint, &request.for_pytest).err())
        .collect();
    if failures.is_empty() {
        return Ok(());
    }
    Err(failures.join("; "))
}

fn run_suite(
    stages: &mut Stages,
    suite: &'static Suite,
    ground: &Ground,
    endpoint: &str,
    arguments: &[String],
) -> Result<(), String> {
    stages.run(suite.name, || {
        let mut pytest = Command::new(ground.python());
        // Upstream's option `--plugins` and pytest's `-p` share a name: no `-p` may be given here.
        pytest
            .args(["-m", "pytest", "-rs"])
            .args(suite.arguments)
            .args(LEFT_OUT)
            .args(arguments);
        pytest.current_dir(ground.tests());
        for service in suite.services {
            pytest.env(service, endpoint);
        }
        run_command(&mut pytest)
    })
}

fn names() -> String {
    SUITES.iter().map(|suite| suite.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Request, String> {
        Request::read(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_not_ours_goes_to_pytest() {
        let request = read(&[
            "--suite",
            "remote-cache",
            "--endpoint",
            "http://there:1",
            "-k",
            "simple",
        ])
        .unwrap();
        assert_eq!(request.endpoint.as_deref(), Some("http://there:1"));
        assert_eq!(request.suites, ["remote-cache"]);
        assert_eq!(request.for_pytest, ["-k", "simple"]);
        assert_eq!(read(&["-x"]).unwrap().for_pytest, ["-x"]);
    }

    #[test]
    fn an_unknown_suite_is_named() {
        let message = read(&["--suite", "everything"]).unwrap_err();
        assert!(
            message.contains("everything") && message.contains("remote-cache"),
            "{message}"
        );
    }
}

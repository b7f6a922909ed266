//! Open workspaces build incrementally: modification times travel in both directions.

use std::fs::{self, File};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rootcellar_tests::Services;

use crate::Kitchen;

/// An element that, like `make`, does again only what is older than its input.
const ELEMENT: &str = "\
kind: manual
build-depends: [ base.bst ]
sources:
- kind: local
  path: files/hello
config:
  build-commands:
  - |
    for input in hello.sh.in notes.txt; do
      if [ ! -e $input.made ] || [ $input -nt $input.made ]; then
        echo \"making $input.made\"
        cp $input $input.made
      fi
    done
  install-commands:
  - mkdir -p '%{install-root}'
  - cp *.made '%{install-root}/'
  - stat -c %Y notes.txt > '%{install-root}/time'
";

/// How far the edited file lies ahead of what was built: more than the second that the base's shell can tell apart.
const LATER: Duration = Duration::from_secs(60);

#[test]
fn a_workspace_build_does_again_only_what_changed() {
    let Some(kitchen) = Kitchen::open() else { return };
    let client = kitchen.client(&Services::execution());
    let bst = |arguments: &[&str]| client.run(&kitchen.project, arguments).expect_success();
    let build = || bst(&["--cache-buildtrees", "always", "build", "made.bst"]);
    kitchen.project.write("elements/made.bst", ELEMENT);
    bst(&["workspace", "open", "--directory", "workspace", "made.bst"]);

    build();
    let log = bst(&["artifact", "log", "made.bst"]);
    log.expect_text("making hello.sh.in.made")
        .expect_text("making notes.txt.made");

    let edited = kitchen.project.write("workspace/notes.txt", "Read me again.\n");
    let time = SystemTime::now() + LATER;
    File::options()
        .write(true)
        .open(edited)
        .unwrap()
        .set_modified(time)
        .unwrap();
    build();
    let log = bst(&["artifact", "log", "made.bst"]);
    log.expect_text("making notes.txt.made")
        .expect_no_text("making hello.sh.in.made");

    let made = client.checkout(&kitchen.project, "made.bst");
    assert_eq!(
        fs::read_to_string(made.join("notes.txt.made")).unwrap(),
        "Read me again.\n"
    );
    let seen: u64 = fs::read_to_string(made.join("time")).unwrap().trim().parse().unwrap();
    assert_eq!(seen, time.duration_since(UNIX_EPOCH).unwrap().as_secs());
}

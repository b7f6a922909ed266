//! What no worker can do is refused at once, and the refusal names the property that was not met.

use rootcellar_tests::{Finished, Services};

use crate::Kitchen;

#[test]
fn an_architecture_that_no_worker_has_is_refused_by_name() {
    let Some(failed) = build_in_a_sandbox("build-arch: sparc-v9") else {
        return;
    };
    failed.expect_failure().expect_text("ISA").expect_text("sparc-v9");
}

#[test]
fn an_operating_system_that_no_worker_has_is_refused_by_name() {
    let Some(failed) = build_in_a_sandbox("build-os: aix") else {
        return;
    };
    failed.expect_failure().expect_text("OSFamily").expect_text("aix");
}

#[test]
fn a_socket_to_the_remote_apis_is_refused_by_name() {
    let Some(failed) = build_in_a_sandbox("remote-apis-socket: { path: /run/reapi.sock }") else {
        return;
    };
    failed.expect_failure().expect_text("remoteApisSocketPath");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_worker_also_serves_the_smaller_word_of_its_architecture() {
    let Some(built) = build_in_a_sandbox("build-arch: x86-32") else {
        return;
    };
    built.expect_success();
}

/// Builds an element whose `sandbox` section is `setting`, where this machine can.
fn build_in_a_sandbox(setting: &str) -> Option<Finished> {
    let kitchen = Kitchen::open()?;
    let client = kitchen.client(&Services::execution());
    kitchen.project.write(
        "elements/special.bst",
        &format!(
            "kind: script\nbuild-depends: [ base.bst ]\nsandbox: {{ {setting} }}\nconfig: {{ commands: [ 'true' ] }}\n"
        ),
    );
    Some(client.run(&kitchen.project, &["build", "special.bst"]))
}

//! Instance names: any is served, those with slashes too.

use rootcellar_tests::Services;

use crate::{ACTION_CACHE_HIT, EXECUTION, Kitchen};

#[test]
fn an_instance_name_may_hold_slashes() {
    let Some(kitchen) = Kitchen::open() else { return };
    let instance = "grid/main/blobless/x86".to_owned();
    let services = Services {
        artifacts: true,
        instance,
        ..Services::execution()
    };
    let builder = kitchen.client(&services);
    builder
        .build(&kitchen.project, "hello.bst")
        .expect_text(EXECUTION)
        .expect_text("Pushed artifact");

    let reader = kitchen.client(&Services {
        execution: false,
        action_cache: false,
        ..services.clone()
    });
    reader
        .build(&kitchen.project, "hello.bst")
        .expect_text("Pulled artifact");

    let second = kitchen.client(&Services {
        artifacts: false,
        ..services
    });
    second
        .build(&kitchen.project, "hello.bst")
        .expect_text(ACTION_CACHE_HIT)
        .expect_no_text(EXECUTION);
}

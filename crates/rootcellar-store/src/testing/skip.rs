//! What a test does where the machine lacks something that it needs.

use std::io::Write as _;

/// The variable that forbids skipping. CI sets it: there, what can be run must be run.
const REQUIRE_ALL: &str = "ROOTCELLAR_REQUIRE_ALL";

/// Says aloud, past the test runner's capture, that the calling test is skipped and what it needs.
///
/// # Panics
/// If `ROOTCELLAR_REQUIRE_ALL` is set.
pub fn skip(needs: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(
        std::env::var_os(REQUIRE_ALL).is_none(),
        "{test} may not be skipped here, it needs {needs}"
    );
    // A closed standard error leaves nobody to tell.
    let _unheard = writeln!(std::io::stderr(), "skipped {test}: it needs {needs}");
}

//! The commands and settings about the store on disk: its layout, its check, its measurement.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rootcellar_tests::{CommandLine, Finished, Server, ServerOptions, ServerProgram, need};

/// Larger than what the hybrid layout packs.
const LARGE: usize = 100_000;
const SMALL: usize = 5_000;

/// The commands, without a server.
fn commands() -> Option<CommandLine> {
    Some(CommandLine::without_server(&need(ServerProgram::find())?))
}

/// A store with a server.
fn serve(arguments: &[&str]) -> Option<(Server, CommandLine)> {
    let program = need(ServerProgram::find())?;
    let options = ServerOptions {
        arguments: ["--no-execution"]
            .iter()
            .chain(arguments)
            .map(ToString::to_string)
            .collect(),
        ..ServerOptions::default()
    };
    let server = Server::start_with(&program, &options);
    let client = CommandLine::new(&program, &server);
    Some((server, client))
}

/// `len` bytes that are in no other file.
fn content(mark: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| mark ^ at.to_le_bytes()[0] ^ at.to_le_bytes()[1])
        .collect()
}

fn hash(digest: &str) -> &str {
    digest.split('/').find(|part| part.len() == 64).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What a command printed as JSON, among what it logged.
fn json(finished: &Finished) -> serde_json::Value {
    let (output, begin) = (finished.output(), finished.output().find('{'));
    let end = output.rfind('}').unwrap_or_default();
    let document = begin.and_then(|begin| output.get(begin..=end)).unwrap_or_default();
    serde_json::from_str(document).unwrap_or_else(|error| panic!("no JSON, {error}: {finished}"))
}

/// All files below a directory.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut files, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let into = if entry.file_type().unwrap().is_dir() {
                &mut dirs
            } else {
                &mut files
            };
            into.push(entry.path());
        }
    }
    files
}

/// Changes a byte in the middle of where a blob lies, and tells in which file that is.
fn damage(store: &Path, blob: &[u8]) -> PathBuf {
    for file in files_below(store) {
        let mut bytes = fs::read(&file).unwrap();
        if let Some(at) = bytes.windows(blob.len()).position(|window| window == blob) {
            bytes[at + blob.len() / 2] ^= 1;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
            fs::write(&file, bytes).unwrap();
            return file;
        }
    }
    panic!("the blob is nowhere below {}", store.display());
}

#[test]
fn a_benchmark_gives_a_table_numbers_and_a_page_that_needs_nothing_else() {
    let Some(client) = commands() else { return };
    let (home, numbers, page) = (
        client.path("home"),
        client.path("numbers.json"),
        client.path("page.html"),
    );
    let arguments = [
        "bench", "layouts", "--quick", "--size", "160MiB", "--mix", "c-kernel", "--layout", "hybrid",
    ];
    let files = [
        "--layout",
        "loose",
        "--dir",
        text(&home),
        "--json",
        text(&numbers),
        "--html",
        text(&page),
    ];
    let finished = client.run(&[&arguments[..], &files[..]].concat()).expect_success();
    let finished = finished.expect_text("put, CPU").expect_text("find_missing, CPU");
    assert!(
        finished
            .output()
            .lines()
            .any(|line| line.contains("hybrid") && line.contains("loose")),
        "a table has a column for each: {finished}"
    );
    assert_eq!(
        fs::read_dir(&home).unwrap().count(),
        0,
        "what was made there is removed"
    );
    check_numbers(&fs::read_to_string(&numbers).unwrap());
    check_page(&fs::read_to_string(&page).unwrap());
}

fn check_numbers(text: &str) {
    let report: serde_json::Value = serde_json::from_str(text).unwrap();
    assert!(report["machine"]["threads"].as_u64().unwrap() > 0);
    let samples = report["samples"].as_array().unwrap();
    for candidate in ["hybrid", "loose"] {
        for measure in ["put, CPU", "get warm, CPU", "restart, clock", "put when full, CPU"] {
            let is_it = |sample: &&serde_json::Value| sample["candidate"] == candidate && sample["measure"] == measure;
            let sample = samples.iter().find(is_it);
            let sample = sample.unwrap_or_else(|| panic!("no {measure} of {candidate}"));
            assert_eq!(sample["workload"], "c-kernel");
            assert!(sample["value"].as_f64().unwrap() > 0.0, "{sample}");
        }
    }
}

fn check_page(page: &str) {
    assert!(page.contains("hybrid") && page.contains("loose") && page.contains("c-kernel"));
    for attribute in ["src=", "href=", "url(", "@import"] {
        for (at, _) in page.match_indices(attribute) {
            let target = page[at + attribute.len()..].trim_start_matches(['"', '\'', ' ', '(']);
            let is_elsewhere = target.starts_with("http:") || target.starts_with("https:") || target.starts_with("//");
            assert!(!is_elsewhere, "the page loads {}", &target[..target.len().min(60)]);
        }
    }
}

#[test]
fn the_mixes_of_a_benchmark_are_listed() {
    let Some(client) = commands() else { return };
    let listed = client.run(&["bench", "layouts", "--mix", "list"]).expect_success();
    listed
        .expect_text("node-modules")
        .expect_text("c-kernel")
        .expect_text("Debian");
}

#[test]
fn what_a_benchmark_does_not_know_is_refused_with_what_it_knows() {
    let Some(client) = commands() else { return };
    let bench = |more: &[&str]| {
        let home = client.path("home");
        let finished = client.run(&[&["bench", "layouts", "--dir", text(&home)], more].concat());
        assert!(!home.exists(), "nothing is made before all names are known");
        finished.expect_failure()
    };
    bench(&["--mix", "nonesuch"])
        .expect_text("nonesuch")
        .expect_text("node-modules");
    bench(&["--layout", "nonesuch"])
        .expect_text("nonesuch")
        .expect_text("loose, packed, hybrid");
    bench(&["--figures", "--only", "nonesuch"])
        .expect_text("nonesuch")
        .expect_text("action-cache");
    bench(&["--size", "large"]).expect_text("--size").expect_text("50GiB");
}

/// It was a panic, deep in a store that was full of what was just put.
#[test]
fn a_benchmark_too_small_to_mean_anything_is_refused_with_the_least_size() {
    let Some(client) = commands() else { return };
    let bench = ["bench", "layouts", "--size", "15MiB"];
    let small = client.run(&bench).expect_failure();
    small.expect_text("--size").expect_text("16").expect_no_text("panicked");
    let quick = client.run(&[&bench[..], &["--quick"]].concat()).expect_failure();
    quick.expect_text("160").expect_no_text("panicked");
}

#[test]
fn a_check_of_what_is_no_store_says_so_and_makes_none() {
    let Some(client) = commands() else { return };
    let dir = client.path("empty");
    fs::create_dir(&dir).unwrap();
    for option in [None, Some("--json"), Some("--repair")] {
        let arguments: Vec<&str> = ["fsck", text(&dir)].into_iter().chain(option).collect();
        let refused = client.run(&arguments).expect_failure();
        refused.expect_text("there is no store here").expect_text(text(&dir));
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    let absent = client.path("absent");
    client
        .run(&["fsck", text(&absent)])
        .expect_failure()
        .expect_text("there is no store here");
    assert!(!absent.exists());
}

#[test]
fn a_store_that_a_server_has_left_is_found_as_it_should_be() {
    let Some((mut server, client)) = serve(&[]) else { return };
    client.put("small", &content(1, SMALL));
    client.put("large", &content(2, LARGE));
    server.stop();
    let data = server.data();
    let clean = client.run(&["fsck", text(&data)]).expect_success();
    clean
        .expect_text("as it should be")
        .expect_text("closed in order    yes");
    let found = json(&client.run(&["fsck", text(&data), "--json"]).expect_success());
    assert_eq!(found["is_clean"], true, "{found}");
    assert_eq!(
        (&found["layout"], &found["was_closed"]),
        (&"hybrid".into(), &true.into())
    );
    assert!(found["blobs"].as_u64().unwrap() >= 2, "{found}");
    assert!(found["bytes"].as_u64().unwrap() >= (SMALL + LARGE) as u64, "{found}");
}

#[test]
fn a_damaged_blob_is_found_named_dropped_and_taken_again() {
    let Some((mut server, client)) = serve(&[]) else { return };
    let (small, large) = (content(1, SMALL), content(2, LARGE));
    let whole = client.put("whole", &content(3, SMALL));
    let (packed, loose) = (client.put("small", &small), client.put("large", &large));
    server.stop();
    let data = server.data();
    let in_pack = damage(&data, &small);
    assert!(in_pack.starts_with(data.join("packs")), "{}", in_pack.display());
    let in_file = damage(&data, &large);
    assert!(in_file.starts_with(data.join("loose")), "{}", in_file.display());

    let damaged = client.run(&["fsck", text(&data)]).expect_failure();
    let damaged = damaged.expect_text(&format!("damaged: {packed}"));
    damaged
        .expect_text(&format!("damaged: {loose}"))
        .expect_text("--repair");
    let found = json(&client.run(&["fsck", text(&data), "--json"]).expect_failure());
    assert_eq!(found["is_clean"], false);
    let named: Vec<&str> = found["damaged"]
        .as_array()
        .unwrap()
        .iter()
        .map(|blob| blob["digest"].as_str().unwrap())
        .collect();
    assert_eq!(named.len(), 2, "{found}");
    assert!(
        [&packed, &loose]
            .iter()
            .all(|digest| named.iter().any(|name| name.contains(hash(digest))))
    );

    let repaired = client.run(&["fsck", text(&data), "--repair"]).expect_failure();
    repaired.expect_text("repaired");
    client
        .run(&["fsck", text(&data)])
        .expect_success()
        .expect_text("as it should be");

    server.start_again();
    client.run(&["get", &whole]).expect_success();
    client.run(&["get", &packed]).expect_failure();
    client.run(&["get", &loose]).expect_failure();
    client.put("small", &small);
    client.put("large", &large);
    let copy = client.path("copy");
    client.run(&["get", &loose, "--output", text(&copy)]).expect_success();
    assert_eq!(fs::read(&copy).unwrap(), large);
}

#[test]
fn a_store_in_use_is_not_checked_and_its_process_is_named() {
    let Some((server, client)) = serve(&[]) else { return };
    let user = format!("in use by process {}", server.process_id());
    for option in ["--json", "--repair"] {
        let refused = client.run(&["fsck", text(&server.data()), option]).expect_failure();
        refused.expect_text(&user);
    }
    let second = ["serve", "--no-execution", "--listen", "127.0.0.1:0", "--dir"];
    let refused = client.run(&[&second[..], &[text(&server.data())]].concat());
    refused.expect_failure().expect_text(&user);
}

#[test]
fn a_store_keeps_the_layout_that_it_was_made_with() {
    for (layout, other) in [("loose", "packed"), ("packed", "hybrid"), ("hybrid", "loose")] {
        let Some((mut server, client)) = serve(&["--layout", layout]) else {
            return;
        };
        let blob = client.put("blob", &content(4, SMALL));
        server.restart();
        client.run(&["get", &blob]).expect_success();
        server.stop();

        let data = server.data();
        let format = || fs::read_to_string(data.join("FORMAT")).unwrap();
        let made = format();
        assert!(made.lines().any(|line| line == format!("layout {layout}")), "{made}");
        let again = [
            "serve",
            "--no-execution",
            "--listen",
            "127.0.0.1:0",
            "--dir",
            text(&data),
            "--layout",
            other,
        ];
        let refused = client.run(&again).expect_failure();
        refused
            .expect_text(&format!("{layout:?}"))
            .expect_text(&format!("{other:?}"))
            .expect_text("keeps the layout");
        assert_eq!(format(), made);
        client.run(&["fsck", text(&data)]).expect_success();
    }
}

#[test]
fn a_layout_that_does_not_exist_is_refused_with_those_that_do() {
    let Some(client) = commands() else { return };
    let dir = client.path("data");
    let refused = client.run(&["serve", "--dir", text(&dir), "--layout", "nonesuch"]);
    refused
        .expect_failure()
        .expect_text("nonesuch")
        .expect_text("loose")
        .expect_text("packed")
        .expect_text("hybrid");
    assert!(!dir.exists());
}

#[test]
fn the_settings_of_the_store_are_taken_from_the_file() {
    let Some(client) = commands() else { return };
    let settings = client.path("settings.toml");
    let lines = "layout = 'packed'\ndurability = 'always'\nsync_interval_ms = 50\nmin_lifetime_seconds = 60\n\
                 when_full = 'refuse'\nscrub_rate = '0'\n";
    fs::write(&settings, lines).unwrap();
    let Some((server, served)) = serve(&["--config", text(&settings)]) else {
        return;
    };
    let blob = served.put("blob", &content(5, LARGE));
    served.run(&["get", &blob]).expect_success();
    let made = fs::read_to_string(server.data().join("FORMAT")).unwrap();
    assert!(made.contains("layout packed"), "{made}");
}

#[test]
fn a_wrong_setting_of_the_store_is_refused_by_name() {
    let Some(client) = commands() else { return };
    let (settings, dir) = (client.path("settings.toml"), client.path("data"));
    let wrong = [
        ("layout", "'nonesuch'"),
        ("layout", "7"),
        ("durability", "'sometimes'"),
        ("sync_interval_ms", "0"),
        ("sync_interval_ms", "'1s'"),
        ("min_lifetime_seconds", "-1"),
        ("min_lifetime_seconds", "'3h'"),
        ("when_full", "'panic'"),
        ("scrub_rate", "'fast'"),
        ("scrub_rate", "true"),
    ];
    for (key, value) in wrong {
        fs::write(&settings, format!("{key} = {value}\n")).unwrap();
        let refused = client.run(&["serve", "--dir", text(&dir), "--config", text(&settings)]);
        refused.expect_failure().expect_text(key);
    }
    for (key, nearest) in [
        ("sync_intervall_ms", "sync_interval_ms"),
        ("when-full", "when_full"),
        ("scrub", "scrub_rate"),
    ] {
        fs::write(&settings, format!("{key} = 1\n")).unwrap();
        let refused = client.run(&["serve", "--dir", text(&dir), "--config", text(&settings)]);
        refused
            .expect_failure()
            .expect_text(&format!("{key:?}"))
            .expect_text(&format!("{nearest:?}"));
    }
    assert!(!dir.exists(), "nothing is made before the settings are found good");
}

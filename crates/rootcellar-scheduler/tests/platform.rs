//! Platform properties: what is asked for, what is offered, and what is said when the two do not meet.

#![allow(clippy::unwrap_used)]

use rootcellar_proto::reapi::{Platform, platform::Property};
use rootcellar_proto::rpc::Code;
use rootcellar_scheduler::{Error, Offer, Policy, Requirements, Scheduler, Task, Time};

fn linux() -> Offer {
    Offer::new()
        .os_family("linux")
        .isa("x86-64")
        .network(false)
        .unix_ids(0..=999)
}

fn asks<const N: usize>(pairs: [(&str, &str); N]) -> Requirements {
    Requirements::new(pairs).unwrap()
}

fn runs<const N: usize>(offer: &Offer, pairs: [(&str, &str); N]) -> bool {
    offer.satisfies(&asks(pairs))
}

fn refusal<const N: usize>(platforms: &[Offer], pairs: [(&str, &str); N]) -> Error {
    let mut scheduler = Scheduler::new(Policy {
        platforms: platforms.to_vec(),
        ..Policy::default()
    });
    let task = Task {
        action: rootcellar_digest::Digest::empty(rootcellar_digest::DigestFunction::Sha256),
        requirements: asks(pairs),
        priority: 0,
        timeout: None,
        do_not_cache: false,
    };
    scheduler.submit("a".into(), task, Time::START).unwrap_err()
}

#[test]
fn every_worker_runs_what_asks_for_nothing() {
    assert!(runs(&Offer::new(), []));
    assert!(runs(&linux(), []));
}

#[test]
fn os_family_is_matched_exactly_and_asked_for_once() {
    assert!(runs(&linux(), [("OSFamily", "linux")]));
    assert!(!runs(&linux(), [("OSFamily", "Linux")]));
    assert!(!runs(&linux(), [("osfamily", "linux")]));
    for values in [["linux", "linux"], ["linux", "macos"]] {
        let error = Requirements::new(values.map(|value| ("OSFamily", value))).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.to_string().contains("OSFamily"), "{error}");
    }
}

#[test]
fn a_worker_must_have_all_of_isa() {
    let avx = linux().isa("x86-avx2");
    assert!(runs(&avx, [("ISA", "x86-64"), ("ISA", "x86-avx2")]));
    assert!(!runs(&linux(), [("ISA", "x86-64"), ("ISA", "x86-avx2")]));
}

#[test]
fn a_64_bit_x86_runs_32_bit_programs_and_not_the_other_way_round() {
    assert!(runs(&linux(), [("ISA", "x86-32")]));
    assert!(!runs(&Offer::new().isa("x86-32"), [("ISA", "x86-64")]));
}

#[test]
fn both_spellings_of_the_arm_architectures_mean_the_same() {
    for (alias, isa) in [
        ("aarch64", "arm-a64"),
        ("aarch32", "arm-a32"),
        ("aarch64-be", "arm-a64-be"),
        ("aarch32-be", "arm-a32-be"),
    ] {
        for offered in [alias, isa] {
            let offer = Offer::new().isa(offered);
            assert!(runs(&offer, [("ISA", alias)]) && runs(&offer, [("ISA", isa)]));
        }
        assert_eq!(asks([("ISA", alias)]), asks([("ISA", isa)]));
    }
    assert!(
        !runs(&Offer::new().property("isa", "arm-a64"), [("isa", "aarch64")]),
        "other properties have no aliases"
    );
}

#[test]
fn ids_are_decimal_numbers_within_what_the_worker_can_map() {
    assert!(runs(&linux(), [("unixUID", "0"), ("unixGID", "999")]));
    assert!(!runs(&linux(), [("unixUID", "1000")]));
    assert!(!runs(&linux(), [("unixUID", "18446744073709551615")]));
    assert!(!runs(&Offer::new(), [("unixUID", "0")]));
    for bad in ["", "-1", "+1", "01", "1.0", "0x1", "root", " 1", "18446744073709551616"] {
        let error = Requirements::new([("unixGID", bad)]).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{bad:?} was taken for an id");
    }
}

#[test]
fn a_network_is_given_only_where_it_is_allowed() {
    let online = linux().network(true);
    assert!(runs(&online, [("network", "on")]) && runs(&online, [("network", "off")]));
    assert!(runs(&linux(), [("network", "off")]) && !runs(&linux(), [("network", "on")]));
    assert!(!runs(&online.network(false), [("network", "on")]));
}

#[test]
fn a_configured_property_accepts_each_of_its_values() {
    let offer = linux().property("pool", "big").property("pool", "fast");
    assert!(runs(&offer, [("pool", "fast")]));
    assert!(runs(&offer, [("pool", "big"), ("pool", "fast")]));
    assert!(!runs(&offer, [("pool", "big"), ("pool", "small")]));
}

#[test]
fn the_order_of_properties_does_not_matter() {
    let platform = |names: [&str; 2]| Platform {
        properties: names
            .map(|name| Property {
                name: name.to_owned(),
                value: "7".to_owned(),
            })
            .to_vec(),
    };
    let sorted = Requirements::of(&platform(["a", "b"])).unwrap();
    assert_eq!(sorted, Requirements::of(&platform(["b", "a"])).unwrap());
    assert_eq!(sorted.iter().collect::<Vec<_>>(), [("a", "7"), ("b", "7")]);
}

#[test]
fn what_is_asked_for_is_bounded() {
    let names: Vec<_> = (0..65).map(|n| n.to_string()).collect();
    let pairs = |count| Requirements::new(names[..count].iter().map(|name| (name.as_str(), "")));
    assert!(pairs(64).is_ok());
    assert_eq!(pairs(65).unwrap_err().code(), Code::InvalidArgument);
    let long = "é".repeat(513);
    let error = Requirements::new([(long.as_str(), "x")]).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.to_string().len() < 200, "{error}");
}

#[test]
fn a_refusal_names_the_property_the_value_and_what_is_offered() {
    let error = refusal(&[linux()], [("ISA", "sparc-v9"), ("OSFamily", "linux")]);
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert_eq!(
        error.to_string(),
        "no worker can run an action with platform property ISA=sparc-v9: offered is x86-32, x86-64"
    );
    let error = refusal(&[linux()], [("unixUID", "1000")]);
    assert!(
        error.to_string().ends_with("unixUID=1000: offered is 0 to 999"),
        "{error}"
    );
    let error = refusal(&[linux()], [("network", "on")]);
    assert!(error.to_string().ends_with("network=on: offered is off"), "{error}");
}

#[test]
fn a_refusal_of_an_unknown_name_lists_the_known_ones() {
    let text = refusal(&[linux()], [("color", "red")]).to_string();
    assert!(text.contains("color=red"), "{text}");
    assert!(text.contains("ISA, OSFamily, network, unixGID, unixUID"), "{text}");
    for name in ["remoteApisSocketPath", "chrootRootDigest"] {
        let text = refusal(&[linux()], [(name, "x")]).to_string();
        assert!(text.contains(name) && text.contains("does not support"), "{text}");
    }
}

#[test]
fn a_refusal_says_what_the_closest_worker_lacks() {
    let arm = Offer::new().os_family("linux").isa("arm-a64").property("pool", "big");
    let Error::Unsatisfiable(why) = refusal(
        &[linux(), arm],
        [("ISA", "x86-64"), ("OSFamily", "linux"), ("pool", "big")],
    ) else {
        panic!("somebody offers each of them, but nobody all");
    };
    assert!(["ISA", "pool"].contains(&why.property.as_str()), "{why}");
}

#[test]
fn a_refusal_repeats_no_more_of_a_value_than_fits_a_line() {
    let long = "\u{1f980}\n".repeat(200);
    let text = refusal(&[linux()], [("pool", &long)]).to_string();
    assert!(text.len() < 400 && !text.contains('\n'), "{text}");
}

#[test]
fn without_workers_everything_is_refused() {
    assert_eq!(refusal(&[], []), Error::NoWorkers);
    assert_eq!(refusal(&[], [("ISA", "x86-64")]), Error::NoWorkers);
    assert_eq!(Error::NoWorkers.code(), Code::FailedPrecondition);
}

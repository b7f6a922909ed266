//! The messages that say what is to be run.

use std::time::Duration;

use rootcellar_digest::Digest;
use rootcellar_proto::reapi::command::{EnvironmentVariable, OutputDirectoryFormat};
use rootcellar_proto::reapi::platform::Property;
use rootcellar_proto::reapi::{Action, Command, Platform};
use rootcellar_reapi::functions::to_proto;

use crate::cli;

/// Where commands are looked for unless the user says where.
const PATH: &str = "/usr/bin:/bin";

/// The command, in canonical form: equal commands have equal digests, and so one entry in the action cache.
pub(super) fn command(options: &cli::Exec) -> Command {
    let mut output_paths = options.outputs.clone();
    output_paths.sort_unstable();
    output_paths.dedup();
    #[expect(deprecated, reason = "servers of before 2.2 look for the platform here only")]
    Command {
        arguments: options.argv.clone(),
        environment_variables: environment(&options.env),
        output_paths,
        working_directory: options.working_directory.clone(),
        platform: Some(platform(&options.properties)),
        // Whichever of them the server knows how to make; `Tree` alone if it knows this field not at all.
        output_directory_format: OutputDirectoryFormat::TreeAndDirectory.into(),
        ..Default::default()
    }
}

/// The action: the command and where it runs.
pub(super) fn action(options: &cli::Exec, command: Digest, root: Digest) -> Action {
    Action {
        command_digest: Some(to_proto(command)),
        input_root_digest: Some(to_proto(root)),
        timeout: options.timeout.map(|seconds| {
            let timeout = Duration::from_secs(seconds.into());
            timeout.try_into().expect("2^32 seconds are a valid duration")
        }),
        platform: Some(platform(&options.properties)),
        ..Default::default()
    }
}

/// The variables by name; of those given twice, the last counts.
fn environment(given: &[(String, String)]) -> Vec<EnvironmentVariable> {
    let default = [("PATH".to_owned(), PATH.to_owned())];
    let given: std::collections::BTreeMap<_, _> = match given {
        [] => default.into_iter().collect(),
        given => given.iter().cloned().collect(),
    };
    let variable = |(name, value)| EnvironmentVariable { name, value };
    given.into_iter().map(variable).collect()
}

/// The properties that were given, and this machine's own system and instruction set unless others were given: programs in
/// the root were most likely made for it.
fn platform(given: &[(String, String)]) -> Platform {
    let is_given = |wanted: &str| given.iter().any(|(name, _)| name == wanted);
    let own = [("OSFamily", Some("linux")), ("ISA", isa(std::env::consts::ARCH))];
    let own = own.into_iter().filter(|(name, _)| !is_given(name));
    let own = own.filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
    let mut properties: Vec<(String, String)> = given.iter().cloned().chain(own).collect();
    properties.sort_unstable();
    properties.dedup();
    let property = |(name, value)| Property { name, value };
    Platform {
        properties: properties.into_iter().map(property).collect(),
    }
}

/// The instruction set as the API's platform lexicon has it (`platform.md`); `None` if it has it not.
fn isa(arch: &str) -> Option<&'static str> {
    match arch {
        "x86_64" => Some("x86-64"),
        "x86" => Some("x86-32"),
        "aarch64" => Some("arm-a64"),
        "arm" => Some("arm-a32"),
        "riscv64" => Some("rv64g"),
        "loongarch64" => Some("la64v100"),
        "powerpc64" if cfg!(target_endian = "little") => Some("power-isa-le"),
        "powerpc64" => Some("power-isa-be"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn options(arguments: &[&str]) -> cli::Exec {
        let arguments = ["rootcellar", "exec", "--root", "root"].iter().chain(arguments);
        match cli::Arguments::parse_from(arguments).command {
            cli::Command::Exec(options) => options,
            other => panic!("{other:?}"),
        }
    }

    fn pairs(platform: &Platform) -> Vec<(&str, &str)> {
        let properties = platform.properties.iter();
        properties
            .map(|property| (property.name.as_str(), property.value.as_str()))
            .collect()
    }

    #[test]
    fn a_command_is_canonical_however_it_was_typed() {
        let one = [
            "--env=B=1",
            "--env=A=2",
            "--output=y",
            "--output=x",
            "--output=y",
            "--",
            "true",
        ];
        let other = [
            "--output=x",
            "--env=A=2",
            "--output=y",
            "--env=B=0",
            "--env=B=1",
            "--",
            "true",
        ];
        let one = command(&options(&one));
        assert_eq!(one, command(&options(&other)));
        assert_eq!(one.output_paths, ["x", "y"]);
        let names: Vec<_> = one
            .environment_variables
            .iter()
            .map(|variable| variable.name.as_str())
            .collect();
        assert_eq!(names, ["A", "B"]);
    }

    #[test]
    fn a_path_is_set_unless_there_is_an_environment() {
        let variables = |arguments: &[&str]| command(&options(arguments)).environment_variables;
        assert_eq!(variables(&["--", "true"])[0].value, PATH);
        assert_eq!(variables(&["--env=HOME=/", "--", "true"]).len(), 1);
    }

    #[test]
    fn this_machine_is_asked_for_unless_another_is() {
        let digest = Digest::empty(rootcellar_digest::DigestFunction::Sha256);
        let platform = |arguments: &[&str]| action(&options(arguments), digest, digest).platform.unwrap();
        let own = platform(&["--", "true"]);
        assert!(pairs(&own).contains(&("OSFamily", "linux")), "{own:?}");
        let other = platform(&[
            "--platform=ISA=power-isa-le",
            "--platform=Pool=a",
            "--platform=ISA=x",
            "--",
            "true",
        ]);
        assert_eq!(
            pairs(&other),
            [
                ("ISA", "power-isa-le"),
                ("ISA", "x"),
                ("OSFamily", "linux"),
                ("Pool", "a")
            ]
        );
    }

    #[test]
    fn only_what_is_wanted_bounds_the_time() {
        let digest = Digest::empty(rootcellar_digest::DigestFunction::Sha256);
        let timeout = |arguments: &[&str]| action(&options(arguments), digest, digest).timeout;
        assert_eq!(timeout(&["--", "true"]), None);
        assert_eq!(timeout(&["--timeout=90", "--", "true"]).unwrap().seconds, 90);
    }
}

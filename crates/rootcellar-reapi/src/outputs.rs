//! What a command is asked to leave behind: which paths, in which shape.
//!
//! A client asks either for `output_paths`, of any kind of node, or by the older lists for files and for directories, which
//! count only if there are no `output_paths`. Every path is kept twice: as the string that was asked for, which the result
//! echoes unchanged, and as the place inside the input root that it means. BuildStream asks for `.` and for
//! `../../../install`; both are followed by their text, up to the root as a whole and never beyond.

use std::collections::BTreeSet;

use rootcellar_proto::reapi::{self, command::OutputDirectoryFormat};

use crate::quoted::Quoted;
use crate::{Error, RelPath, Result};

/// The bytes that all resolved output paths of a command may have together. A short string may stand for a long path, since
/// each starts from the working directory.
pub const OUTPUT_PATH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The node properties that [`OutputProperties`] can ask for, to be announced as `supported_node_properties`.
pub const OUTPUT_PROPERTIES: [&str; 2] = [MTIME, UNIX_MODE];

const MTIME: &str = "mtime";
const UNIX_MODE: &str = "unix_mode";

/// Everything that a command says about its outputs, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outputs {
    /// The paths to bring back, in the order of the command.
    pub paths: Vec<OutputPath>,
    /// How directories are described in the result.
    pub directory_format: OutputDirectoryFormat,
    /// What to tell of every node beside its content.
    pub properties: OutputProperties,
}

/// One path that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPath {
    /// The string that was asked for, which the result echoes.
    pub requested: String,
    /// The place that it means, from the input root.
    pub path: RelPath,
    /// What may be found there.
    pub expected: OutputKind,
}

/// What may be found at an output's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// A file, a directory, or a symlink that is not followed: asked for by `output_paths`.
    Any,
    /// A file, or a symlink to one: asked for by `output_files`.
    File,
    /// A directory, or a symlink to one: asked for by `output_directories`.
    Directory,
}

/// Node properties that the result tells of every file, directory and symlink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutputProperties {
    /// When the node was modified last.
    pub mtime: bool,
    /// Its permissions.
    pub unix_mode: bool,
}

impl Outputs {
    /// Checks the outputs of a command that runs in `working_directory`.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if a path leaves the input root or is malformed, if the older
    /// lists contradict each other (REAPI, `Command.output_files`), or if a property is asked for that is not captured.
    pub fn parse(command: &reapi::Command, working_directory: &RelPath) -> Result<Self> {
        let format = OutputDirectoryFormat::try_from(command.output_directory_format);
        Ok(Self {
            paths: parse_paths(command, working_directory)?,
            // What the API adds later acts as TREE_ONLY.
            directory_format: format.unwrap_or(OutputDirectoryFormat::TreeOnly),
            properties: parse_properties(&command.output_node_properties)?,
        })
    }

    /// The directories that have to exist before the command runs: those that hold the outputs, but no output itself.
    pub fn parents(&self) -> BTreeSet<RelPath> {
        self.paths.iter().filter_map(|output| output.path.parent()).collect()
    }
}

fn parse_properties(names: &[String]) -> Result<OutputProperties> {
    let mut properties = OutputProperties::default();
    for name in names {
        match name.as_str() {
            MTIME => properties.mtime = true,
            UNIX_MODE => properties.unix_mode = true,
            _ => {
                return Err(Error::invalid_argument(format!(
                    "output_node_properties: {} is not supported here; {MTIME} and {UNIX_MODE} are",
                    Quoted(name)
                )));
            }
        }
    }
    Ok(properties)
}

#[expect(deprecated, reason = "clients older than API 2.1 send the older lists")]
fn parse_paths(command: &reapi::Command, working_directory: &RelPath) -> Result<Vec<OutputPath>> {
    let mut resolver = Resolver::new(working_directory);
    if !command.output_paths.is_empty() {
        return resolver.resolve(OutputKind::Any, "output_paths", &command.output_paths);
    }
    let mut outputs = resolver.resolve(OutputKind::File, "output_files", &command.output_files)?;
    outputs.extend(resolver.resolve(OutputKind::Directory, "output_directories", &command.output_directories)?);
    check_older_lists(&outputs)?;
    Ok(outputs)
}

/// Resolves paths from the working directory, within a budget.
struct Resolver<'a> {
    working_directory: &'a RelPath,
    bytes_left: usize,
}

impl<'a> Resolver<'a> {
    fn new(working_directory: &'a RelPath) -> Self {
        Self {
            working_directory,
            bytes_left: OUTPUT_PATH_BYTES_MAX,
        }
    }

    /// Resolves one list. A string that comes again asks for nothing more.
    fn resolve(&mut self, expected: OutputKind, field: &str, list: &[String]) -> Result<Vec<OutputPath>> {
        let mut seen = BTreeSet::new();
        let mut outputs = Vec::new();
        for requested in list {
            let is_new = seen.insert(requested);
            if is_new || expected != OutputKind::Any {
                let path = self.path(requested).map_err(|error| error.about(field))?;
                outputs.push(OutputPath {
                    requested: requested.clone(),
                    path,
                    expected,
                });
            }
        }
        Ok(outputs)
    }

    fn path(&mut self, requested: &str) -> Result<RelPath> {
        let path = self.working_directory.join_lexically(requested)?;
        let cost = requested.len() + path.as_str().len();
        self.bytes_left = self.bytes_left.checked_sub(cost).ok_or_else(|| {
            Error::invalid_argument(format!(
                "all paths together have more than {OUTPUT_PATH_BYTES_MAX} bytes"
            ))
        })?;
        Ok(path)
    }
}

/// The rules of the older lists: no path twice, and nothing below a file.
fn check_older_lists(outputs: &[OutputPath]) -> Result<()> {
    let mut sorted: Vec<&OutputPath> = outputs.iter().collect();
    // Segment by segment: then all that lies below a path comes right after it.
    sorted.sort_by(|a, b| a.path.components().cmp(b.path.components()));
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0].path == pair[1].path) {
        return Err(Error::invalid_argument(format!(
            "output {} is asked for twice",
            Quoted(&twice[1].requested)
        )));
    }
    let mut file: Option<&OutputPath> = None;
    for output in sorted {
        match file {
            Some(file) if output.path.starts_with(&file.path) => {
                return Err(Error::invalid_argument(format!(
                    "output {} lies below {}, which has to be a file",
                    Quoted(&output.requested),
                    Quoted(&file.requested)
                )));
            }
            _ if output.expected == OutputKind::File => file = Some(output),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ErrorKind;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn new_style(paths: &[&str]) -> reapi::Command {
        reapi::Command {
            output_paths: strings(paths),
            ..Default::default()
        }
    }

    #[expect(deprecated, reason = "clients older than API 2.1 send the older lists")]
    fn old_style(files: &[&str], directories: &[&str]) -> reapi::Command {
        reapi::Command {
            output_files: strings(files),
            output_directories: strings(directories),
            ..Default::default()
        }
    }

    fn parse_in(working_directory: &str, command: &reapi::Command) -> Result<Outputs> {
        Outputs::parse(command, &RelPath::parse(working_directory).unwrap())
    }

    fn resolved(outputs: &Outputs) -> Vec<(&str, &str)> {
        outputs
            .paths
            .iter()
            .map(|output| (output.requested.as_str(), output.path.as_str()))
            .collect()
    }

    fn assert_invalid(command: &reapi::Command) {
        let error = parse_in("a/b", command).expect_err("wrong outputs were taken");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn buildstream_s_paths_are_followed_and_kept_as_they_are() {
        let outputs = parse_in(
            "buildstream/hello.bst",
            &new_style(&[".", "../../install", "../..", ""]),
        )
        .unwrap();
        assert_eq!(
            resolved(&outputs),
            [
                (".", "buildstream/hello.bst"),
                ("../../install", "install"),
                ("../..", ""),
                ("", "buildstream/hello.bst"),
            ]
        );
    }

    #[test]
    fn no_output_lies_outside_the_root() {
        for path in ["../../..", "../../../etc/passwd", "/etc/passwd", "a/", "a//b", "a\0b"] {
            assert_invalid(&new_style(&[path]));
            assert_invalid(&old_style(&[path], &[]));
            assert_invalid(&old_style(&[], &[path]));
        }
    }

    #[test]
    fn the_older_lists_count_only_without_output_paths() {
        let mixed = reapi::Command {
            output_paths: strings(&["x"]),
            ..old_style(&["twice", "twice"], &[])
        };
        let outputs = parse_in("", &mixed).unwrap();
        assert_eq!(resolved(&outputs), [("x", "x")]);
        assert_eq!(outputs.paths[0].expected, OutputKind::Any);
    }

    #[test]
    fn a_path_that_is_asked_for_again_is_one_output() {
        assert_eq!(parse_in("", &new_style(&["x", "y", "x"])).unwrap().paths.len(), 2);
        let spellings = parse_in("", &new_style(&["x", "./x"])).unwrap();
        assert_eq!(resolved(&spellings), [("x", "x"), ("./x", "x")]);
    }

    #[test]
    fn the_older_lists_must_not_contradict_each_other() {
        assert_invalid(&old_style(&["x", "x"], &[]));
        assert_invalid(&old_style(&["x", "./x"], &[]));
        assert_invalid(&old_style(&["x"], &["x"]));
        assert_invalid(&old_style(&["x", "x/y/z"], &[]));
        assert_invalid(&old_style(&["x/y", "x-y", "x", "x.y"], &[]));
        assert_invalid(&old_style(&[], &["x", "x"]));
        let nested = parse_in("a", &old_style(&["x/f", "xx"], &["x", "x/y", "", "xy"])).unwrap();
        assert_eq!(nested.paths.len(), 6);
        assert_eq!(nested.paths[0].expected, OutputKind::File);
        assert_eq!(nested.paths[5].expected, OutputKind::Directory);
    }

    #[test]
    fn what_holds_an_output_exists_before_the_command_runs() {
        let outputs = parse_in("w", &new_style(&["a/b/c", "a/b/d", "e", "."])).unwrap();
        let parents: Vec<_> = outputs.parents().iter().map(ToString::to_string).collect();
        assert_eq!(parents, [".", "w", "w/a/b"]);
        assert!(parse_in("", &new_style(&["."])).unwrap().parents().is_empty());
    }

    #[test]
    fn a_property_that_is_not_captured_is_refused_by_name() {
        let asking = |names: &[&str]| reapi::Command {
            output_node_properties: strings(names),
            ..Default::default()
        };
        let both = parse_in("", &asking(&OUTPUT_PROPERTIES)).unwrap().properties;
        assert!(both.mtime && both.unix_mode);
        assert_eq!(
            parse_in("", &asking(&[])).unwrap().properties,
            OutputProperties::default()
        );
        let error = parse_in("", &asking(&["mtime", "xattr"])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("\"xattr\""), "{error}");
    }

    #[test]
    fn a_directory_format_of_a_newer_api_acts_as_a_tree() {
        for (number, format) in [
            (0, OutputDirectoryFormat::TreeOnly),
            (1, OutputDirectoryFormat::DirectoryOnly),
            (2, OutputDirectoryFormat::TreeAndDirectory),
            (3, OutputDirectoryFormat::TreeOnly),
            (-1, OutputDirectoryFormat::TreeOnly),
        ] {
            let command = reapi::Command {
                output_directory_format: number,
                ..Default::default()
            };
            assert_eq!(parse_in("", &command).unwrap().directory_format, format);
        }
    }

    #[test]
    fn short_strings_cannot_stand_for_any_number_of_long_paths() {
        let long = vec!["x".repeat(250); 16].join("/");
        let paths: Vec<String> = (0..5000).map(|number| number.to_string()).collect();
        let command = reapi::Command {
            output_paths: paths,
            ..Default::default()
        };
        let error = parse_in(&long, &command).unwrap_err();
        assert!(error.to_string().contains("all paths together"), "{error}");
    }

    proptest! {
        #[test]
        fn every_output_stays_below_the_root_and_keeps_its_string(
            working_directory in "([ab]/){0,3}[ab]",
            paths in proptest::collection::btree_set("(\\.\\./|[ab]/|\\./){0,4}[abc.]", 1..6),
        ) {
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            if let Ok(outputs) = parse_in(&working_directory, &new_style(&paths)) {
                let requested: Vec<&str> = outputs.paths.iter().map(|output| output.requested.as_str()).collect();
                prop_assert_eq!(requested, paths);
                for output in &outputs.paths {
                    prop_assert!(RelPath::parse(output.path.as_str()).is_ok());
                }
            }
        }

        #[test]
        fn the_rules_of_the_older_lists_hold_for_what_is_taken(
            files in proptest::collection::vec("([ab]/){0,2}[ab]", 0..4),
            directories in proptest::collection::vec("([ab]/){0,2}[ab]", 0..4),
        ) {
            let all: Vec<&str> = files.iter().chain(&directories).map(String::as_str).collect();
            let is_above = |above: &str, below: &str| below.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'));
            let twice = (1..all.len()).any(|at| all[..at].contains(&all[at]));
            let below_a_file = files.iter().any(|file| all.iter().any(|other| is_above(file, other)));
            let files: Vec<&str> = files.iter().map(String::as_str).collect();
            let directories: Vec<&str> = directories.iter().map(String::as_str).collect();
            let outcome = parse_in("", &old_style(&files, &directories));
            prop_assert_eq!(outcome.is_err(), twice || below_a_file);
        }
    }
}

//! Compares what `proto/` compiles to with the published wire facts, item by item and in both directions.
//!
//! `reapi-descriptor.json` is a `google.protobuf.FileDescriptorSet` as JSON, made from the upstream files: remote-apis
//! at becdd8f9ff81 (the wire of v2.12.0), googleapis at f8291d2b89f0 and gRPC health of grpcio-health-checking 1.85.1.
//! Both sets are flattened into [`Facts`], one for each thing that another implementation could notice, and every fact
//! that differs is reported before the test fails.
//!
//! Left out on purpose are options for other languages' generators, HTTP annotations with their imports (no HTTP/JSON
//! is served), and the extension `google.longrunning.operation_info` (it only annotates methods).

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::iter::once;

use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto, ServiceDescriptorProto,
};
use rootcellar_proto::FILE_DESCRIPTOR_SET;
use serde_json::Value;

#[test]
fn the_compiled_files_state_the_published_wire_facts() {
    let published = Facts::of(&published_set());
    let compiled = Facts::of(&compiled_set());
    assert!(published.0.len() > 2_000, "only {} facts were read", published.0.len());

    let differences = differences(&published, &compiled);
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

#[test]
fn every_kind_of_change_is_a_difference() {
    let published = Facts::of(&published_set());
    for (change, expected) in CHANGES {
        let mut set = compiled_set();
        change(&mut set);
        let found = differences(&published, &Facts::of(&set));
        assert!(
            found.iter().any(|line| line.contains(expected)),
            "{expected}: not among {found:#?}"
        );
    }
}

/// Makes a set of files disagree with what is published.
type Change = fn(&mut FileDescriptorSet);

/// Changes, each with words of the line that has to report it.
#[rustfmt::skip]
const CHANGES: [(Change, &str); 19] = [
    (|set| set.file.retain(|file| !file.name().ends_with("semver.proto")), "semver.proto package"),
    (|set| message(set, "LogFile").name = Some("Log".into()), "v2.Log map_entry"),
    (|set| message(set, "Command").nested_type.clear(), "Command.EnvironmentVariable map_entry"),
    (|set| message(set, "ExecuteResponse").nested_type[0].options = None, "ServerLogsEntry map_entry"),
    (|set| message(set, "Action").reserved_range.clear(), "Action reserves 8..9"),
    (|set| message(set, "Operation").oneof_decl[0].name = Some("end".into()), "Operation has oneof end"),
    (|set| message(set, "Digest").field[0].number = Some(7), "Digest.hash number"),
    (|set| message(set, "Digest").field[1].set_type(Type::Uint64), "Digest.size_bytes type"),
    (|set| message(set, "Tree").field[0].type_name = Some(".Other".into()), "Tree.root type_name"),
    (|set| message(set, "Tree").field[1].set_label(Label::Optional), "Tree.children label"),
    (|set| message(set, "Digest").field[1].json_name = Some("size".into()), "Digest.size_bytes json_name"),
    (|set| message(set, "Operation").field[3].oneof_index = None, "Operation.error oneof"),
    (|set| message(set, "Digest").field[0].proto3_optional = Some(true), "Digest.hash proto3_optional"),
    (|set| message(set, "Command").field[2].options = None, "Command.output_files deprecated"),
    (|set| message(set, "Compressor").enum_type[0].value[1].number = Some(9), "Compressor.Value.ZSTD number"),
    (|set| method(set, "health.proto", "Check").name = Some("Probe".into()), "Health.Probe input"),
    (|set| method(set, "health.proto", "List").output_type = None, "Health.List output"),
    (|set| method(set, "bytestream.proto", "Write").client_streaming = None, "Write client_streaming"),
    (|set| method(set, "bytestream.proto", "Read").server_streaming = None, "Read server_streaming"),
];

fn message<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut DescriptorProto {
    let ours = set.file.iter_mut().filter(|file| is_ours(file.name()));
    let mut messages = ours.flat_map(|file| &mut file.message_type);
    messages.find(|message| message.name() == name).unwrap()
}

fn method<'a>(set: &'a mut FileDescriptorSet, file: &str, name: &str) -> &'a mut MethodDescriptorProto {
    let file = set
        .file
        .iter_mut()
        .find(|candidate| candidate.name().ends_with(file))
        .unwrap();
    let mut methods = file.service.iter_mut().flat_map(|service| &mut service.method);
    methods.find(|method| method.name() == name).unwrap()
}

/// All files but those of this project, which nobody else publishes.
fn compiled_set() -> FileDescriptorSet {
    let mut set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    set.file.retain(|file| !file.package().starts_with("rootcellar."));
    set
}

fn published_set() -> FileDescriptorSet {
    let mut json = serde_json::from_str::<Value>(include_str!("reapi-descriptor.json")).unwrap();
    json["file"]
        .as_array_mut()
        .unwrap()
        .retain(|file| is_ours(file["name"].as_str().unwrap()));

    // Annotations are options that `descriptor.proto` does not know.
    let ignoring_annotations = DeserializeOptions::new().deny_unknown_fields(false);
    let schema = DescriptorPool::global()
        .get_message_by_name("google.protobuf.FileDescriptorSet")
        .unwrap();
    let set = DynamicMessage::deserialize_with_options(schema, json, &ignoring_annotations).unwrap();
    set.transcode_to().unwrap()
}

fn is_ours(file: &str) -> bool {
    !file.starts_with("google/protobuf/") && !is_annotation(file)
}

fn is_annotation(file: &str) -> bool {
    file.starts_with("google/api/") || file == "google/protobuf/descriptor.proto"
}

/// Says what the compiled files state otherwise, do not state, or state beyond what is published.
fn differences(published: &Facts, compiled: &Facts) -> Vec<String> {
    let names: BTreeSet<_> = published.0.keys().chain(compiled.0.keys()).collect();
    let differing = names
        .into_iter()
        .filter(|name| published.0.get(*name) != compiled.0.get(*name));
    let shown = |facts: &Facts, name| facts.0.get(name).map_or("nothing".into(), Value::to_string);
    differing
        .map(|name| {
            format!(
                "{name}: published {}, compiled {}",
                shown(published, name),
                shown(compiled, name)
            )
        })
        .collect()
}

/// The wire surface of a set of files: an item with one of its attributes, and the value of that.
#[derive(Debug, Default)]
struct Facts(BTreeMap<String, Value>);

impl Facts {
    fn of(set: &FileDescriptorSet) -> Self {
        let mut facts = Self::default();
        for file in set.file.iter().filter(|file| is_ours(file.name())) {
            facts.add_file(file);
        }
        facts
    }

    fn add(&mut self, item: &str, attribute: &str, value: impl Into<Value>) {
        let previous = self.0.insert(format!("{item} {attribute}"), value.into());
        assert_eq!(previous, None, "{item} {attribute} is stated twice");
    }

    fn add_file(&mut self, file: &FileDescriptorProto) {
        self.add(file.name(), "package", file.package());
        self.add(file.name(), "syntax", file.syntax());
        for import in file.dependency.iter().filter(|import| !is_annotation(import)) {
            self.add(file.name(), &format!("imports {import}"), true);
        }
        for message in &file.message_type {
            self.add_message(file.package(), message);
        }
        for enumeration in &file.enum_type {
            self.add_enum(file.package(), enumeration);
        }
        for service in &file.service {
            self.add_service(file.package(), service);
        }
    }

    fn add_message(&mut self, scope: &str, message: &DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        let options = message.options.clone().unwrap_or_default();
        self.add(&name, "map_entry", options.map_entry());
        for range in &message.reserved_range {
            self.add(&name, &format!("reserves {}..{}", range.start(), range.end()), true);
        }
        for reserved in &message.reserved_name {
            self.add(&name, &format!("reserves {reserved}"), true);
        }
        for oneof in &message.oneof_decl {
            self.add(&name, &format!("has oneof {}", oneof.name()), true);
        }
        for field in &message.field {
            self.add_field(&name, message, field);
        }
        for nested in &message.nested_type {
            self.add_message(&name, nested);
        }
        for enumeration in &message.enum_type {
            self.add_enum(&name, enumeration);
        }
    }

    fn add_field(&mut self, scope: &str, message: &DescriptorProto, field: &FieldDescriptorProto) {
        let name = format!("{scope}.{}", field.name());
        let options = field.options.clone().unwrap_or_default();
        let oneof = field
            .oneof_index
            .map(|index| message.oneof_decl[usize::try_from(index).unwrap()].name());
        let json_name = field
            .json_name
            .clone()
            .unwrap_or_else(|| lower_camel_case(field.name()));
        self.add(&name, "number", field.number());
        self.add(&name, "type", field.r#type().as_str_name());
        self.add(&name, "type_name", field.type_name());
        self.add(&name, "label", field.label().as_str_name());
        self.add(&name, "json_name", json_name);
        self.add(&name, "oneof", oneof);
        self.add(&name, "proto3_optional", field.proto3_optional());
        self.add(&name, "packed", options.packed);
        self.add(&name, "deprecated", options.deprecated());
    }

    fn add_enum(&mut self, scope: &str, enumeration: &EnumDescriptorProto) {
        let name = format!("{scope}.{}", enumeration.name());
        for range in &enumeration.reserved_range {
            self.add(&name, &format!("reserves {}..={}", range.start(), range.end()), true);
        }
        for reserved in &enumeration.reserved_name {
            self.add(&name, &format!("reserves {reserved}"), true);
        }
        for value in &enumeration.value {
            self.add(&format!("{name}.{}", value.name()), "number", value.number());
        }
    }

    fn add_service(&mut self, package: &str, service: &ServiceDescriptorProto) {
        for method in &service.method {
            let name = format!("{package}.{}.{}", service.name(), method.name());
            self.add(&name, "input", method.input_type());
            self.add(&name, "output", method.output_type());
            self.add(&name, "client_streaming", method.client_streaming());
            self.add(&name, "server_streaming", method.server_streaming());
        }
    }
}

/// The JSON name of a field that states none: each underscore goes, and the letter after it becomes a capital.
fn lower_camel_case(name: &str) -> String {
    let after_underscore = once(false).chain(name.chars().map(|letter| letter == '_'));
    let letters = name.chars().zip(after_underscore).filter(|(letter, _)| *letter != '_');
    letters
        .map(|(letter, raise)| if raise { letter.to_ascii_uppercase() } else { letter })
        .collect()
}

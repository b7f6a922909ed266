//! The reference of all settings, made of the types that read them.

use std::fmt::{self, Write as _};

use schemars::schema_for;
use serde_json::{Map, Value};

use super::file::File;

const INTRODUCTION: &str = "\
# Configuration

`rootcellar serve --config FILE` reads a file in TOML. Nothing has to be in it: every setting has a default, and each one at the top of it
that `rootcellar serve --help` shows can be given on the command line, or in a variable of the environment, as well. The command line wins
over the environment, that over the file, and that over the default.

    rootcellar config check FILE        # says what is wrong with it, by line and key
    rootcellar config reference         # prints this page
    rootcellar config schema            # prints a JSON schema, for editors

Sizes are written as `\"50GiB\"`, `\"1TB\"` or `\"4096\"`. Secrets do not stand in the file: say `{ env = \"NAME\" }` or `{ file = \"PATH\" }`.

## The common cases

A single disk:

```toml
dir = \"/srv/rootcellar\"
max_size = \"200GiB\"
```

A disk in front of a bucket:

```toml
max_size = \"200GiB\"
[storage.tiered]
fast.disk = {}
slow.bucket = { url = \"s3://builds/cas\", region = \"eu-central-1\" }
```

Three shards, two copies of each blob:

```toml
[storage.sharded]
replicas = 2
shards.a.remote.url = \"http://a.example:8980\"
shards.b.remote.url = \"http://b.example:8980\"
shards.c.remote.url = \"http://c.example:8980\"
```

A proxy, which keeps what it passes on:

```toml
[storage.tiered]
fast.disk = { max_size = \"50GiB\" }
slow.remote.url = \"http://cache.example:8980\"
```

The same for a slow or doubtful link: clients do not wait for it, and builds go on while the other server is away:

```toml
[storage.tiered]
fast.disk = { max_size = \"50GiB\" }
slow.remote.url = \"http://cache.example:8980\"
write = \"behind\"
```

";

/// The whole page, as Markdown.
pub(crate) fn markdown() -> String {
    let schema = schema();
    let definitions = schema
        .get("$defs")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let mut page = INTRODUCTION.to_owned();
    let reference = Reference {
        schema: &schema,
        definitions: &definitions,
    };
    write!(page, "{reference}").expect("a text grows to hold anything");
    page
}

/// The JSON schema of the file.
pub(crate) fn schema() -> Value {
    schema_for!(File).to_value()
}

struct Reference<'a> {
    schema: &'a Value,
    definitions: &'a Map<String, Value>,
}

impl fmt::Display for Reference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## At the top of the file\n")?;
        self.table(f, self.schema)?;
        writeln!(
            f,
            "\n## Stores\n\n`storage` is one of these, and where a store is made of stores, each of them is again:\n"
        )?;
        let storage = &self.definitions["Storage"];
        for variant in storage["oneOf"].as_array().into_iter().flatten() {
            let Some((name, of)) = variant["properties"].as_object().and_then(|one| one.iter().next()) else {
                continue;
            };
            let settings = self.resolve(of);
            let (short, long) = (text(variant), text(settings));
            let words = if long.len() > short.len() { long } else { short };
            writeln!(f, "### `{name}`\n\n{words}\n")?;
            self.table(f, settings)?;
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Reference<'_> {
    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let name = schema["$ref"]
            .as_str()
            .and_then(|reference| reference.strip_prefix("#/$defs/"));
        match name {
            Some(name) => &self.definitions[name],
            None => schema,
        }
    }

    fn table(&self, f: &mut fmt::Formatter<'_>, schema: &Value) -> fmt::Result {
        let Some(properties) = schema["properties"]
            .as_object()
            .filter(|properties| !properties.is_empty())
        else {
            return Ok(());
        };
        writeln!(f, "| setting | takes | |\n|---|---|---|")?;
        let required: Vec<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for (name, property) in properties {
            let must = if required.contains(&name.as_str()) {
                " (needed)"
            } else {
                ""
            };
            writeln!(f, "| `{name}`{must} | {} | {} |", self.kind(property), text(property))?;
        }
        Ok(())
    }

    /// What a setting takes, in words.
    fn kind(&self, schema: &Value) -> String {
        if let Some(options) = schema["anyOf"].as_array() {
            let kinds = options.iter().filter(|option| option["type"] != "null");
            return kinds.map(|option| self.kind(option)).collect::<Vec<_>>().join(" or ");
        }
        if let Some(name) = schema["$ref"]
            .as_str()
            .and_then(|reference| reference.strip_prefix("#/$defs/"))
        {
            return match name {
                "Storage" => "a store".to_owned(),
                "Size" => "a size".to_owned(),
                "Secret" => "a secret".to_owned(),
                _ => self.kind(&self.definitions[name]),
            };
        }
        let constants = |schema: &Value| {
            schema["oneOf"].as_array().map(|all| {
                all.iter()
                    .filter_map(|one| one["const"].as_str().map(quoted))
                    .collect::<Vec<_>>()
            })
        };
        if let Some(constants) = constants(schema) {
            return constants.join(", ");
        }
        if let Some(values) = schema["enum"].as_array() {
            return values
                .iter()
                .filter_map(Value::as_str)
                .map(quoted)
                .collect::<Vec<_>>()
                .join(", ");
        }
        let types = match &schema["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).find(|name| *name != "null"),
            other => other.as_str(),
        };
        match types {
            Some("string") => "a text".to_owned(),
            Some("integer" | "number") => "a number".to_owned(),
            Some("boolean") => "true or false".to_owned(),
            Some("array") => format!("a list of: {}", self.kind(&schema["items"])),
            Some("object") => format!("a table of: {}", self.kind(&schema["additionalProperties"])),
            _ => "anything".to_owned(),
        }
    }
}

fn quoted(value: &str) -> String {
    format!("`\"{value}\"`")
}

/// The words of a type or field, in one line.
fn text(schema: &Value) -> String {
    let described = schema["description"].as_str().unwrap_or_default();
    described.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config.md");

    #[test]
    fn the_page_in_the_repository_is_what_the_types_say() {
        let page = markdown();
        let written = std::fs::read_to_string(PAGE).unwrap_or_default();
        assert!(
            written == page,
            "docs/config.md is old: cargo run -- config reference > docs/config.md"
        );
    }

    #[test]
    fn every_setting_is_explained() {
        for line in markdown().lines().filter(|line| line.starts_with("| `")) {
            assert!(!line.ends_with("|  |"), "{line}");
        }
    }

    /// Each of the common cases, as it is printed.
    #[test]
    fn the_examples_are_read() {
        let examples: Vec<&str> = INTRODUCTION
            .split("```toml\n")
            .skip(1)
            .filter_map(|rest| rest.split("```").next())
            .collect();
        assert_eq!(examples.len(), 5);
        for example in examples {
            assert!(example.lines().count() <= 5, "{example}");
            File::parse(example).unwrap();
        }
    }
}

//! Secrets, which do not stand in the file.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use schemars::JsonSchema;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Where a secret is: `{ env = "NAME" }` or `{ file = "PATH" }`.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(crate) enum Secret {
    /// In a variable of the environment.
    Env(String),
    /// In a file, without the line's end.
    File(PathBuf),
}

impl Secret {
    /// Reads it.
    #[cfg_attr(not(feature = "bucket"), expect(dead_code, reason = "only buckets have secrets"))]
    pub(crate) fn read(&self) -> anyhow::Result<String> {
        let secret = match self {
            Self::Env(name) => {
                std::env::var(name).with_context(|| format!("the variable {name} of the environment"))?
            }
            Self::File(path) => std::fs::read_to_string(path).with_context(|| path.display().to_string())?,
        };
        let secret = secret.trim_end_matches(['\n', '\r']);
        if secret.is_empty() {
            bail!("{self} is empty");
        }
        Ok(secret.to_owned())
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "the variable {name}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

const FORM: &str = "a secret is not written here: say where it is, as { env = \"NAME\" } or { file = \"PATH\" }";

/// By hand, so that no message repeats what somebody wrote in its place.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("{ env = \"NAME\" } or { file = \"PATH\" }")
            }

            fn visit_str<E: serde::de::Error>(self, _secret: &str) -> Result<Secret, E> {
                Err(E::custom(FORM))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
                let secret = match map.next_key::<String>()?.as_deref() {
                    Some("env") => Secret::Env(map.next_value()?),
                    Some("file") => Secret::File(map.next_value()?),
                    _ => return Err(A::Error::custom(FORM)),
                };
                match map.next_key::<String>()? {
                    None => Ok(secret),
                    Some(_) => Err(A::Error::custom(FORM)),
                }
            }
        }

        deserializer.deserialize_any(Form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Holder {
        key: Secret,
    }

    #[test]
    fn a_secret_says_where_it_is_and_nobody_repeats_one_that_is_written_out() {
        let read = |text: &str| toml::from_str::<Holder>(text).map(|holder| holder.key);
        assert_eq!(read("key = { env = 'X' }").unwrap(), Secret::Env("X".to_owned()));
        assert_eq!(read("key.file = '/x'").unwrap(), Secret::File("/x".into()));
        for wrong in [
            "key = 'hunter2'",
            "key = { password = 'hunter2' }",
            "key = { env = 'X', file = 'hunter2' }",
        ] {
            let message = read(wrong).unwrap_err().message().to_owned();
            assert!(
                message.contains("{ env = ") && !message.contains("hunter2"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_secret_in_a_file_ends_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let secret = Secret::File(path.clone());
        assert!(secret.read().unwrap_err().to_string().contains("key"));
        std::fs::write(&path, "hunter2\n").unwrap();
        assert_eq!(secret.read().unwrap(), "hunter2");
        std::fs::write(&path, "\n").unwrap();
        assert!(secret.read().unwrap_err().to_string().contains("empty"));
    }
}

//! An action as it was stored, read and checked: all that a scheduler and a worker have to know of it.
//!
//! ```text
//!   action digest ──> Action ──> Command ──> arguments, environment, outputs
//!                        └─────> input root  (named here, read elsewhere)
//! ```
//!
//! The digest of the action is the key of everything that follows, and its digest function is that of all blobs below it. The
//! messages are used as they lie in the store: nothing here writes one again. Canonical order is not asked for, since
//! BuildStream sends environments as they come; another order is another action, and that is all.

use std::collections::HashMap;
use std::time::Duration;

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi;
use rootcellar_store::BlobStore;

use crate::outputs::Outputs;
use crate::quoted::Quoted;
use crate::wire::Fields;
use crate::{Error, InputTree, RelPath, Result, TreeLimits, functions, message_blob, protobuf_time};

/// Bounds on what an action may ask for, and what it gets where it does not ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionLimits {
    /// Bytes in an Action message: two digests, a platform and a salt.
    pub action_bytes_max: u64,
    /// Bytes in a Command message. Linux takes about two million bytes of arguments and environment; output paths come on top.
    pub command_bytes_max: u64,
    /// Arguments, variables and output paths of a Command together, which bounds its size in memory.
    pub command_records_max: usize,
    /// How long a command may run if its action does not say; `None` lets it run until it is cancelled. BuildStream never
    /// says, and builds browsers in one action.
    pub timeout_default: Option<Duration>,
    /// The longest timeout that an action may ask for; `None` takes any.
    pub timeout_max: Option<Duration>,
    /// Bounds on the input root, which is walked here only to tell what of it is missing together with the command.
    pub tree: TreeLimits,
}

impl Default for ActionLimits {
    fn default() -> Self {
        Self {
            action_bytes_max: 256 * 1024,
            command_bytes_max: 4 * 1024 * 1024,
            command_records_max: 262_144,
            timeout_default: None,
            timeout_max: None,
            tree: TreeLimits::default(),
        }
    }
}

/// Properties of a platform may take this many bytes in a message.
const PLATFORM_BYTES_MAX: usize = 64 * 1024;

/// The field numbers of a platform in Action and in Command.
const ACTION_PLATFORM: u64 = 10;
const COMMAND_PLATFORM: u64 = 5;

/// An action that could be run: its messages were there, and what they say is possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedAction {
    /// The action's own digest.
    pub digest: Digest,
    /// The digest of its Command.
    pub command: Digest,
    /// The digest of the root Directory of its inputs. Nothing is known of what lies below.
    pub input_root: Digest,
    /// The program and its arguments: at least one, the first not empty.
    pub arguments: Vec<String>,
    /// The environment, each variable once, in the order of the command.
    pub environment: Vec<EnvironmentVariable>,
    /// Where the command starts, from the input root.
    pub working_directory: RelPath,
    /// What to bring back.
    pub outputs: Outputs,
    /// What the worker has to offer, sorted by name and value. A name may come more than once.
    pub platform: Vec<PlatformProperty>,
    /// How long the command may run; `None` sets no bound.
    pub timeout: Option<Duration>,
    /// Whether the result must not be cached, nor the run be shared with another request.
    pub do_not_cache: bool,
}

/// A variable of a command's environment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnvironmentVariable {
    /// Not empty, without `=` and NUL.
    pub name: String,
    /// Without NUL.
    pub value: String,
}

/// A demand on the worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlatformProperty {
    /// The name; upper and lower case differ.
    pub name: String,
    /// The value; upper and lower case differ.
    pub value: String,
}

impl LoadedAction {
    /// Reads an action and its command.
    ///
    /// # Errors
    /// [`Error::missing_blobs`] with the action if it is not there, or with the command and all that is missing from the inputs if
    /// the command is not; [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if one of them is another kind of message, breaks
    /// a rule of the API, or goes past `limits`; what the store says if it cannot answer.
    pub async fn load(store: &dyn BlobStore, digest: Digest, limits: &ActionLimits) -> Result<Self> {
        let Some(action) = read_action(store, digest, limits).await? else {
            return Err(Error::missing_blobs(vec![digest]));
        };
        let what = format!("action {digest}");
        let command_digest = named(digest.function(), "command_digest", action.command_digest.as_ref())
            .map_err(|error| error.about(&what))?;
        let Some(command) = read_command(store, command_digest, limits).await? else {
            return Err(missing_command(store, command_digest, &action, limits).await?);
        };
        Self::parse(digest, action, command, limits).map_err(|error| error.about(&what))
    }

    /// Checks an action and the command that it names.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if either breaks a rule of the API or goes past `limits`.
    pub fn parse(
        digest: Digest,
        action: reapi::Action,
        command: reapi::Command,
        limits: &ActionLimits,
    ) -> Result<Self> {
        let function = digest.function();
        check_arguments(&command.arguments)?;
        let working_directory = RelPath::root()
            .join_lexically(&command.working_directory)
            .map_err(|error| error.about("working_directory"))?;
        let outputs = Outputs::parse(&command, &working_directory)?;
        Ok(Self {
            digest,
            command: named(function, "command_digest", action.command_digest.as_ref())?,
            input_root: named(function, "input_root_digest", action.input_root_digest.as_ref())?,
            timeout: parse_timeout(action.timeout, limits)?,
            do_not_cache: action.do_not_cache,
            platform: parse_platform(platform_of(action.platform, &command))?,
            environment: parse_environment(command.environment_variables)?,
            arguments: command.arguments,
            working_directory,
            outputs,
        })
    }

    /// The digest function of all blobs of this action.
    pub fn function(&self) -> DigestFunction {
        self.digest.function()
    }

    /// The value of a variable of the environment.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let variable = self.environment.iter().find(|variable| variable.name == name);
        variable.map(|variable| variable.value.as_str())
    }
}

/// Reads an Action message; `None` if it is not in the store.
///
/// # Errors
/// `INVALID_ARGUMENT` if the blob is no Action or too large, or else what the store met.
pub(crate) async fn read_action(
    store: &dyn BlobStore,
    digest: Digest,
    limits: &ActionLimits,
) -> Result<Option<reapi::Action>> {
    const WHAT: &str = "action";
    let Some(encoded) = message_blob::read_bytes(store, digest, WHAT, limits.action_bytes_max).await? else {
        return Ok(None);
    };
    check_records(&encoded, ACTION_PLATFORM, limits.command_records_max).map_err(|error| error.about(WHAT))?;
    message_blob::decode(&encoded, digest, WHAT).map(Some)
}

async fn read_command(store: &dyn BlobStore, digest: Digest, limits: &ActionLimits) -> Result<Option<reapi::Command>> {
    const WHAT: &str = "command";
    let Some(encoded) = message_blob::read_bytes(store, digest, WHAT, limits.command_bytes_max).await? else {
        return Ok(None);
    };
    check_records(&encoded, COMMAND_PLATFORM, limits.command_records_max).map_err(|error| error.about(WHAT))?;
    message_blob::decode(&encoded, digest, WHAT).map(Some)
}

/// The error of an action without its command, which tells of everything that is missing from its inputs, too.
async fn missing_command(
    store: &dyn BlobStore,
    command: Digest,
    action: &reapi::Action,
    limits: &ActionLimits,
) -> Result<Error> {
    let root = action.input_root_digest.as_ref();
    let root = named(command.function(), "input_root_digest", root)?;
    let mut missing = vec![command];
    match InputTree::load(store, root, &limits.tree).await {
        Err(error) if error.missing().is_empty() => return Err(error.about("input root")),
        Err(error) => missing.extend(error.missing().iter().filter(|digest| **digest != command)),
        Ok(_) => {}
    }
    Ok(Error::missing_blobs(missing))
}

/// Bounds what a message unfolds to in memory before it is decoded.
fn check_records(encoded: &[u8], platform: u64, records_max: usize) -> Result<()> {
    let (mut records, mut platform_bytes) = (0, 0);
    for field in Fields::of(encoded) {
        let field = field?;
        records += 1;
        if field.number == platform {
            platform_bytes += field.record.map_or(0, <[u8]>::len);
        }
    }
    if records > records_max {
        return Err(Error::invalid_argument(format!(
            "it has {records} fields; at most {records_max} are allowed"
        )));
    }
    if platform_bytes > PLATFORM_BYTES_MAX {
        return Err(Error::invalid_argument(format!(
            "its platform has {platform_bytes} bytes; at most {PLATFORM_BYTES_MAX} are allowed"
        )));
    }
    Ok(())
}

fn named(function: DigestFunction, field: &str, digest: Option<&reapi::Digest>) -> Result<Digest> {
    digest
        .ok_or_else(|| Error::invalid_argument("it is not set"))
        .and_then(|digest| functions::from_proto(function, digest))
        .map_err(|error| error.about(field))
}

fn check_arguments(arguments: &[String]) -> Result<()> {
    let program = arguments
        .first()
        .ok_or_else(|| Error::invalid_argument("arguments: the command is empty"))?;
    if program.is_empty() {
        return Err(Error::invalid_argument("arguments: the program has no name"));
    }
    match arguments.iter().position(|argument| argument.contains('\0')) {
        Some(index) => Err(Error::invalid_argument(format!(
            "arguments: number {index} holds a NUL"
        ))),
        None => Ok(()),
    }
}

/// Checks the variables. Where a name comes again, the last value counts and keeps the first place.
fn parse_environment(sent: Vec<reapi::command::EnvironmentVariable>) -> Result<Vec<EnvironmentVariable>> {
    let mut environment: Vec<EnvironmentVariable> = Vec::with_capacity(sent.len());
    let mut places = HashMap::with_capacity(sent.len());
    for reapi::command::EnvironmentVariable { name, value } in sent {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Error::invalid_argument(format!(
                "environment_variables: {} is no variable: a name is not empty and holds no \"=\", and nothing holds a NUL",
                Quoted(&name)
            )));
        }
        match places.get(&name) {
            Some(place) => environment[*place] = EnvironmentVariable { name, value },
            None => {
                places.insert(name.clone(), environment.len());
                environment.push(EnvironmentVariable { name, value });
            }
        }
    }
    Ok(environment)
}

/// The action's platform, or else the command's, where clients older than API 2.2 put it.
#[expect(deprecated, reason = "older clients put the platform into the command")]
fn platform_of(platform: Option<reapi::Platform>, command: &reapi::Command) -> reapi::Platform {
    platform.or_else(|| command.platform.clone()).unwrap_or_default()
}

fn parse_platform(platform: reapi::Platform) -> Result<Vec<PlatformProperty>> {
    let named = |property: reapi::platform::Property| match property.name.as_str() {
        "" => Err(Error::invalid_argument("platform: a property has no name")),
        _ => Ok(PlatformProperty {
            name: property.name,
            value: property.value,
        }),
    };
    let mut properties = platform.properties.into_iter().map(named).collect::<Result<Vec<_>>>()?;
    properties.sort_unstable();
    properties.dedup();
    Ok(properties)
}

/// Reads a timeout. Clients that have none to ask for send none, or one of zero.
fn parse_timeout(timeout: Option<prost_types::Duration>, limits: &ActionLimits) -> Result<Option<Duration>> {
    let asked = timeout
        .map(protobuf_time::duration)
        .transpose()
        .map_err(|error| error.about("timeout"))?
        .filter(|asked| !asked.is_zero());
    match (asked, limits.timeout_max) {
        (Some(asked), Some(max)) if asked > max => Err(Error::invalid_argument(format!(
            "timeout: {asked:?} is asked for, and {max:?} is the most that is allowed here"
        ))),
        (Some(asked), _) => Ok(Some(asked)),
        (None, _) => Ok(limits.timeout_default),
    }
}

#[cfg(test)]
mod tests;

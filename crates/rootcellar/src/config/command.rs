//! `rootcellar config`: what is wrong with a file, and what one can hold.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use super::{Config, reference};
use crate::cli::{self, ConfigCommand};

/// Runs one of the commands.
pub(crate) fn run(command: &ConfigCommand) -> anyhow::Result<ExitCode> {
    let text = match command {
        ConfigCommand::Check { file } => check(file)?,
        ConfigCommand::Reference => reference::markdown(),
        ConfigCommand::Schema => serde_json::to_string_pretty(&reference::schema())? + "\n",
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn check(file: &Path) -> anyhow::Result<String> {
    let options = cli::Serve {
        config: Some(file.to_owned()),
        ..cli::Serve::default()
    };
    let config = Config::load(&options)?;
    let execution = if config.execution {
        "actions are executed"
    } else {
        "nothing is executed"
    };
    Ok(format!(
        "{} is right: {} on {}, {execution}\n",
        file.display(),
        config.storage,
        config.listen
    ))
}

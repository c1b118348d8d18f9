//! Which machine a registration names.
//!
//! The earlier services take an explicit machine, else HOST_MACHINE of the process that registers, else their own. The
//! variable counts here too, unless the daemon takes only its own machine's sessions (machine.allow_other): it is set
//! for all that runs somewhere, so it must not keep a session from being registered.

use super::{Client, Result};
use crate::domain::MachineName;
use crate::platform::places::Env;
use crate::wire::{ErrorCode, ErrorDetail, RegisterRequest, SessionBody};

/// Registers a session; what names no machine is of the one that HOST_MACHINE names. The request is left as it was sent.
///
/// # Errors
/// HOST_MACHINE is no name of a machine, or the daemon refuses.
pub fn register_from(client: &Client, request: &mut RegisterRequest, env: Env<'_>) -> Result<SessionBody> {
    if request.host_machine.is_some() {
        return client.register(request);
    }
    request.host_machine = machine_in(env)?;
    match client.register(request) {
        Err(error) if request.host_machine.is_some() && is_about_machine(&error) => {
            request.host_machine = None;
            client.register(request)
        }
        answer => answer,
    }
}

/// The machine that HOST_MACHINE names.
///
/// # Errors
/// It is no name of a machine.
pub fn machine_in(env: Env<'_>) -> Result<Option<String>> {
    let Some(name) = env("HOST_MACHINE").filter(|name| !name.is_empty()) else { return Ok(None) };
    match MachineName::parse(&name.to_string_lossy()) {
        Ok(name) => Ok(Some(name.to_string())),
        Err(invalid) => Err(ErrorDetail {
            code: ErrorCode::Usage,
            message: format!("HOST_MACHINE: {}", invalid.rule),
            hint: "correct it, or unset it".into(),
        }),
    }
}

/// Whether the daemon refuses the machine that a request names.
pub fn is_about_machine(error: &ErrorDetail) -> bool {
    error.code == ErrorCode::BadRequest && error.message.starts_with("host_machine: ")
}

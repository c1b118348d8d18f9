//! The machine of a registration.
//!
//! Earlier services used an explicit machine, else HOST_MACHINE of the registering process, else their own. HOST_MACHINE
//! is used here too. It is often set for all processes of a host, so if the daemon refuses that machine because it accepts
//! only its own (machine.allow_other), the session is registered without one.

use super::{Client, Result};
use crate::domain::MachineName;
use crate::platform::default_paths::Env;
use crate::wire::{ErrorCode, ErrorDetail, RegisterRequest, SessionBody};

/// Registers a session, by default on the machine that HOST_MACHINE names. `request` becomes the request that was sent.
///
/// # Errors
/// HOST_MACHINE is not a valid machine name, or the daemon refuses the request.
pub fn register_with_env(client: &Client, request: &mut RegisterRequest, env: Env<'_>) -> Result<SessionBody> {
    if request.host_machine.is_some() {
        return client.register(request);
    }
    request.host_machine = machine_from_env(env)?;
    match client.register(request) {
        Err(error) if request.host_machine.is_some() && is_machine_refused(&error) => {
            request.host_machine = None;
            client.register(request)
        }
        answer => answer,
    }
}

/// The machine that HOST_MACHINE names.
///
/// # Errors
/// It is not a valid machine name.
pub fn machine_from_env(env: Env<'_>) -> Result<Option<String>> {
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

/// Whether the daemon refused the machine of a request.
pub fn is_machine_refused(error: &ErrorDetail) -> bool {
    error.code == ErrorCode::BadRequest && error.message.starts_with("host_machine: ")
}

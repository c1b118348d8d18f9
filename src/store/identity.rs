//! Who this host is: the pinned machine name and the random host id, in a small file of their own,
//! so that a damaged database never changes a host's identity.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

use super::OpenError;
use crate::domain::text::quotation;
use crate::domain::{MachineName, Timestamp};
use crate::platform::files::{WriteDurability, write_atomically};

const FILE: &str = "identity.json";

/// How many claims a host keeps beside the one that central accepted last.
const CLAIMS: usize = 64;
/// How many it keeps while it knows of none that central accepted: any of them may be the one that central has.
const CLAIMS_UNTIL_ACCEPTED: usize = 1024;

/// A pinned identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The machine's name.
    pub name: MachineName,
    /// The random id of this state folder.
    pub host_id: Uuid,
    /// When the name was pinned.
    pub pinned_at: Timestamp,
    /// One random claim for each start of the daemon that got as far as serving, newest last. Central keeps the one it
    /// accepted last: a claim there that is none of these was made on a copy of this folder.
    pub claims: Vec<Uuid>,
    /// The claim that central accepted last; it stays among the claims, however many starts come after it.
    pub accepted_claim: Option<Uuid>,
    /// The claims that central has under former host ids.
    pub former_claims: Vec<Uuid>,
    /// The host ids under which this host went before it was renamed.
    pub former_host_ids: Vec<Uuid>,
    /// The operator requested to take the name over from the host that has it in central.
    pub replace: bool,
}

impl Identity {
    /// An identity without claims.
    pub fn new(name: MachineName, host_id: Uuid, pinned_at: Timestamp) -> Self {
        Self {
            name,
            host_id,
            pinned_at,
            claims: Vec::new(),
            accepted_claim: None,
            former_claims: Vec::new(),
            former_host_ids: Vec::new(),
            replace: false,
        }
    }

    /// The claim that this start of the daemon makes.
    pub fn claim(&mut self, claim: Uuid) {
        self.claims.push(claim);
        let kept = if self.accepted_claim.is_some() { CLAIMS } else { CLAIMS_UNTIL_ACCEPTED };
        let oldest_kept = self.claims.len().saturating_sub(kept);
        let mut index = 0;
        self.claims.retain(|claim| {
            index += 1;
            index > oldest_kept || self.accepted_claim == Some(*claim)
        });
    }

    /// All claims that this host knows to be its own.
    pub fn own_claims(&self) -> Vec<Uuid> {
        self.former_claims.iter().chain(&self.claims).copied().collect()
    }

    /// Another name is another host to central: the old id is given up, if it was this host's to give.
    pub fn rename(&mut self, name: MachineName, host_id: Uuid, at: Timestamp) {
        self.former_host_ids.push(self.host_id);
        self.former_claims.extend(self.accepted_claim);
        self.name = name;
        self.host_id = host_id;
        self.pinned_at = at;
        self.replace = false;
    }
}

/// The file that pins an identity.
#[derive(Clone, Debug)]
pub struct IdentityFile {
    path: PathBuf,
}

/// The identity in force while the daemon runs. Changes are written down before anyone learns of them.
pub struct PinnedIdentity {
    file: IdentityFile,
    current: watch::Sender<Identity>,
}

impl PinnedIdentity {
    /// The identity that this file holds.
    pub fn new(file: IdentityFile, identity: Identity) -> Self {
        Self { file, current: watch::Sender::new(identity) }
    }

    pub(crate) fn current(&self) -> Identity {
        self.current.borrow().clone()
    }

    /// Notified when the operator changed the identity.
    pub fn watch(&self) -> watch::Receiver<Identity> {
        self.current.subscribe()
    }

    /// Gives this host another name, and with it another host id.
    pub fn rename(&self, name: MachineName, host_id: Uuid, at: Timestamp) -> Result<Identity, OpenError> {
        self.change(|identity| identity.rename(name, host_id, at))
    }

    /// Takes the name over from the host that has it in central, at the next greeting.
    pub fn replace(&self) -> Result<Identity, OpenError> {
        self.change(|identity| identity.replace = true)
    }

    /// Adds the claim of this start. It is saved before central can learn of it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn claim(&self, claim: Uuid) -> Result<Identity, OpenError> {
        self.change(|identity| identity.claim(claim))
    }

    /// Central accepted this claim, and with it a replacement that was asked for. No watcher is woken. If it cannot be
    /// saved, the next handshake does it again.
    pub fn accepted(&self, claim: Uuid) {
        self.current.send_if_modified(|identity| {
            if identity.accepted_claim != Some(claim) || identity.replace {
                identity.accepted_claim = Some(claim);
                identity.replace = false;
                if let Err(error) = self.file.save(identity) {
                    tracing::warn!(%error, "the claim that central accepted could not be saved");
                }
            }
            false
        });
    }

    fn change(&self, change: impl FnOnce(&mut Identity)) -> Result<Identity, OpenError> {
        let mut identity = self.current();
        change(&mut identity);
        self.file.save(&identity)?;
        self.current.send_replace(identity.clone());
        Ok(identity)
    }
}

#[derive(Serialize, Deserialize)]
struct Pin {
    machine_name: String,
    host_id: Uuid,
    /// Microseconds since 1970 in UTC.
    pinned_at: i64,
    #[serde(default)]
    claims: Vec<Uuid>,
    #[serde(default)]
    accepted_claim: Option<Uuid>,
    #[serde(default)]
    former_claims: Vec<Uuid>,
    #[serde(default)]
    former_host_ids: Vec<Uuid>,
    #[serde(default)]
    replace: bool,
}

impl IdentityFile {
    /// The identity's file in this state folder.
    pub fn in_folder(dir: &Path) -> Self {
        Self { path: dir.join(FILE) }
    }

    /// The pinned identity, if there is one yet.
    ///
    /// # Errors
    /// A pin that cannot be read is never replaced by a guess: that would be another host.
    pub fn load(&self) -> Result<Option<Identity>, OpenError> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.folder(source)),
        };
        let pin: Pin = serde_json::from_slice(&text).map_err(|error| self.unreadable(&error))?;
        Ok(Some(Identity {
            name: MachineName::parse(&pin.machine_name).map_err(|error| self.unreadable(&error))?,
            host_id: pin.host_id,
            pinned_at: Timestamp::from_micros(pin.pinned_at),
            claims: pin.claims,
            accepted_claim: pin.accepted_claim,
            former_claims: pin.former_claims,
            former_host_ids: pin.former_host_ids,
            replace: pin.replace,
        }))
    }

    /// Writes the pin whole or not at all, and synced.
    pub fn save(&self, identity: &Identity) -> Result<(), OpenError> {
        let pin = Pin {
            machine_name: identity.name.to_string(),
            host_id: identity.host_id,
            pinned_at: identity.pinned_at.micros(),
            claims: identity.claims.clone(),
            accepted_claim: identity.accepted_claim,
            former_claims: identity.former_claims.clone(),
            former_host_ids: identity.former_host_ids.clone(),
            replace: identity.replace,
        };
        let write = || -> std::io::Result<()> {
            let content = [&serde_json::to_vec_pretty(&pin)?, &b"\n"[..]].concat();
            write_atomically(&self.path, &content, 0o600, WriteDurability::ContentAndName)
        };
        write().map_err(|source| self.folder(source))
    }

    fn folder(&self, source: std::io::Error) -> OpenError {
        OpenError::Folder { dir: self.path.parent().unwrap_or(&self.path).display().to_string(), source }
    }

    fn unreadable(&self, why: &dyn std::fmt::Display) -> OpenError {
        OpenError::Pin { path: self.path.display().to_string(), why: quotation(&why.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_round_trip_and_is_never_guessed_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = IdentityFile::in_folder(dir.path());
        assert_eq!(file.load().unwrap(), None);

        let mut identity =
            Identity::new(MachineName::parse("laptop").unwrap(), Uuid::from_u128(1), Timestamp::from_micros(5));
        for claim in 0..100 {
            identity.claim(Uuid::from_u128(claim));
        }
        assert_eq!(identity.claims.len(), 100, "any of them may be the one that central has");
        identity.accepted_claim = Some(Uuid::from_u128(2));
        for claim in 100..200 {
            identity.claim(Uuid::from_u128(claim));
        }
        assert_eq!((identity.claims.len(), identity.claims[0]), (CLAIMS + 1, Uuid::from_u128(2)), "kept for ever");
        assert_eq!(identity.claims.last(), Some(&Uuid::from_u128(199)));
        identity.rename(MachineName::parse("desk").unwrap(), Uuid::from_u128(2), Timestamp::from_micros(6));
        file.save(&identity).unwrap();
        assert_eq!(file.load().unwrap(), Some(identity.clone()));
        assert_eq!(identity.own_claims()[0], Uuid::from_u128(2), "the former id's claim is kept for ever, too");
        assert_eq!(identity.former_host_ids, [Uuid::from_u128(1)]);

        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(matches!(file.load(), Err(OpenError::Pin { .. })));
    }
}

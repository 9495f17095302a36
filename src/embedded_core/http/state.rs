//! What the routes share.

use super::api_keys::ApiKeys;
use super::connection_slots::ConnectionSlots;
use super::path::BasePath;
use crate::embedded_core::keys::Minter;

/// 32 MiB of bodies.
const MAX_BODIES: usize = 512;

/// The settings of a core, its keys, and the bodies that it reads.
#[derive(Debug)]
pub(crate) struct CoreState {
    api_keys: ApiKeys,
    base_path: BasePath,
    allow_open: bool,
    minter: Minter,
    /// Bounds the bodies that are being read. A new one evicts a slow one.
    bodies: ConnectionSlots,
}

impl CoreState {
    pub(crate) fn new(
        api_keys: ApiKeys,
        base_path: BasePath,
        allow_open: bool,
        minter: Minter,
    ) -> Self {
        let bodies = ConnectionSlots::new(MAX_BODIES);
        Self { api_keys, base_path, allow_open, minter, bodies }
    }

    /// Whether only programs on this machine, and no web pages of other sites, may be answered.
    pub(crate) fn is_for_loopback_only(&self) -> bool {
        self.api_keys.is_empty() && !self.allow_open
    }

    pub(crate) fn api_keys(&self) -> &ApiKeys {
        &self.api_keys
    }

    pub(super) fn base_path(&self) -> &BasePath {
        &self.base_path
    }

    pub(super) fn bodies(&self) -> &ConnectionSlots {
        &self.bodies
    }

    pub(crate) fn minter(&self) -> &Minter {
        &self.minter
    }
}

//! The settings of the history.

use std::time::Duration;

use super::error::ConfigError;
use super::values::Values;
use crate::model::Durability;

/// Resolved settings of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryConfig {
    /// Maximum memory of the history, in bytes. 0 disables it.
    pub memory: usize,
    /// Maximum age of an event.
    pub window: Duration,
    /// Maximum number of remembered clients. 0 for none.
    pub clients: usize,
    /// Maximum size of the history that the embedded backend stores, in bytes.
    pub disk: usize,
    /// Durability of events that the embedded backend has accepted.
    pub durability: Durability,
}

impl Values {
    pub(super) fn history(&self) -> Result<HistoryConfig, ConfigError> {
        Ok(HistoryConfig {
            memory: self.size("history.memory")?,
            window: self.duration("history.window")?,
            clients: self.integer("history.clients")?,
            disk: self.size("history.disk")?,
            durability: self.choice(
                "history.durability",
                &[("normal", Durability::Normal), ("full", Durability::Full)],
            )?,
        })
    }
}

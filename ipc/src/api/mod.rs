//! What each daemon serves: one file a serving daemon, with its requests, replies, events and their idempotence.
//! Who may call what stands in `ipc/topology.toml`.

pub mod authd;
pub mod certd;
pub mod control;
pub mod deliverd;
pub mod hookd;
pub mod indexd;
pub mod keyd;
pub mod limitd;
pub mod queued;
pub mod relayd;
pub mod reportd;
pub mod stored;

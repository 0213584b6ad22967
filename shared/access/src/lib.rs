//! What the daemons have in common that give people access to their mail line by line: listeners, places, the connection under
//! TLS or not, logins.
//!
//! A session is the daemon's own. It logs its client in with [`log_in`], most read lines from a [`Channel`], and it ends when it
//! has enough; [`House::serve`] accepts, counts and drains.
#![forbid(unsafe_code)]

mod channel;
mod config;
mod guest;
mod house;
mod listener;
mod login;
mod seats;

pub use channel::{Channel, Ended, Io, Patience};
pub use config::{ListenerConfig, Logins, TlsMode};
pub use guest::Guest;
pub use house::{House, Section};
pub use listener::{Caller, Door, Front, listens, open_store, store_needs};
pub use login::{Refusal, SaslText, Talk, log_in};
pub use seats::{Connections, Seat};

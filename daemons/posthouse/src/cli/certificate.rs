//! `posthouse certificate` and `posthouse dkim` on the command line.

use clap::Subcommand;

/// `posthouse certificate`
#[derive(Subcommand, Debug)]
pub enum Certificate {
    /// The certificates in use, and how certd does with those of the configuration.
    #[command(visible_alias = "show")]
    List,
    /// Get a certificate of the configuration now, if the one in use is not good or there is none.
    Order {
        /// The first of its names; all if not given.
        name: Option<String>,
    },
    /// Get it anew, also if the one in use is good.
    Renew {
        /// The first of its names; all if not given.
        name: Option<String>,
    },
    /// Have the authority revoke the certificate in use, and get another with a new key.
    Revoke {
        /// The first of its names.
        name: String,
        /// unspecified, key-compromise, superseded or cessation-of-operation.
        #[arg(long, default_value = "unspecified")]
        reason: String,
    },
}

/// DKIM keys.
#[derive(Subcommand, Debug)]
pub enum Dkim {
    /// Make a key and print the DNS record to publish.
    #[command(visible_alias = "add")]
    Create {
        /// The domain.
        domain: String,
        /// The selector.
        #[arg(long)]
        selector: String,
        /// rsa or ed25519.
        #[arg(long, default_value = "rsa")]
        algorithm: String,
        /// Do not sign with it yet: until `posthouse dkim activate`, when its record can be seen everywhere.
        #[arg(long)]
        prepared: bool,
    },
    /// The keys and their DNS records.
    #[command(visible_alias = "list")]
    Show {
        /// The domain; all if not given.
        domain: Option<String>,
    },
    /// Sign with a key from now on.
    Activate {
        /// The domain.
        domain: String,
        /// The selector.
        selector: String,
        /// And no longer with the domain's other keys of the same algorithm.
        #[arg(long)]
        alone: bool,
    },
    /// Change the keys of a domain now, as certd does by itself for those that `certd.dkim.rotate` names.
    Rotate {
        /// The domain.
        domain: String,
    },
    /// How the changes stand that certd makes by itself.
    Rotations,
    /// Sign no longer with a key. Its record stays, for the mail that was signed with it, until it is removed.
    Retire {
        /// The domain.
        domain: String,
        /// The selector.
        selector: String,
    },
    /// Remove a key.
    Remove {
        /// The domain.
        domain: String,
        /// The selector.
        selector: String,
    },
}

//! What can be typed after `firewall`.

use clap::Subcommand;

use super::ListArgs;

/// WHO is an address, a range such as 203.0.113.0/24, a peer id, 'reputation<N', or any.
#[derive(Debug, Subcommand)]
pub(crate) enum FirewallCommand {
    /// List the rules in the order in which they are asked; the first that matches decides.
    List(ListArgs),
    /// Let somebody connect, whatever wider and older rules say.
    Allow {
        /// An address, a range such as 203.0.113.0/24, a peer id, 'reputation<N', or any.
        who: String,
        /// Only so often, such as 10/m: each host, or each peer if WHO is one.
        #[arg(long, value_name = "N/s|m|h")]
        rate: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Let somebody neither connect nor be called.
    Deny {
        /// An address, a range such as 203.0.113.0/24, a peer id, 'reputation<N', or any.
        who: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take back what was said about somebody with `allow` or `deny`.
    Remove {
        /// As it was given.
        who: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say what the rules make of somebody; exit code 3 if it may not connect.
    Test {
        /// An address, or a peer id.
        who: String,
        /// Peer id that is behind the address.
        #[arg(long, value_name = "PEER")]
        peer: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}
